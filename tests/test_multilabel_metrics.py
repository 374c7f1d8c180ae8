"""Metrics of several labels for each row, as scikit-learn has them, and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as scores

from bertsym.array import Array
from bertsym.metrics.multilabel import best_threshold, binary_cross_entropy, evaluate_labels

NAMES = ("micro_f1", "macro_f1", "exact_match")


@pytest.mark.parametrize("labels", [1, 2, 9])
def test_metrics_equal_those_of_scikit_learn(labels: int) -> None:
    rng = np.random.default_rng(labels)
    for rows, share in ((1, 0.5), (7, 0.1), (300, 0.2), (40, 0.0)):
        has_label = rng.random((rows, labels)) < share
        probabilities = np.clip(has_label * 0.4 + rng.random((rows, labels)) * 0.7, 0.01, 0.99).astype(np.float32)
        thresholds = rng.uniform(0.2, 0.8, labels)
        predicted = probabilities >= thresholds
        found = evaluate_labels(probabilities, has_label, list(thresholds), NAMES)
        assert list(found) == [*NAMES, "loss"]
        one_column = {} if labels > 1 else {"labels": [1]}  # scikit-learn takes one column for two classes
        expected = {
            f"{average}_f1": scores.f1_score(has_label, predicted, average=average, zero_division=0, **one_column)
            for average in ("micro", "macro")
        }
        exact = probabilities.astype(np.float64)
        terms = [scores.log_loss(has_label[:, i].astype(int), exact[:, i], labels=[0, 1]) for i in range(labels)]
        expected |= {"exact_match": scores.accuracy_score(has_label, predicted), "loss": np.mean(terms)}
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_metrics_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.2], [0.1, 0.2, 0.3]], np.float32)
    has_label = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    found = evaluate_labels(probabilities, has_label, [0.5] * 3, NAMES)
    # Hits 2; predicted 3, right 3. The second label has no hit, and the third counts as 0.
    assert found["micro_f1"] == pytest.approx(4 / 6)
    assert found["macro_f1"] == pytest.approx(1 / 3)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert binary_cross_entropy(np.array([[0.0, 1.0]]), np.array([[False, True]])) == 0
    assert np.isfinite(binary_cross_entropy(np.array([[1.0]]), np.array([[False]])))


def f1(probabilities: Array, has_label: Array, threshold: float) -> float:
    return float(scores.f1_score(has_label, probabilities.astype(np.float64) >= threshold, zero_division=0))


@pytest.mark.parametrize("rows", [1, 2, 5, 60])
def test_the_threshold_has_the_best_f1_of_all(rows: int) -> None:
    rng = np.random.default_rng(rows)
    for _ in range(40 if rows < 60 else 8):
        has_label = rng.random(rows) < 0.3
        probabilities = np.round(np.clip(rng.normal(0.3 + 0.2 * has_label, 0.2), 0, 1), 2).astype(np.float32)
        threshold = best_threshold(probabilities, has_label)
        best = max(f1(probabilities, has_label, float(each)) for each in (0.0, 0.5, *probabilities))
        if has_label.any():
            assert f1(probabilities, has_label, threshold) == pytest.approx(best, abs=1e-12)
        else:
            assert threshold == 0.5


@pytest.mark.parametrize(
    ("probabilities", "has_label", "threshold"),
    [
        ([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1], 0.5),  # nothing is better than the default
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
        ([0.9, 0.6, 0.7, 0.8], [1, 0, 0, 1], 0.75),
        ([0.3, 0.3], [1, 0], 0.15),  # below all
        ([0.3, 0.2], [0, 0], 0.5),
    ],
)
def test_thresholds_lie_between_probabilities(
    probabilities: list[float], has_label: list[int], threshold: float
) -> None:
    found = best_threshold(np.array(probabilities, np.float32), np.array(has_label, bool))
    assert found == pytest.approx(threshold, abs=1e-7)


def test_the_loss_is_that_of_torch_in_float64() -> None:
    """The mean over rows and labels of BCEWithLogitsLoss, from the logits."""
    rng = np.random.default_rng(0)
    logits, has_label = rng.normal(0, 3, (20, 4)), rng.random((20, 4)) < 0.3
    expected = np.mean(np.maximum(logits, 0) - logits * has_label + np.log1p(np.exp(-np.abs(logits))))
    assert binary_cross_entropy(1 / (1 + np.exp(-logits)), has_label) == pytest.approx(expected, rel=1e-9)
