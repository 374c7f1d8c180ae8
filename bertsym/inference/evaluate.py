"""Evaluation of a classifier on a labelled table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.errors import DataError
from bertsym.inference.classifier import find_task, open_classifier
from bertsym.inference.metrics import evaluate_probabilities
from bertsym.inference.predictor import BATCH_SIZE
from bertsym.inference.rows import read_encoded
from bertsym.inference.session_predictor import open_predictor
from bertsym.text.tables import TableFormat


@dataclass(frozen=True)
class EvaluateResult:
    """Exact metrics over all rows that were read, and the numbers of truncated and missing rows."""

    metrics: dict[str, float]
    rows: int
    truncated: int
    left_out: int  #: number of unreadable rows
    dropped_labels: dict[str, int]  #: label whose rows were dropped -> number of rows


def evaluate(
    prefix: str | Path,
    path: str | Path,
    *,
    table_format: TableFormat = TableFormat(),
    task: str | None = None,
    device: str = "cpu",
    batch_size: int = BATCH_SIZE,
    on_bad_row: Callable[[DataError], object] | None = None,
    on_rows: Callable[[int], object] = lambda count: None,
    warn: Callable[[str], object] = lambda text: None,
) -> EvaluateResult:
    """Compute the metrics of a classifier on a table.

    Rows with a label that the training or `table_format` drops are not counted.

    Args:
        prefix: The classifier's bundle.
        path: The table; its labels must be among the classifier's.
        table_format: Format and columns; by default those of the training table.
        task: A key of ``text.tasks.TASKS``, for its metrics and columns; by default the task of the training.
        device: ``cpu``, ``gpu:0`` or ``gpu:0,1``.
        batch_size: Largest number of rows per batch.
        on_bad_row: Called with the error of an unreadable row or an unknown label; by default the error is raised.
        on_rows: Called with the number of rows in each finished batch.
        warn: Called with a message about a suspicious table.

    Raises:
        UsageError, DataError, ModelError: An argument, the table or the bundle is invalid.
    """
    bundle = open_classifier(prefix, "evaluate")
    signature = bundle.signature
    judged = find_task(signature, task)
    if task:
        table_format = dataclasses.replace(table_format, columns=table_format.columns.or_else(judged.columns))
    rows = read_encoded(bundle, path, table_format, True, on_bad_row, warn)
    probabilities = open_predictor(bundle, device, batch_size)(rows.features, on_rows)
    metrics = evaluate_probabilities(
        probabilities, rows.classes, signature.class_names, judged.metrics, judged.positive_label
    )
    return EvaluateResult(metrics, len(rows), rows.features.truncated, rows.left_out, dict(rows.dropped))
