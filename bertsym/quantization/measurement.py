"""Measure accuracy and speed of classifiers on a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.bundle import PARAMS, Bundle
from bertsym.inference.classifier import find_task
from bertsym.metrics.classification import evaluate_probabilities
from bertsym.symbol.params import Array
from bertsym.text.features import Features
from bertsym.text.reading import Rows

_ROUNDS = 3
_TIMED_ROWS = 512

Forward = Callable[[Features], Array]


@dataclass(frozen=True)
class Measured:
    """Measurements of a model on the rows of a table."""

    metrics: dict[str, float]
    agreement: float  #: fraction of the rows whose predicted label equals that of the float32 model
    rows_per_second: float
    params_bytes: int


def metrics_of(bundle: Bundle, probabilities: Array, rows: Rows) -> dict[str, float]:
    """Compute the metrics of the classifier's task, the decisive one first."""
    task = find_task(bundle)
    return evaluate_probabilities(
        probabilities, rows.classes, bundle.signature.class_names, task.metrics, task.positive_label
    )


def measure(models: Sequence[tuple[Bundle, Forward]], rows: Rows) -> list[Measured]:
    """Measure models on all rows; speed is the median of three rounds, in turn, on up to 512 rows.

    The first model is the reference for the agreement.
    """
    probabilities = [forward(rows.features) for _, forward in models]
    sample = rows.sample(_TIMED_ROWS)
    for _, forward in models:
        forward(sample)  # binds its executors
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(_ROUNDS):
        for (_, forward), each in zip(models, seconds):
            begin = time.perf_counter()
            forward(sample)
            each.append(time.perf_counter() - begin)
    labels = probabilities[0].argmax(axis=1)
    return [
        Measured(
            metrics_of(bundle, answer, rows),
            float((answer.argmax(axis=1) == labels).mean()),
            len(sample) / float(np.median(each)),
            bundle.manifest["files"][PARAMS]["size"],
        )
        for (bundle, _), answer, each in zip(models, probabilities, seconds)
    ]
