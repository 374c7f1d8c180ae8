"""Evaluate a classifier on a labelled table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.errors import UsageError
from bertsym.inference.classifier import as_trained, check_pair, open_classifier
from bertsym.inference.metrics import evaluate_probabilities
from bertsym.inference.predictor import BATCH_SIZE, Predictor
from bertsym.text.features import classes_of, encode_rows
from bertsym.text.tables import Table, TableFormat, read_rows
from bertsym.text.tasks import TASKS
from bertsym.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    """Exact metrics over all rows, and how many rows were truncated."""

    metrics: dict[str, float]
    rows: int
    truncated: int


def evaluate(
    prefix: str | Path,
    path: str | Path,
    *,
    table_format: TableFormat = TableFormat(),
    task: str | None = None,
    device: str = "cpu",
    batch_size: int = BATCH_SIZE,
    on_rows: Callable[[int], object] = lambda count: None,
) -> Evaluation:
    """Metrics of the classifier at `prefix` on a table whose labels are among the classifier's.

    `task` None: the one that the classifier was trained for, with the columns of its training table. `on_rows`
    hears how many rows are done.

    Raises UsageError, DataError or ModelError.
    """
    bundle = open_classifier(prefix)
    signature = bundle.signature
    name = task or signature.task or "classification"
    if name not in TASKS:
        raise UsageError(f"task {name!r} is not one of {', '.join(TASKS)}")
    if task:
        table_format = dataclasses.replace(table_format, columns=table_format.columns.or_else(TASKS[task].columns))
    table = Table(path, as_trained(signature, table_format))
    rows = read_rows(table)
    check_pair(signature, rows[0].pair is not None)
    tokenizer = Tokenizer(bundle.vocabulary(), signature.tokenizer, signature.max_length)
    features, classes = encode_rows(rows, tokenizer, str(path)), classes_of(rows, signature.labels, str(path))
    probabilities = Predictor.from_bundle(bundle, device, batch_size)(features, on_rows)
    metrics = evaluate_probabilities(
        probabilities, classes, signature.labels, TASKS[name].metrics, TASKS[name].positive_label
    )
    return Evaluation(metrics, len(rows), features.truncated)
