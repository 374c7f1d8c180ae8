"""Labels of tables: their order, unknown ones, and warnings about suspicious ones."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from bertsym.errors import DataError, UsageError
from bertsym.file_reader import read_bytes
from bertsym.text.header import is_number

NO_LABEL = ("-", "-1", "nan")  #: labels, in lower case, by which datasets mark a row without a label


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort distinct labels, as numbers if all are integers, else as strings."""
    distinct = set(labels)
    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def match_class_names(
    labels: tuple[str, ...] | None, task: str | None, num_outputs: int, *, has_classes: bool
) -> tuple[str, ...]:
    """Return the labels of `--labels` as the class names of a head with `num_outputs` outputs for `task`.

    Raises UsageError for missing labels, for another number of labels, and for a task without classes.
    """
    if labels is None:
        if not has_classes:
            return ()
        raise UsageError(
            f"its {task} head has {num_outputs} outputs without names: give --labels with {num_outputs} names, in the "
            "order of the outputs"
        )
    if not has_classes:
        what = "there is no head" if task is None else f"{task} has no classes"
        raise UsageError(f"--labels {abbreviate_labels(labels)}: {what}: omit --labels")
    if len(labels) != num_outputs:
        raise UsageError(
            f"--labels: {len(labels)} names ({abbreviate_labels(labels)}), but the head has {num_outputs} outputs: "
            f"give {num_outputs} names, in the order of the outputs"
        )
    return labels


def read_labels(text: str) -> tuple[str, ...]:
    """Read the class names of `--labels`: ``no,yes``, or ``@FILE`` with one name a line.

    Raises DataError for an unreadable file.
    """
    if not text.startswith("@"):
        return tuple(name.strip() for name in text.split(","))
    path = text[1:]
    try:
        content = read_bytes(Path(path)).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}") from None
    return tuple(line.strip() for line in content.removesuffix("\n").split("\n"))


def check_labels(labels: Collection[str]) -> None:
    """Raise UsageError for labels of `--labels` that can't be class names: repeated, empty or not printable ones."""
    for label, count in Counter(labels).items():
        if count > 1 or not label or not label.isprintable():
            fault = "repeated" if count > 1 else "not printable" if label else "empty"
            raise UsageError(f"--labels: {label!r:.60} is {fault}: each class needs a name of its own")


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
