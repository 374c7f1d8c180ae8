"""Labels of tables: their spelling, the classes that they are, and what is suspicious about them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from bertsym.errors import DataError
from bertsym.text.header import is_number
from bertsym.text.tables import Row

Array = np.ndarray[Any, np.dtype[Any]]

_NO_LABEL = ("-", "-1", "nan")  #: how data sets mark a row without a label, in lower case


def sorted_labels(rows: Sequence[Row]) -> tuple[str, ...]:
    """The distinct labels of some rows, as numbers if all are whole numbers, else as words."""
    labels = {row.label for row in rows if row.label is not None}

    if all(re.fullmatch(r"-?[0-9]{1,18}", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def abbreviated(labels: Sequence[str]) -> str:
    """Labels for a message: all of a few, the first of many."""
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    return ", ".join(label if len(label) <= 30 else f"{label[:30]}..." for label in labels[:20]) + more


def classes_of(rows: Sequence[Row], labels: Sequence[str], where: str) -> Array:
    """The rows' labels as indices into `labels`: (rows,) int64; raises DataError, with the line, for another label."""
    index = {label: i for i, label in enumerate(labels)}
    for row in rows:
        if row.label not in index:
            raise unknown_label(row, labels, where)
    return np.array([index[str(row.label)] for row in rows], np.int64)


def unknown_label(row: Row, labels: Sequence[str], where: str) -> DataError:
    """The error of a row whose label is not one of `labels`."""
    hint = f"; --drop-label {row.label} leaves such rows out" if str(row.label).lower() in _NO_LABEL else ""
    return DataError(
        f"{where}, line {row.line}: label {row.label!r} is not one of the labels {abbreviated(labels)}{hint}"
    )


def suspicious_labels(counts: Mapping[str, int]) -> Iterator[str]:
    """A warning for labels that are the same number, and for labels that usually mark a row without a label.

    `counts` are the labels of a training table with their numbers of rows.
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
        if {"-": "+" not in others, "-1": _are_classes(others)}.get(label, label.lower() in _NO_LABEL):
            yield (
                f"the label {label!r} ({_rows(count)}) is a class; if it marks rows without a label, --drop-label "
                f"{label} leaves them out"
            )


def _are_classes(labels: set[str]) -> bool:
    """Whether the labels are 0, 1, ... n - 1."""
    return len(labels) > 1 and labels == {str(i) for i in range(len(labels))}


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"
