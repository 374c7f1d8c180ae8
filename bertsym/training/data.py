"""The tables of a fine-tuning run, encoded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from bertsym.errors import DataError
from bertsym.symbol.params import Array
from bertsym.text.features import Features, abbreviated, classes_of, encode_rows, sorted_labels
from bertsym.text.tables import Table, TableFormat, read_rows
from bertsym.text.tasks import Columns, Task
from bertsym.text.tokenizer import Tokenizer
from bertsym.training.progress import Progress

_SUSPICIOUS_UNKNOWN_SHARE = 0.2


@dataclass(frozen=True)
class LabelledFeatures:
    """Encoded examples with their classes, (rows,) int64 indices into the labels."""

    features: Features
    classes: Array
    sha256: str  #: of the table's bytes, as they were read

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class FinetuneData:
    """Both tables, the labels of the training table in sorted order as class names, and the columns that were read."""

    train: LabelledFeatures
    dev: LabelledFeatures
    class_names: tuple[str, ...]
    columns: Columns
    header: bool

    @property
    def pair(self) -> bool:
        """Whether the examples are pairs of texts."""
        return self.columns.pair is not None


def read_data(
    train: str | Path,
    dev: str | Path,
    task: Task,
    tokenizer: Tokenizer,
    table_format: TableFormat,
    progress: Progress,
) -> FinetuneData:
    """Read and encode both tables.

    Columns that `table_format` doesn't name are the task's, or else the usual ones. Raises DataError, with
    file and line, also for a dev label that the training table doesn't have.
    """
    columns = table_format.columns.or_else(task.columns)
    train_table = Table(train, dataclasses.replace(table_format, columns=columns))
    train_rows = read_rows(train_table)
    columns = train_table.columns
    dev_table = Table(dev, dataclasses.replace(table_format, columns=columns))
    dev_rows = read_rows(dev_table)
    labels = sorted_labels(train_rows)
    if len(labels) < 2:
        raise DataError(f"{train}: every label is {labels[0]!r}, a classifier needs at least 2")
    encoded = []
    for table, rows in ((train_table, train_rows), (dev_table, dev_rows)):
        features = encode_rows(rows, tokenizer, table.name)
        encoded.append(LabelledFeatures(features, classes_of(rows, labels, table.name), table.sha256))
    for table, part in zip((train_table, dev_table), encoded):
        _describe(part.features, table.name, tokenizer.max_length, progress)
    progress.note(f"columns: {columns}; labels: {abbreviated(labels)}")
    if len(labels) > len(train_rows) // 2:
        progress.note(f"warning: {len(labels)} labels in {len(train_rows)} rows: is {columns.label!r} a class?")
    return FinetuneData(encoded[0], encoded[1], labels, columns, table_format.header is not False)


def _describe(features: Features, where: str, max_length: int, progress: Progress) -> None:
    truncated = f", {features.truncated} truncated to {max_length} tokens" if features.truncated else ""
    progress.note(f"{where}: {len(features)} rows{truncated}")
    if features.unknown_share > _SUSPICIOUS_UNKNOWN_SHARE:
        progress.note(
            f"warning: {features.unknown_share:.0%} of the tokens of {where} are [UNK]: do the vocabulary and its "
            "lower-casing fit this text?"
        )
