"""Metrics of values against scores, over all rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertsym.array import Array

METRICS = ("pearson", "spearman", "mse")  #: names of metrics of a regression


def pearson(values: Array, scores: Array) -> float:
    """Return Pearson's correlation coefficient, (N,), (N,) -> float; 0 if all values, or all scores, are equal.

    The coefficient is not defined then. scipy returns NaN, which JSON can't express, and which no epoch compares with.
    """
    deviations = []
    for numbers in (values, scores):
        exact = numbers.astype(np.float64)
        if (exact == exact[0]).all():
            return 0.0
        deviation = exact - exact.mean()
        # The largest first: squares of tiny numbers would be 0.
        deviation /= np.abs(deviation).max()
        deviations.append(deviation / np.linalg.norm(deviation))
    return float(np.clip(deviations[0] @ deviations[1], -1, 1))


def spearman(values: Array, scores: Array) -> float:
    """Return Spearman's rank correlation: `pearson` of the ranks, where equal numbers share their mean rank."""
    return pearson(_ranks(values), _ranks(scores))


def mean_squared_error(values: Array, scores: Array) -> float:
    """Return the mean of the squared differences."""
    return float(np.square(values.astype(np.float64) - scores.astype(np.float64)).mean())


def evaluate_values(values: Array, scores: Array, names: Sequence[str]) -> dict[str, float]:
    """Return the named metrics (``pearson``, ``spearman``, ``mse``) and the ``loss``, in this order.

    The loss is half of the mean squared error, which MXNet's LinearRegressionOutput minimises.
    """
    functions = {"pearson": pearson, "spearman": spearman, "mse": mean_squared_error}
    metrics = {name: functions[name](values, scores) for name in names}
    return {**metrics, "loss": mean_squared_error(values, scores) / 2}


def _ranks(numbers: Array) -> Array:
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last: Array = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[places]
    return ranks
