"""The rows of a table as a classifier reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertsym.bundle import Bundle
from bertsym.errors import DataError
from bertsym.inference.classifier import as_trained, check_pair
from bertsym.symbol.params import Array
from bertsym.text.features import Features, classes_of, encode_each, unknown_label
from bertsym.text.tables import Row, Table, TableFormat
from bertsym.text.tokenizer import Encoded


@dataclass(frozen=True)
class Rows:
    """The encoded rows of a table, and their classes, (rows,) int64, where it has labels."""

    features: Features
    classes: Array | None
    sha256: str
    left_out: int = 0  #: rows that can't be read

    def __len__(self) -> int:
        return len(self.features)

    def sample(self, count: int) -> Features:
        """Up to `count` rows, always the same ones."""
        chosen = np.random.default_rng(0).permutation(len(self))[:count]
        return Features([self.features.examples[row] for row in sorted(chosen)])


def read_encoded(
    bundle: Bundle,
    path: str | Path,
    table_format: TableFormat,
    labelled: bool,
    on_bad_row: Callable[[DataError], object] | None = None,
) -> Rows:
    """All rows of a table, with their classes if it is `labelled`.

    `on_bad_row` hears of each row that can't be read, which is left out; without it the first is raised. Raises
    DataError, with the line, and UsageError.
    """
    signature = bundle.signature
    table = Table(path, as_trained(signature, table_format), need_label=labelled)
    found = [_labelled(row, signature.class_names, table.name) if labelled else row for row in table.each()]
    for row in found:
        if isinstance(row, Row):
            check_pair(signature, row.pair is not None)
            break
    tokenizer = bundle.tokenizer(signature.tokenizer, signature.max_length)
    rows: list[Row] = []
    left_out = 0
    examples: list[Encoded] = []
    for row, example in zip(found, encode_each(found, tokenizer, table.name)):
        if isinstance(row, Row) and isinstance(example, Encoded):
            rows.append(row)
            examples.append(example)
        elif isinstance(example, DataError):
            if on_bad_row is None:
                raise example
            on_bad_row(example)
            left_out += 1
    if not rows:
        raise DataError(f"{table.name}: no rows" + (f" but {left_out} that can't be read" if left_out else ""))
    classes = classes_of(rows, signature.class_names, table.name) if labelled else None
    return Rows(Features(examples), classes, table.sha256, left_out)


def _labelled(row: Row | DataError, labels: Sequence[str], where: str) -> Row | DataError:
    return unknown_label(row, labels, where) if isinstance(row, Row) and row.label not in labels else row
