"""Labels of tables: their order, unknown ones, and warnings about suspicious ones."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal

from bertsym.errors import DataError
from bertsym.text.header import is_number

NO_LABEL = ("-", "-1", "nan")  #: labels, in lower case, by which datasets mark a row without a label


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort distinct labels, as numbers if all are integers, else as strings."""
    distinct = set(labels)
    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def abbreviate_labels(labels: Collection[str]) -> str:
    """Format labels for a message; those after the first 20 are counted."""
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    return ", ".join(label if len(label) <= 30 else f"{label[:30]}..." for label in list(labels)[:20]) + more


def check_known(label: str | None, labels: Collection[str], where: str) -> None:
    """Raise DataError, which names `where`, for a label that is not one of `labels`."""
    if label not in labels:
        hint = f"; --drop-label {label} leaves out its rows" if str(label).lower() in NO_LABEL else ""
        raise DataError(f"{where}: label {label!r} is not one of the labels {abbreviate_labels(labels)}{hint}")


def suspicious_labels(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield warnings about labels that are the same number, and labels that usually mark a row without a label.

    `counts` maps the labels of a training table to their numbers of rows.
    """
    spellings = defaultdict(list)
    for label in counts:
        if is_number(label):
            spellings[Decimal(label)].append(label)
    for labels in spellings.values():
        if len(labels) > 1:
            shown = ", ".join(f"{label!r} ({_rows(counts[label])})" for label in sorted(labels))
            yield f"the labels {shown} are the same number but different classes"
    for label, count in counts.items():
        others = {other for other in counts if other != label}
        if {"-": "+" not in others, "-1": _are_classes(others)}.get(label, label.lower() in NO_LABEL):
            yield (
                f"the label {label!r} ({_rows(count)}) is used as a class; if it marks rows without a label, "
                f"--drop-label {label} leaves them out"
            )


def _are_classes(labels: set[str]) -> bool:
    """Whether the labels are 0, 1, ... n - 1."""
    return len(labels) > 1 and labels == {str(i) for i in range(len(labels))}


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"
