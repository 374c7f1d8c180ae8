"""Exact metrics over a data set.

MXNet's metrics are not used: by default its F1 averages over batches, and Module.score counts padded rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bertsym.array import Array

METRICS = ("accuracy", "f1", "matthews")  #: names of metrics of a classification
LOWER_IS_BETTER = ("loss", "mse")  #: metrics of which the lower value is the better one
_MIN_PROBABILITY = 1e-12  # keeps the cross entropy finite


def cross_entropy(probabilities: Array, classes: Array) -> float:
    """Return the mean negative log probability of the correct class, in nats: (N, C), (N,) -> float."""
    right = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    return float(-np.log(np.maximum(right, _MIN_PROBABILITY)).mean())


def accuracy(predicted: Array, classes: Array) -> float:
    """Return the fraction of rows whose predicted class is correct."""
    return float((predicted == classes).mean())


def f1(predicted: Array, classes: Array, positive: int) -> float:
    """Return the F1 of one class: the harmonic mean of precision and recall; 0 if the class does not occur."""
    hits = int(((predicted == positive) & (classes == positive)).sum())
    total = int((predicted == positive).sum() + (classes == positive).sum())
    return 2 * hits / total if total else 0.0


def confusion_matrix(predicted: Array, classes: Array, count: int) -> Array:
    """Count the rows of each class, in the rows of the matrix, with each predicted class: (count, count) int64."""
    return np.bincount(classes * count + predicted, minlength=count * count).reshape(count, count)


def matthews(predicted: Array, classes: Array) -> float:
    """Return Matthews' correlation coefficient, for two or more classes (Gorodkin's R_K); 0 if it is not defined.

    It is not defined where all rows have one class, or all predictions are one class.
    """
    kinds = np.union1d(predicted, classes)
    by_prediction = (predicted[:, None] == kinds).sum(axis=0, dtype=np.float64)
    by_class = (classes[:, None] == kinds).sum(axis=0, dtype=np.float64)
    rows = float(len(classes))
    covariance = float((predicted == classes).sum()) * rows - by_prediction @ by_class
    variance = (rows**2 - by_prediction @ by_prediction) * (rows**2 - by_class @ by_class)
    return float(covariance / np.sqrt(variance)) if variance else 0.0


def evaluate_probabilities(
    probabilities: Array,
    classes: Array,
    labels: Sequence[str],
    names: Sequence[str],
    positive_label: str | None = None,
) -> dict[str, float]:
    """Return the named metrics (``accuracy``, ``f1``, ``matthews``) and the ``loss``, in this order.

    F1 is computed for `positive_label`, by default the last of two labels; with more labels it is the mean over the
    classes (macro F1).
    """
    predicted = probabilities.argmax(axis=1)
    values = {}
    for name in names:
        if name == "accuracy":
            values[name] = accuracy(predicted, classes)
        elif name == "f1":
            positives = positive_classes(labels, positive_label)
            values[name] = float(np.mean([f1(predicted, classes, positive) for positive in positives]))
        elif name == "matthews":
            values[name] = matthews(predicted, classes)
    values["loss"] = cross_entropy(probabilities, classes)
    return values


def positive_classes(labels: Sequence[str], positive_label: str | None) -> list[int]:
    """Return the classes whose F1 scores are averaged, as indices."""
    if positive_label in labels:
        return [labels.index(positive_label)]
    return [1] if len(labels) == 2 else list(range(len(labels)))


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Format metrics as one line: ``accuracy 0.7966  f1 0.8634  loss 0.4512``."""
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
