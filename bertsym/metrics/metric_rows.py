"""The metrics of each kind of task as functions of resampled rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertsym.array import Array
from bertsym.metrics.classification import positive_classes
from bertsym.metrics.resampling import MetricRows, mean_of


def _ratio(part: Array, whole: Array) -> Array:
    """Divide; 0 where the denominator is 0."""
    result: Array = np.divide(part, whole, out=np.zeros_like(part, np.float64), where=whole != 0)
    return result


# Classification


def classification_rows(
    predicted: Array, classes: Array, labels: Sequence[str], names: Sequence[str], positive_label: str | None
) -> dict[str, MetricRows]:
    """Return the rows of ``accuracy``, ``f1`` and ``matthews``, as `evaluate_probabilities` computes them."""
    both = np.stack([predicted, classes], axis=1)
    positives = positive_classes(labels, positive_label)

    def macro_f1(values: Array, counts: Array) -> Array:
        guesses, right = values.T
        scores = []
        for positive in positives:
            guessed, true = guesses == positive, right == positive
            # By float64: numpy multiplies matrices of booleans without BLAS.
            sums = counts @ np.stack([2 * (guessed & true), guessed * 1.0 + true], axis=1)
            scores.append(_ratio(*sums.T))
        means: Array = np.mean(scores, axis=0)
        return means

    def matthews(values: Array, counts: Array) -> Array:
        guesses, right = values.T
        kinds = np.union1d(guesses, right)
        by_guess, by_class = (counts @ (each[:, None] == kinds).astype(np.float64) for each in (guesses, right))
        rows = counts.sum(axis=1)
        covariance = (counts @ (guesses == right).astype(np.float64)) * rows - (by_guess * by_class).sum(axis=1)
        variance = (rows**2 - np.square(by_guess).sum(axis=1)) * (rows**2 - np.square(by_class).sum(axis=1))
        return _ratio(covariance, np.sqrt(np.maximum(variance, 0)))

    found = {
        "accuracy": mean_of(predicted == classes, is_fraction=True),
        "f1": MetricRows(both, macro_f1),
        "matthews": MetricRows(both, matthews),
    }
    return {name: found[name] for name in names}


# Several labels


def label_rows(predicted: Array, has_label: Array, names: Sequence[str]) -> dict[str, MetricRows]:
    """Return the rows of ``micro_f1``, ``macro_f1`` and ``exact_match``: (N, C) bool, (N, C) bool."""
    hits, totals = predicted & has_label, predicted.astype(np.int8) + has_label

    def macro_f1(values: Array, counts: Array) -> Array:
        hits, totals = np.split(counts @ values.astype(np.float64), 2, axis=1)
        means: Array = _ratio(2 * hits, totals).mean(axis=1)
        return means

    micro = np.stack([2 * hits.sum(axis=1), totals.sum(axis=1, dtype=np.int64)], axis=1)
    found = {
        "micro_f1": MetricRows(micro, _ratio_of_sums),
        "macro_f1": MetricRows(np.concatenate([hits, totals], axis=1), macro_f1),
        "exact_match": mean_of((predicted == has_label).all(axis=1), is_fraction=True),
    }
    return {name: found[name] for name in names}


def _ratio_of_sums(values: Array, counts: Array) -> Array:
    part, whole = (counts @ values).T
    return _ratio(part, whole)


# Regression


def value_rows(values: Array, scores: Array, names: Sequence[str]) -> dict[str, MetricRows]:
    """Return the rows of ``pearson``, ``spearman`` and ``mse``: (N,), (N,)."""
    both = np.stack([values, scores], axis=1).astype(np.float64)
    # Centred once: sums of squares of large numbers would lose their digits.
    centred = both - both.mean(axis=0)
    squares = np.square(both[:, 0] - both[:, 1])
    found = {
        "pearson": MetricRows(centred, _pearson),
        "spearman": MetricRows(both, _spearman),
        "mse": mean_of(squares),
    }
    return {name: found[name] for name in names}


def _pearson(values: Array, counts: Array) -> Array:
    one, two = values.T
    rows = counts.sum(axis=1)
    first, second = counts @ one / rows, counts @ two / rows
    covariance = counts @ (one * two) / rows - first * second
    variance = (counts @ (one * one) / rows - first**2) * (counts @ (two * two) / rows - second**2)
    return np.clip(_ratio(covariance, np.sqrt(np.maximum(variance, 0))), -1, 1)


def _spearman(values: Array, counts: Array) -> Array:
    """Pearson's coefficient of the ranks in each resample, where equal numbers share their mean rank."""
    places = [np.unique(column, return_inverse=True)[1] for column in values.T]
    found = []
    for each in counts:
        ranks = []
        for place in places:
            sizes = np.bincount(place, each)
            ranks.append((np.cumsum(sizes) - (sizes - 1) / 2)[place])
        centred = np.stack(ranks, axis=1) - each.sum() / 2
        found.append(_pearson(centred, each[np.newaxis])[0])
    return np.array(found)


# Tagging and question answering


def entity_rows(counts: Array, tags: Array, names: Sequence[str]) -> dict[str, MetricRows]:
    """Return the rows of ``f1``, ``precision``, ``recall`` and ``accuracy`` of sentences.

    `counts` (N, 3) are the entities that are correct, that there are, and that are predicted; `tags` (N, 2) are the
    words with the correct tag, and all words.
    """
    hits, true, guessed = counts.T
    found = {
        "f1": np.stack([2 * hits, true + guessed], axis=1),
        "precision": np.stack([hits, guessed], axis=1),
        "recall": np.stack([hits, true], axis=1),
        "accuracy": tags,
    }
    return {name: MetricRows(found[name], _ratio_of_sums) for name in names}
