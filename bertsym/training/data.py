"""The tables of a fine-tuning run, encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsym.errors import DataError
from bertsym.text.bad_rows import BadRows
from bertsym.text.labels import abbreviated
from bertsym.text.reading import Rows, read_encoded_rows, warn_of_absent_labels
from bertsym.text.tables import Layout, Table, TableFormat
from bertsym.text.tasks import Task
from bertsym.text.tokenizer import Tokenizer
from bertsym.training.progress import Progress

_SUSPICIOUS_UNKNOWN_SHARE = 0.2


@dataclass(frozen=True)
class FinetuneData:
    """Both tables, the labels of the training table in sorted order as class names, and how the tables were read."""

    train: Rows
    dev: Rows
    class_names: tuple[str, ...]
    layout: Layout
    drop_labels: tuple[str, ...]

    @property
    def pair(self) -> bool:
        """Whether the examples are pairs of texts."""
        return self.layout.columns.pair is not None


def read_data(
    train: str | Path,
    dev: str | Path,
    task: Task,
    tokenizer: Tokenizer,
    table_format: TableFormat,
    on_error: str,
    progress: Progress,
) -> FinetuneData:
    """Read and encode both tables.

    Columns that `table_format` does not name are the task's, or else the usual ones. Rows that can't be read, also
    those with a dev label that the training table does not have, are an error or, with `on_error` ``skip``, are left
    out. Raises DataError, with file and line.
    """

    def read(path: str | Path, how: TableFormat, class_names: Sequence[str] | None = None) -> tuple[Table, Rows]:
        table, bad_rows = Table(path, how), BadRows(on_error, progress.note)
        return table, read_encoded_rows(table, tokenizer, class_names, bad_rows, progress.note)

    columns = table_format.columns.or_else(task.columns)
    table, train_rows = read(train, dataclasses.replace(table_format, columns=columns))
    labels = train_rows.class_names
    if len(labels) < 2:
        raise DataError(f"{train}: every label is {labels[0]!r}, a classifier needs at least 2")
    layout = table.layout
    _, dev_rows = read(dev, dataclasses.replace(table_format, trained=layout), labels)
    for rows in (train_rows, dev_rows):
        _describe(rows, tokenizer.max_length, progress)
    warn_of_absent_labels(table_format.drop_labels, [train_rows, dev_rows], progress.note)
    progress.note(f"columns: {layout.columns}; labels: {abbreviated(labels)}")
    if len(labels) > len(train_rows) // 2:
        progress.note(f"warning: {len(labels)} labels in {len(train_rows)} rows: is {layout.columns.label!r} a class?")
    return FinetuneData(train_rows, dev_rows, labels, layout, table_format.drop_labels)


def _describe(rows: Rows, max_length: int, progress: Progress) -> None:
    progress.note(rows.describe(max_length))
    unknown_share = rows.features.unknown_share
    if unknown_share > _SUSPICIOUS_UNKNOWN_SHARE:
        progress.note(
            f"warning: {unknown_share:.0%} of the tokens of {rows.name} are [UNK]: do the vocabulary and its "
            "lower-casing fit this text?"
        )
