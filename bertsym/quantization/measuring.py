"""What a classifier answers on a table, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.bundle import PARAMS, Bundle
from bertsym.inference.classifier import find_task
from bertsym.inference.metrics import evaluate_probabilities
from bertsym.symbol.params import Array
from bertsym.text.features import Features
from bertsym.text.reading import Rows

_ROUNDS = 3
_TIMED_ROWS = 512

Forward = Callable[[Features], Array]


@dataclass(frozen=True)
class Measured:
    """A model on the rows of a table."""

    metrics: dict[str, float]
    agreement: float  #: part of the rows that get the label which the float32 model gives
    rows_per_second: float
    params_bytes: int


def metrics_of(bundle: Bundle, probabilities: Array, rows: Rows) -> dict[str, float]:
    """The metrics of the classifier's task, the deciding metric first."""
    task = find_task(bundle.signature)
    return evaluate_probabilities(
        probabilities, rows.classes, bundle.signature.class_names, task.metrics, task.positive_label
    )


def measure(models: Sequence[tuple[Bundle, Forward]], rows: Rows) -> list[Measured]:
    """Answers of all models, and their speed: in turn, the median of three rounds on up to 512 rows.

    The others should agree with the first model.
    """
    probabilities = [forward(rows.features) for _, forward in models]
    sample = rows.sample(_TIMED_ROWS)
    for _, forward in models:
        forward(sample)  # binds what it needs
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
