"""Reading whole tables: rows as token ids, labels as classes, and the rows that are left out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.errors import DataError
from bertsym.text.features import Features, encode_each
from bertsym.text.header import check_first_line
from bertsym.text.labels import class_indices, sorted_labels, suspicious_labels, unknown_label
from bertsym.text.tables import Row, Table
from bertsym.text.tokenizer import Encoded, Tokenizer

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Rows:
    """The encoded rows of a table."""

    name: str  #: of the file
    features: Features
    class_names: tuple[str, ...]
    classes: Array  #: indices into `class_names`, (rows,) int64; of a table without labels (0,)
    sha256: str  #: of the bytes of the table
    left_out: int  #: rows that can't be read
    dropped: Mapping[str, int]  #: label whose rows are dropped -> number of rows

    def __len__(self) -> int:
        return len(self.features)

    def reordered(self, class_names: tuple[str, ...]) -> Rows:
        """The same rows with their class names in another order."""
        places = np.array([class_names.index(name) for name in self.class_names], np.int64)
        return dataclasses.replace(self, class_names=class_names, classes=places[self.classes])

    def sample(self, count: int) -> Features:
        """Up to `count` rows, always the same ones."""
        chosen = np.random.default_rng(0).permutation(len(self))[:count]
        return Features([self.features.examples[row] for row in sorted(chosen)])

    def describe(self, max_length: int) -> str:
        """One line: the numbers of rows, and why others are missing."""
        truncated = self.features.truncated
        parts = [f"{len(self)} rows"]
        parts += [f"{truncated} truncated to {max_length} tokens"] if truncated else []
        parts += [f"{self.left_out} left out"] if self.left_out else []
        parts += [f"{count} dropped with the label {label!r}" for label, count in self.dropped.items()]
        return f"{self.name}: {', '.join(parts)}"

    def facts(self) -> dict[str, Any]:
        """The digest and the counts, for a manifest."""
        return {
            "sha256": self.sha256,
            "rows": len(self),
            "left_out": self.left_out,
            "dropped_labels": dict(self.dropped),
        }


def read_encoded_rows(
    table: Table,
    tokenizer: Tokenizer,
    class_names: Sequence[str] | None = None,
    on_bad_row: Callable[[DataError], object] | None = None,
    warn: Callable[[str], object] = lambda text: None,
) -> Rows:
    """Read and encode all rows of a table but those whose label is dropped.

    A labelled table without `class_names` is a training table: its labels become the classes. `on_bad_row` is called
    with the error of each row that can't be read, or whose label is not a class, and the row is left out; without it
    the first error is raised. `warn` gets what is suspicious about the header and the labels.

    Raises DataError, with the line, also for a table that has no row left.
    """
    dropped: Counter[str] = Counter()
    found: list[Row | DataError] = []
    for row in table.each():
        if isinstance(row, Row) and row.label in table.drop_labels:
            dropped[row.label] += 1
        else:
            found.append(row)
    _check_first_line(table, found, class_names, warn)
    if class_names is not None and table.need_label:
        found = [_with_known_label(row, class_names, table) for row in found]

    rows: list[Row] = []
    examples: list[Encoded] = []
    for row, example in zip(found, encode_each(found, tokenizer, table.name)):
        if isinstance(row, Row) and isinstance(example, Encoded):
            rows.append(row)
            examples.append(example)
        elif isinstance(example, DataError):
            if on_bad_row is None:
                raise example
            on_bad_row(example)
    left_out = len(found) - len(rows)
    if not rows:
        raise DataError(f"{table.name}: no rows{_but(left_out, dropped)}")
    if not table.need_label:
        return Rows(table.name, Features(examples), (), np.zeros(0, np.int64), table.sha256, left_out, dropped)
    if class_names is None:
        class_names = sorted_labels(rows)
        for text in suspicious_labels(Counter(str(row.label) for row in rows)):
            warn(f"warning: {table.name}: {text}")
    classes = class_indices(rows, class_names, table.name)
    return Rows(table.name, Features(examples), tuple(class_names), classes, table.sha256, left_out, dropped)


def warn_of_absent_labels(labels: Sequence[str], tables: Sequence[Rows], warn: Callable[[str], object]) -> None:
    """Warn of labels whose rows were to be dropped and that none of the tables has."""
    for label in labels:
        if not any(label in rows.dropped for rows in tables):
            warn(f"warning: no row of {' and '.join(rows.name for rows in tables)} has the dropped label {label!r}")


def _check_first_line(
    table: Table, found: Sequence[Row | DataError], class_names: Sequence[str] | None, warn: Callable[[str], object]
) -> None:
    first = table.first_line
    if first is None:
        return
    if class_names is not None:
        counts = dict.fromkeys(class_names, 0)
    else:
        others = (row for row in found if isinstance(row, Row) and row.line != first.line)
        counts = Counter(row.label for row in others if row.label is not None)
    # A dropped label marks a row as well as a class does.
    known = {**dict.fromkeys(table.drop_labels, 2), **counts}
    check_first_line(first, table.name, known, table.need_label, warn)


def _with_known_label(row: Row | DataError, class_names: Sequence[str], table: Table) -> Row | DataError:
    if isinstance(row, DataError) or row.label in class_names:
        return row
    error = unknown_label(row, class_names, table.name)
    is_first = table.first_line is not None and row.line == table.first_line.line
    return DataError(f"{error}; if the line is a header, give --header") if is_first else error


def _but(left_out: int, dropped: Mapping[str, int]) -> str:
    """The rows that a table had, for a message."""
    parts = [f"{left_out} that can't be read"] if left_out else []
    parts += [f"{count} with the dropped label {label!r}" for label, count in dropped.items()]
    return f" but {' and '.join(parts)}" if parts else ""
