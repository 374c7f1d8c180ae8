"""Reading and encoding the tables of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsym.datasets.registry import DATASETS
from bertsym.errors import DataError
from bertsym.text.bad_rows import BadRows
from bertsym.text.labels import abbreviate_labels
from bertsym.text.reading import Rows, read_encoded_rows, warn_of_absent_labels
from bertsym.text.tables import Layout, Table, TableFormat
from bertsym.text.tokenizer import Tokenizer
from bertsym.training.finetune_options import FinetuneOptions
from bertsym.training.progress import Progress

_MAX_UNKNOWN_FRACTION = 0.2


@dataclass(frozen=True)
class FinetuneData:
    """Both encoded tables, the training table's labels in sorted order as class names, and the layout of the tables."""

    train: Rows
    dev: Rows
    class_names: tuple[str, ...]
    layout: Layout
    drop_labels: tuple[str, ...]

    @property
    def pair(self) -> bool:
        """Whether the examples are text pairs."""
        return self.layout.columns.pair is not None


def read_data(
    train: str | Path,
    dev: str | Path,
    options: FinetuneOptions,
    tokenizer: Tokenizer,
    progress: Progress,
    ordered: Callable[[Sequence[str], str], tuple[str, ...]] = lambda labels, table: tuple(labels),
) -> FinetuneData:
    """Read and encode both tables; `ordered` returns the labels of the training table in the order of the classes.

    Columns that the options' table format does not name are the task's, or else are found by common header names.
    Unreadable rows, and dev rows with a label that the training table does not have, are an error, or are left out with
    `on_error` ``skip``. Raises DataError with file and line.
    """

    def read(path: str | Path, how: TableFormat, class_names: Sequence[str] | None = None) -> tuple[Table, Rows]:
        table, bad_rows = Table(path, how), BadRows(options.on_error, progress.note)
        return table, read_encoded_rows(table, tokenizer, class_names, bad_rows, progress.note)

    table_format = options.table_format
    columns = table_format.columns.or_else(DATASETS[options.task].columns)
    table, train_rows = read(train, dataclasses.replace(table_format, columns=columns))
    labels = train_rows.class_names
    if len(labels) < 2:
        raise DataError(f"{train}: every label is {labels[0]!r}; a classifier needs at least 2 labels")
    train_rows = train_rows.reordered(ordered(labels, str(train)))
    labels, layout = train_rows.class_names, table.layout
    _, dev_rows = read(dev, dataclasses.replace(table_format, trained=layout), labels)
    for rows in (train_rows, dev_rows):
        _describe(rows, tokenizer.max_length, progress)
    warn_of_absent_labels(table_format.drop_labels, [train_rows, dev_rows], progress.note)
    progress.note(f"columns: {layout.columns}; labels: {abbreviate_labels(labels)}")
    if len(labels) > len(train_rows) // 2:
        progress.note(
            f"warning: {len(labels)} distinct labels in {len(train_rows)} rows: does the column "
            f"{layout.columns.label!r} hold classes?"
        )
    return FinetuneData(train_rows, dev_rows, labels, layout, table_format.drop_labels)


def _describe(rows: Rows, max_length: int, progress: Progress) -> None:
    progress.note(rows.describe(max_length))
    unknown_fraction = rows.features.unknown_fraction
    if unknown_fraction > _MAX_UNKNOWN_FRACTION:
        progress.note(
            f"warning: {unknown_fraction:.0%} of the tokens of {rows.name} are [UNK]: check that the vocabulary and "
            "its lowercasing fit this text"
        )
