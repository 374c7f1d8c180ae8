"""Evaluate a classifier on a labelled table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.errors import DataError
from bertsym.inference.classifier import open_classifier, task_of
from bertsym.inference.metrics import evaluate_probabilities
from bertsym.inference.predictor import BATCH_SIZE, Predictor
from bertsym.inference.rows import read_encoded
from bertsym.text.tables import TableFormat


@dataclass(frozen=True)
class EvaluateResult:
    """Exact metrics over all rows that were read, and the numbers of rows that were truncated or are missing."""

    metrics: dict[str, float]
    rows: int
    truncated: int
    left_out: int  #: rows that can't be read
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
    """Metrics of the classifier at `prefix` on a table whose labels are among the classifier's.

    `task` None: the task that the classifier was trained for, with the columns of its training table. A row that can't
    be read, or whose label is unknown, is an error, or is left out where `on_bad_row` takes the error. Rows with a
    label that the training dropped, or that `table_format` drops, do not count. `on_rows` is called with numbers of
    rows that are done, `warn` with what is suspicious about the table.

    Raises UsageError, DataError or ModelError.
    """
    bundle = open_classifier(prefix)
    signature = bundle.signature
    judged = task_of(signature, task)
    if task:
        table_format = dataclasses.replace(table_format, columns=table_format.columns.or_else(judged.columns))
    rows = read_encoded(bundle, path, table_format, True, on_bad_row, warn)
    probabilities = Predictor.from_bundle(bundle, device, batch_size)(rows.features, on_rows)
    metrics = evaluate_probabilities(
        probabilities, rows.classes, signature.class_names, judged.metrics, judged.positive_label
    )
    return EvaluateResult(metrics, len(rows), rows.features.truncated, rows.left_out, dict(rows.dropped))
