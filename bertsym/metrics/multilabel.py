"""Metrics of any number of labels for each row, over all rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertsym.array import Array

METRICS = ("micro_f1", "macro_f1", "exact_match")  #: names of metrics of a multi-label classification
THRESHOLD = 0.5  #: least probability of a predicted label, unless another one is chosen
_MIN_PROBABILITY = 1e-12  # keeps the cross entropy finite


def binary_cross_entropy(probabilities: Array, has_label: Array) -> float:
    """Return the mean negative log probability of what is right, in nats: (N, C) float, (N, C) bool -> float."""
    exact = probabilities.astype(np.float64)
    right = np.where(has_label, exact, 1 - exact)
    return float(-np.log(np.maximum(right, _MIN_PROBABILITY)).mean())


def evaluate_labels(
    probabilities: Array, has_label: Array, thresholds: Sequence[float], names: Sequence[str]
) -> dict[str, float]:
    """Return the named metrics (``micro_f1``, ``macro_f1``, ``exact_match``) and the ``loss``, in this order.

    Args:
        probabilities: The probability of each label for each row, (N, C).
        has_label: Whether a row has a label, (N, C) bool.
        thresholds: Least probability of each label at which it is predicted, C numbers.
        names: The metrics to compute. Micro F1 is that of all labels of all rows together, macro F1 the mean over the
            labels, where a label that no row has and none is predicted to have counts as 0, as in scikit-learn. Exact
            match is the fraction of the rows whose labels are all predicted right.
    """
    predicted = probabilities >= np.array(thresholds, np.float64)
    hits, totals = (predicted & has_label).sum(axis=0), predicted.sum(axis=0) + has_label.sum(axis=0)
    metrics = {}
    for name in names:
        if name == "micro_f1":
            metrics[name] = float(2 * hits.sum() / max(1, totals.sum()))
        elif name == "macro_f1":
            metrics[name] = float((2 * hits / np.maximum(1, totals)).mean())
        elif name == "exact_match":
            metrics[name] = float((predicted == has_label).all(axis=1).mean())
    return {**metrics, "loss": binary_cross_entropy(probabilities, has_label)}


def best_threshold(probabilities: Array, has_label: Array) -> float:
    """Return the threshold with the best F1 of one label, (N,) float, (N,) bool; THRESHOLD if no row has the label.

    Thresholds lie half way between two neighbouring probabilities, so that rounding changes no answer. Ties go to the
    threshold that is nearest to THRESHOLD.
    """
    if not has_label.any():
        return THRESHOLD
    exact = np.unique(probabilities.astype(np.float64))
    candidates = np.concatenate([[THRESHOLD], (np.append(0.0, exact[:-1]) + exact) / 2])
    # Rows at or above each candidate, and those of them with the label.
    above = len(probabilities) - np.searchsorted(np.sort(probabilities.astype(np.float64)), candidates)
    hits = has_label.sum() - np.searchsorted(np.sort(probabilities[has_label].astype(np.float64)), candidates)
    f1 = 2 * hits / (above + has_label.sum())
    best = candidates[f1 == f1.max()]
    return float(best[np.abs(best - THRESHOLD).argmin()])
