"""Evaluation of a model on a labelled file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from bertsym.events import Evaluated, EventStream, Listener, now, since
from bertsym.inference.engine_predictor import open_predictor, predictor_settings
from bertsym.inference.mxnet_predictor import BATCH_SIZE
from bertsym.inference.task_bundle import TaskBundle
from bertsym.reports.data import LeftOutRows
from bertsym.reports.evaluation import EvaluatedModel, evaluation_report
from bertsym.reports.options import ReportOptions
from bertsym.reports.writing import check_report, write_report
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.table_task import warn_of_absent_labels
from bertsym.text.bad_rows import BadRows
from bertsym.text.table_format import TableFormat


@dataclass(frozen=True)
class EvaluateResult:
    """Exact metrics over all rows that were read, and the numbers of truncated and missing rows."""

    metrics: dict[str, float]
    rows: int
    truncated: int
    left_out: int  #: number of unreadable rows
    dropped_labels: dict[str, int]  #: label whose rows were dropped -> number of rows
    file: str  #: the file that was read


@dataclass(frozen=True)
class EvaluateOptions:
    """How a model is evaluated."""

    #: for `find_dataset`: a kind of task, a known data set, or a file ``NAME.toml``; None: that of the training
    task: str | None = None
    data_dir: str | Path | None = None  #: folder of the data set, where no file is given
    split: str = "dev"  #: split of the file: ``train``, ``dev`` or ``test``
    task_options: TaskOptions = TaskOptions()  #: options that replace settings of the training
    device: str = "cpu"
    batch_size: int = BATCH_SIZE  #: most rows that are computed together
    #: at a row that can't be read or has an unknown label: ``fail``, or ``skip`` to leave it out
    on_error: str = "fail"


def evaluate(
    model: str | Path,
    table: str | Path | None,
    options: EvaluateOptions = EvaluateOptions(),
    *,
    table_format: TableFormat = TableFormat(),
    report: ReportOptions | None = None,
    on_event: Listener = lambda event: None,
) -> EvaluateResult:
    """Compute the metrics of the trained bundle `model` on a labelled file; labels must be among the model's classes.

    Rows with a dropped label do not count.

    Args:
        model: prefix of the bundle.
        table: the labelled file; None: that of a split of a data set.
        options: task or data set, device, batch size, and what happens at an unreadable row.
        table_format: format and columns; by default those of the training table.
        report: folder of a report about the metrics and the errors; None: no report is written.
        on_event: called with every event: progress, warnings about the table, the metrics.

    Raises:
        UsageError, DataError, ModelError: an argument, the table or the bundle is invalid.
        InstallationError: a report is to be written, and matplotlib is missing.
    """
    check_report(report)
    opened = TaskBundle.open(model, "evaluate")
    keeps_texts = report is not None and report.texts
    found = compute_outputs(opened, table, options, table_format, EventStream(on_event), keeps_texts=keeps_texts)
    if report is not None:
        write_report(evaluation_report(found, report.texts), report)
    examples = found.examples
    return EvaluateResult(
        found.metrics, len(examples), examples.truncated, examples.left_out, dict(examples.dropped), examples.name
    )


def compute_outputs(
    opened: TaskBundle,
    table: str | Path | None,
    options: EvaluateOptions,
    table_format: TableFormat,
    events: EventStream,
    *,
    keeps_texts: bool = False,
) -> EvaluatedModel:
    """Read a labelled file for a model, and compute its outputs and metrics, as `evaluate` does."""
    file, formatted, dataset = opened.find_table(table, table_format, options.task, options.data_dir, options.split)
    task = opened.task if options.task is None else opened.task.judged_by(dataset)
    task = task.with_options(options.task_options)
    started, on_tokenised = now(), events.progress("tokenising", str(file))
    bad_rows = BadRows("skip" if dataset.skip_broken_rows else options.on_error, events.note)
    left_out = LeftOutRows()
    reading = opened.reading(formatted, left_out.added_by(bad_rows), events.note, on_tokenised)
    examples = task.read(file, dataclasses.replace(reading, keeps_texts=keeps_texts))
    tokenised = examples.tokenised(since(started), opened.signature.max_length)
    warn_of_absent_labels(table_format.drop_labels, [examples], events.note)
    events(tokenised)
    started, windows = now(), examples.features
    predictor = open_predictor(opened.bundle, options.device, options.batch_size)
    outputs = predictor.each(windows, task.keep, events.counter("evaluating", len(windows), examples.name))
    metrics = task.evaluate(outputs, examples)
    events(Evaluated(since(started), str(opened.bundle.prefix), examples.name, len(examples), metrics))
    bad_rows.finish(len(examples) + examples.left_out)
    settings = predictor_settings(options.device, options.batch_size)
    return EvaluatedModel(opened.bundle, task, examples, outputs, metrics, left_out, settings)
