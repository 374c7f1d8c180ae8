"""Metrics over whole data sets, from counts; padded rows never reach them.

mxnet's own ones are not used: F1 averages over batches by default, and Module.score counts padded rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_LEAST_PROBABILITY = 1e-12  # keeps the cross entropy finite


def cross_entropy(probabilities: Array, classes: Array) -> float:
    """Mean negative log probability of the right class, in nats: (N, C), (N,) -> float."""
    right = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    return float(-np.log(np.maximum(right, _LEAST_PROBABILITY)).mean())


def accuracy(predicted: Array, classes: Array) -> float:
    """Part of the rows whose predicted class is the right one."""
    return float((predicted == classes).mean())


def f1(predicted: Array, classes: Array, positive: int) -> float:
    """F1 of one class: the harmonic mean of precision and recall, 0 when the class never occurs."""
    hits = int(((predicted == positive) & (classes == positive)).sum())
    total = int((predicted == positive).sum() + (classes == positive).sum())
    return 2 * hits / total if total else 0.0


def evaluate_probabilities(
    probabilities: Array,
    classes: Array,
    labels: Sequence[str],
    names: Sequence[str],
    positive_label: str | None = None,
) -> dict[str, float]:
    """The named metrics (``accuracy``, ``f1``) and the ``loss``, in this order.

    F1 is that of `positive_label`, by default of the last of two labels; with more labels it is the mean
    over the classes (macro F1).
    """
    predicted = probabilities.argmax(axis=1)
    values = {}
    for name in names:
        if name == "accuracy":
            values[name] = accuracy(predicted, classes)
        elif name == "f1":
            if positive_label in labels:
                positives = [labels.index(positive_label)]
            else:
                positives = [1] if len(labels) == 2 else list(range(len(labels)))
            values[name] = float(np.mean([f1(predicted, classes, positive) for positive in positives]))
    values["loss"] = cross_entropy(probabilities, classes)
    return values


def format_metrics(metrics: Mapping[str, float]) -> str:
    """One line: ``accuracy 0.7966  f1 0.8634  loss 0.4512``."""
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
