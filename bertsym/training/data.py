"""The tables of a fine-tuning run, encoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bertsym.bundle import Bundle
from bertsym.errors import DataError
from bertsym.symbol.params import Array
from bertsym.text.features import Features, classes_of, encode_rows, sorted_labels
from bertsym.text.tables import TableFormat, read_table
from bertsym.text.tasks import Columns, Task
from bertsym.text.tokenizer import Tokenizer
from bertsym.training.progress import Progress

_SUSPICIOUS_UNKNOWN_SHARE = 0.2


@dataclass(frozen=True)
class LabelledFeatures:
    """Encoded examples with their classes, (rows,) int64 indices into the labels."""

    features: Features
    classes: Array

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class FinetuneData:
    """Both tables, the labels of the training table in sorted order, and the columns that were read."""

    train: LabelledFeatures
    dev: LabelledFeatures
    labels: tuple[str, ...]
    columns: Columns

    @property
    def pair(self) -> bool:
        """Whether the examples are pairs of texts."""
        return self.columns.pair is not None


def read_data(
    base: Bundle,
    train: str | Path,
    dev: str | Path,
    task: Task,
    max_length: int,
    table_format: TableFormat,
    progress: Progress,
) -> FinetuneData:
    """Read and encode both tables for the vocabulary of `base`.

    Columns that `table_format` doesn't name are the task's, or else the usual ones. Raises DataError, with
    file and line, also for a dev label that the training table doesn't have.
    """
    wanted = table_format.columns
    columns = Columns(
        wanted.text or task.columns.text,
        wanted.pair or (None if wanted.text else task.columns.pair),
        wanted.label or task.columns.label,
    )
    train_rows, columns = read_table(train, TableFormat(table_format.kind, table_format.header, columns))
    dev_rows, _ = read_table(dev, TableFormat(table_format.kind, table_format.header, columns))
    labels = sorted_labels(train_rows)
    if len(labels) < 2:
        raise DataError(f"{train}: every label is {labels[0]!r}, a classifier needs at least 2")
    tokenizer = Tokenizer(base.vocabulary(), base.signature.tokenizer, max_length)
    encoded = []
    for path, rows in ((train, train_rows), (dev, dev_rows)):
        features = encode_rows(rows, tokenizer, str(path))
        encoded.append(LabelledFeatures(features, classes_of(rows, labels, str(path))))
    for path, part in zip((train, dev), encoded):
        _describe(part.features, str(path), max_length, progress)
    progress.note(f"labels: {', '.join(labels)}")
    return FinetuneData(encoded[0], encoded[1], labels, columns)


def _describe(features: Features, where: str, max_length: int, progress: Progress) -> None:
    truncated = f", {features.truncated} truncated to {max_length} tokens" if features.truncated else ""
    progress.note(f"{where}: {len(features)} rows{truncated}")
    if features.unknown_share > _SUSPICIOUS_UNKNOWN_SHARE:
        progress.note(
            f"warning: {features.unknown_share:.0%} of the tokens of {where} are [UNK]: do the vocabulary and its "
            "lower-casing fit this text?"
        )
