"""Reading and encoding the files of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from bertsym.datasets.dataset import DataSet
from bertsym.events import EventStream, Span, now, since
from bertsym.reports.data import LeftOutRows
from bertsym.tasks.table_task import warn_of_absent_labels
from bertsym.tasks.task import Examples, Reading, Task
from bertsym.text.bad_rows import BadRows
from bertsym.text.dataset_tables import format_of_dataset
from bertsym.text.labels import abbreviate_labels
from bertsym.text.table_format import TableFormat
from bertsym.text.tokenizer import Tokenizer
from bertsym.training.base_model import Base
from bertsym.training.dev_split import split_examples
from bertsym.training.finetune_options import FinetuneOptions

_MAX_UNKNOWN_FRACTION = 0.2


@dataclass(frozen=True)
class FinetuneData:
    """Both encoded files, and the task with what it learned from the training file."""

    train: Examples
    dev: Examples
    task: Task
    drop_labels: tuple[str, ...]
    left_out: LeftOutRows  #: why rows of both files are left out


def read_data(
    train: str | Path,
    dev: str | Path | None,
    task: Task,
    dataset: DataSet,
    base: Base,
    options: FinetuneOptions,
    tokenizer: Tokenizer,
    events: EventStream,
    keeps_texts: bool = False,
) -> FinetuneData:
    """Read and encode both files, or a training file from which the options' `dev_fraction` takes the dev rows.

    What the options' table format does not say is as the data set describes; columns are otherwise found by common
    header names. Unreadable rows, and dev rows with a label that the training file does not have, are an error, or are
    left out with `on_error` ``skip``, and of a data set with `skip_broken_rows`. With `keeps_texts` the examples have
    their texts, for a report. Raises DataError with file and line.
    """
    left_out = LeftOutRows()
    on_error = "skip" if dataset.skip_broken_rows else options.on_error

    def read(path: str | Path, how: TableFormat, task: Task) -> tuple[Examples, Span]:
        started, bad_rows = now(), left_out.added_by(BadRows(on_error, events.note))
        on_rows = events.progress("tokenising", str(path))
        reading = Reading(
            tokenizer, how, on_bad_row=bad_rows, warn=events.note, keeps_texts=keeps_texts, on_rows=on_rows
        )
        examples = task.read(path, reading)
        return examples, since(started)

    table_format = format_of_dataset(options.table_format, dataset, "train")
    train_rows, train_span = read(train, table_format, task)
    dev_span = train_span
    if options.dev_fraction is not None:
        train_rows, dev_rows = split_examples(train_rows, task, options.dev_fraction, options.seed)
    train_rows = task.for_training(train_rows, events.note)
    task = base.with_classes(task.with_labels(train_rows), str(train))
    if dev is not None:
        dev_rows, dev_span = read(dev, dataclasses.replace(table_format, trained=train_rows.layout), task)
    for rows, span in ((train_rows, train_span), (dev_rows, dev_span)):
        events(rows.tokenised(span, tokenizer.max_length))
        _warn_of_unknown(rows, events)
    warn_of_absent_labels(options.table_format.drop_labels, [train_rows, dev_rows], events.note)
    labels = [f"labels: {abbreviate_labels(task.class_names)}"] if task.class_names else []
    columns = train_rows.layout.columns
    for warning in task.label_warnings(train_rows):
        events.note(warning)
    if described := [*([f"columns: {columns}"] if columns.text else []), *labels]:
        events.note("; ".join(described))
    return FinetuneData(train_rows, dev_rows, task, table_format.drop_labels, left_out)


def _warn_of_unknown(rows: Examples, events: EventStream) -> None:
    unknown_fraction = rows.features.unknown_fraction
    if unknown_fraction > _MAX_UNKNOWN_FRACTION:
        events.note(
            f"warning: {unknown_fraction:.0%} of the tokens of {rows.name} are [UNK]: check that the vocabulary and "
            "its lowercasing fit this text"
        )
