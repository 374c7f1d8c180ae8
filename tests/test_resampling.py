"""Calibration, confusion matrices and intervals of metrics: equal to scikit-learn's and scipy's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix as sklearn_confusion

from bertsym.array import Array
from bertsym.metrics.calibration import BINS, calibration
from bertsym.metrics.classification import confusion_matrix, evaluate_probabilities
from bertsym.metrics.metric_rows import classification_rows, entity_rows, label_rows, value_rows
from bertsym.metrics.multilabel import METRICS as LABEL_METRICS
from bertsym.metrics.multilabel import evaluate_labels
from bertsym.metrics.regression import METRICS as VALUE_METRICS
from bertsym.metrics.regression import evaluate_values
from bertsym.metrics.resampling import Interval, MetricRows, mean_of, paired_difference, wilson_interval
from bertsym.metrics.tagging import count_entities, evaluate_tags, tag_accuracy

RNG = np.random.default_rng(5)
ROWS, LABELS = 120, tuple("abc")
CLASSES = RNG.integers(0, 3, ROWS)
PROBABILITIES = RNG.dirichlet(np.ones(3), ROWS) + 0.4 * np.eye(3)[CLASSES]
PROBABILITIES /= PROBABILITIES.sum(axis=1, keepdims=True)
PREDICTED = PROBABILITIES.argmax(axis=1)
SCORES = RNG.normal(100, 1, ROWS)
VALUES = SCORES + RNG.normal(0, 1, ROWS)
TIED = np.round(VALUES)


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    assert (confusion_matrix(PREDICTED, CLASSES, 4) == sklearn_confusion(CLASSES, PREDICTED, labels=range(4))).all()


@pytest.mark.parametrize("bins", [BINS, 7])
def test_calibration_is_that_of_scikit_learn(bins: int) -> None:
    confidence = np.concatenate([PROBABILITIES.max(axis=1), [0.0, 1.0, 0.1]])
    correct = np.append(PREDICTED == CLASSES, [False, True, True])
    found = calibration(confidence, correct, bins)
    used = found.counts > 0
    accuracy, means = calibration_curve(correct, confidence, n_bins=bins)
    np.testing.assert_allclose(found.accuracy[used], accuracy, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[used], means, rtol=1e-12)
    share = found.counts[used] / len(correct)
    assert found.error == pytest.approx(float((share * np.abs(accuracy - means)).sum()), rel=1e-12)


def test_the_interval_of_a_fraction_is_wilsons() -> None:
    for hits, total in ((0, 9), (9, 9), (1, 2), (73, 100), (999_999, 1_000_000)):
        found, expected = (
            wilson_interval(hits, total),
            scipy.stats.binomtest(hits, total).proportion_ci(method="wilson"),
        )
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


# A metric of resampled rows is the metric of the rows that were drawn


TAGS = [["O", "B-A", "I-A", "B-B"], ["B-A", "O"], ["O", "O", "B-B"]] * 3
GUESSES = [["O", "B-A", "O", "B-B"], ["B-A", "B-B"], ["O", "O", "O"]] * 3
HAS_LABEL = RNG.random((ROWS, 3)) < 0.4
BY_LABEL = np.clip(HAS_LABEL * 0.3 + RNG.random((ROWS, 3)) * 0.7, 0, 1)

Metrics = Callable[[Array], dict[str, float]]
KINDS: dict[str, tuple[dict[str, MetricRows], Metrics]] = {
    "classification": (
        classification_rows(PREDICTED, CLASSES, LABELS, ("accuracy", "f1", "matthews"), None),
        lambda rows: evaluate_probabilities(PROBABILITIES[rows], CLASSES[rows], LABELS, ("accuracy", "f1", "matthews")),
    ),
    "multilabel": (
        label_rows(BY_LABEL >= 0.5, HAS_LABEL, LABEL_METRICS),
        lambda rows: evaluate_labels(BY_LABEL[rows], HAS_LABEL[rows], [0.5] * 3, LABEL_METRICS),
    ),
    "regression": (
        value_rows(VALUES, SCORES, VALUE_METRICS),
        lambda rows: evaluate_values(VALUES[rows], SCORES[rows], VALUE_METRICS),
    ),
    "regression with ties": (
        value_rows(TIED, SCORES, VALUE_METRICS),
        lambda rows: evaluate_values(TIED[rows], SCORES[rows], VALUE_METRICS),
    ),
    "tagging": (
        entity_rows(
            np.array([count_entities(*pair) for pair in zip(TAGS, GUESSES)]),
            np.array([[tag_accuracy([one], [two]) * len(one), len(one)] for one, two in zip(TAGS, GUESSES)]),
            ("f1", "precision", "recall", "accuracy"),
        ),
        lambda rows: evaluate_tags([TAGS[row] for row in rows], [GUESSES[row] for row in rows]),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resampled_metric_is_the_metric_of_the_rows_that_were_drawn(kind: str) -> None:
    metrics, evaluate = KINDS[kind]
    size = len(next(iter(metrics.values())).values)
    draws = [np.arange(size), *RNG.integers(0, size, (5, size)), np.zeros(size, np.int64)]
    counts = np.stack([np.bincount(drawn, minlength=size) for drawn in draws]).astype(np.float64)
    for name, rows in metrics.items():
        expected = [evaluate(drawn)[name] for drawn in draws]
        np.testing.assert_allclose(rows.compute(rows.values, counts), expected, rtol=1e-9, atol=1e-9, err_msg=name)


# The intervals: those of scipy's bootstrap but for the chance of 2,000 resamples


def tolerance(deviation: float) -> float:
    """Five standard errors of the difference of two 2.5 % quantiles of 2,000 and of 9,999 normal resamples."""
    error = np.sqrt(0.025 * 0.975) / scipy.stats.norm.pdf(1.96) * np.sqrt(1 / 2000 + 1 / 9999)
    return float(5 * error * deviation)


def mean(values: Array, axis: int = -1) -> Array:
    return np.asarray(values.mean(axis))


def pearson(one: Array, two: Array, axis: int = -1) -> Array:
    deviations = [each - each.mean(axis, keepdims=True) for each in (one, two)]
    return np.asarray(np.prod(deviations, axis=0).mean(axis) / (deviations[0].std(axis) * deviations[1].std(axis)))


def f1_of_second(one: Array, two: Array, axis: int = -1) -> Array:
    hits = ((one == 1) & (two == 1)).sum(axis)
    return np.asarray(2 * hits / ((one == 1).sum(axis) + (two == 1).sum(axis)))


LOSSES = -np.log(PROBABILITIES[np.arange(ROWS), CLASSES])
INTERVALS: dict[str, tuple[MetricRows, tuple[Array, ...], Callable[..., Array]]] = {
    "f1": (classification_rows(PREDICTED, CLASSES, LABELS, ["f1"], "b")["f1"], (PREDICTED, CLASSES), f1_of_second),
    "pearson": (value_rows(VALUES, SCORES, ["pearson"])["pearson"], (VALUES, SCORES), pearson),
    "loss": (mean_of(LOSSES), (LOSSES,), mean),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_intervals_are_those_of_scipys_percentile_bootstrap(name: str) -> None:
    rows, data, statistic = INTERVALS[name]
    expected = scipy.stats.bootstrap(data, statistic, paired=True, method="percentile", random_state=1)
    found, allowed = rows.interval(), tolerance(expected.standard_error)
    assert found.value == pytest.approx(float(statistic(*data)))
    assert abs(found.low - expected.confidence_interval.low) < allowed
    assert abs(found.high - expected.confidence_interval.high) < allowed


def test_paired_differences_are_those_of_scipy() -> None:
    better = np.where(RNG.random(ROWS) < 0.4, CLASSES, PREDICTED)
    hits = (PREDICTED == CLASSES).astype(np.float64), (better == CLASSES).astype(np.float64)
    found = paired_difference(mean_of(hits[0], is_fraction=True), mean_of(hits[1], is_fraction=True))
    expected = scipy.stats.bootstrap(
        hits,
        lambda one, two, axis=-1: two.mean(axis) - one.mean(axis),
        paired=True,
        method="percentile",
        random_state=1,
    )
    allowed = tolerance(expected.standard_error) + 1 / ROWS  # accuracies are multiples of it
    assert abs(found.low - expected.confidence_interval.low) < allowed
    assert abs(found.high - expected.confidence_interval.high) < allowed
    assert found.value == pytest.approx(float(hits[1].mean() - hits[0].mean()))
    assert not found.contains_zero


def test_a_metric_has_as_many_decimals_as_its_interval_justifies() -> None:
    counts = (7, 10), (76, 100), (1_380, 1_725), (799_000, 1_000_000)
    found = [wilson_interval(*each) for each in counts]
    assert [each.format(each.value) for each in found] == ["0.70", "0.76", "0.800", "0.7990"]
    assert Interval(0.25, 0.25, 0.25, "").format(0.25, "+") == "+0.2500"


def test_equal_models_differ_by_nothing() -> None:
    rows = KINDS["regression"][0]["mse"]
    found = paired_difference(rows, rows)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_many_rows_have_an_interval_of_the_same_width_by_either_way_of_drawing() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(100_000) < 0.9
    by_counts = MetricRows(mean_of(hits).values, mean_of(hits).compute).interval()
    exact = wilson_interval(int(hits.sum()), len(hits))
    assert by_counts.high - by_counts.low == pytest.approx(exact.high - exact.low, rel=0.1)
