"""Evaluation of a model on a labelled file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.datasets.registry import DATASETS
from bertsym.inference.engine_predictor import open_predictor
from bertsym.inference.mxnet_predictor import BATCH_SIZE
from bertsym.inference.task_bundle import TaskBundle
from bertsym.tasks.table_task import warn_of_absent_labels
from bertsym.text.bad_rows import BadRows
from bertsym.text.tables import TableFormat


@dataclass(frozen=True)
class EvaluateResult:
    """Exact metrics over all rows that were read, and the numbers of truncated and missing rows."""

    metrics: dict[str, float]
    rows: int
    truncated: int
    left_out: int  #: number of unreadable rows
    dropped_labels: dict[str, int]  #: label whose rows were dropped -> number of rows


@dataclass(frozen=True)
class EvaluateOptions:
    """How a model is evaluated."""

    task: str | None = None  #: a key of ``datasets.registry.DATASETS``; None: the task of the training
    device: str = "cpu"
    batch_size: int = BATCH_SIZE  #: most rows that are computed together
    #: at a row that can't be read or has an unknown label: ``fail``, or ``skip`` to leave it out
    on_error: str = "fail"


def evaluate(
    model: str | Path,
    table: str | Path,
    options: EvaluateOptions = EvaluateOptions(),
    *,
    table_format: TableFormat = TableFormat(),
    on_rows: Callable[[int], object] = lambda count: None,
    warn: Callable[[str], object] = lambda text: None,
) -> EvaluateResult:
    """Compute the metrics of the trained bundle `model` on a labelled file; labels must be among the model's classes.

    Rows with a dropped label do not count.

    Args:
        model: prefix of the bundle.
        table: the labelled file.
        options: task, device, batch size, and what happens at an unreadable row.
        table_format: format and columns; by default those of the training table.
        on_rows: called with the number of rows in each finished batch.
        warn: called with each warning about the table, and with each row that is left out.

    Raises:
        UsageError, DataError, ModelError: an argument, the table or the bundle is invalid.
    """
    opened = TaskBundle.open(model, "evaluate")
    task = opened.judged_by(options.task)
    if options.task:
        columns = DATASETS[options.task].columns
        table_format = dataclasses.replace(table_format, columns=table_format.columns.or_else(columns))
    bad_rows = BadRows(options.on_error, warn)
    examples = task.read(table, opened.reading(table_format, bad_rows, warn))
    warn_of_absent_labels(table_format.drop_labels, [examples], warn)
    predictor = open_predictor(opened.bundle, options.device, options.batch_size)
    metrics = task.evaluate(predictor.each(examples.features, task.keep, on_rows), examples)
    bad_rows.finish(len(examples) + examples.left_out)
    return EvaluateResult(metrics, len(examples), examples.truncated, examples.left_out, dict(examples.dropped))
