"""Evaluation of a classifier on a labelled table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.inference.classifier import find_task, open_classifier
from bertsym.inference.engine_predictor import open_predictor
from bertsym.inference.mxnet_predictor import BATCH_SIZE
from bertsym.inference.rows import read_encoded
from bertsym.metrics.classification import evaluate_probabilities
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
    """How a classifier is evaluated."""

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
    """Compute the metrics of the classifier `model` on a table whose labels are among the classifier's.

    Rows with a dropped label do not count.

    Args:
        model: prefix of the classifier's bundle.
        table: the table; its labels must be among the classifier's.
        options: task, device, batch size, and what happens at an unreadable row.
        table_format: format and columns; by default those of the training table.
        on_rows: called with the number of rows in each finished batch.
        warn: called with each warning about the table, and with each row that is left out.

    Raises:
        UsageError, DataError, ModelError: an argument, the table or the bundle is invalid.
    """
    bundle = open_classifier(model, "evaluate")
    judged = find_task(bundle, options.task)
    if options.task:
        table_format = dataclasses.replace(table_format, columns=table_format.columns.or_else(judged.columns))
    bad_rows = BadRows(options.on_error, warn)
    rows = read_encoded(bundle, table, table_format, True, bad_rows, warn)
    probabilities = open_predictor(bundle, options.device, options.batch_size)(rows.features, on_rows)
    metrics = evaluate_probabilities(
        probabilities, rows.classes, bundle.signature.class_names, judged.metrics, judged.positive_label
    )
    bad_rows.finish(len(rows) + rows.left_out)
    return EvaluateResult(metrics, len(rows), rows.features.truncated, rows.left_out, dict(rows.dropped))
