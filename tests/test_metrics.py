"""Metrics against values computed by hand; padded rows are never counted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables
from sklearn import metrics as scores

from bertsym import Classifier, EvaluateOptions, evaluate
from bertsym.array import Array
from bertsym.datasets.registry import find_dataset
from bertsym.metrics.classification import (
    accuracy,
    cross_entropy,
    evaluate_probabilities,
    f1,
    format_metrics,
    matthews,
)
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Table

# Of class 1: 2 hits, 1 false alarm, 2 misses. For class 0: 1 hit, 2 false alarms, 1 miss.
PREDICTED, CLASSES = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 1, 0])
F1_OF_1, F1_OF_0 = 2 * 2 / (3 + 4), 2 * 1 / (3 + 2)


def sure(predicted: Array, classes: int) -> Array:
    """Probabilities that predict these classes."""
    return np.where(np.arange(classes) == predicted[:, None], 0.7, 0.3 / (classes - 1)).astype(np.float32)


# By hand


def test_accuracy_is_the_fraction_of_right_rows() -> None:
    assert accuracy(PREDICTED, CLASSES) == pytest.approx(3 / 6)
    assert accuracy(CLASSES, CLASSES) == 1


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    precision, recall = 2 / 3, 2 / 4
    assert f1(PREDICTED, CLASSES, 1) == pytest.approx(2 * precision * recall / (precision + recall))
    assert f1(PREDICTED, CLASSES, 1) == pytest.approx(F1_OF_1)
    assert f1(PREDICTED, CLASSES, 0) == pytest.approx(F1_OF_0)


def test_f1_of_a_class_without_a_hit_is_zero() -> None:
    assert f1(np.array([0, 0]), np.array([1, 1]), 1) == 0
    assert f1(np.array([1, 1]), np.array([0, 0]), 1) == 0
    assert f1(np.array([0, 0]), np.array([0, 0]), 1) == 0


def test_cross_entropy_is_the_mean_negative_logarithm_of_the_right_probability() -> None:
    probabilities = np.array([[0.5, 0.5], [0.1, 0.9], [0.8, 0.2]], np.float32)
    expected = -(math.log(0.5) + math.log(0.9) + math.log(0.2)) / 3
    assert cross_entropy(probabilities, np.array([0, 1, 1])) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_stays_finite_when_the_right_class_has_probability_zero() -> None:
    assert cross_entropy(np.array([[1.0, 0.0]], np.float32), np.array([1])) == pytest.approx(-math.log(1e-12))


def test_a_probability_that_is_not_a_number_shows_in_the_loss() -> None:
    assert math.isnan(cross_entropy(np.array([[np.nan, np.nan]], np.float32), np.array([1])))


# Which class F1 is about


def evaluated(labels: tuple[str, ...], positive_label: str | None = None) -> dict[str, float]:
    probabilities = sure(PREDICTED, 2)
    return evaluate_probabilities(probabilities, CLASSES, labels, ("accuracy", "f1"), positive_label)


def test_metrics_come_in_the_order_of_their_names_with_the_loss_last() -> None:
    metrics = evaluated(("no", "yes"))
    assert list(metrics) == ["accuracy", "f1", "loss"]
    assert metrics["loss"] == pytest.approx(-(3 * math.log(0.7) + 3 * math.log(0.3)) / 6, rel=1e-6)
    assert list(evaluate_probabilities(sure(PREDICTED, 2), CLASSES, ("a", "b"), ("f1",))) == ["f1", "loss"]


def test_f1_of_two_labels_is_that_of_the_last_one() -> None:
    assert evaluated(("no", "yes"))["f1"] == pytest.approx(F1_OF_1)


def test_f1_is_of_the_positive_label_in_any_order() -> None:
    assert evaluated(("1", "2"), positive_label="1")["f1"] == pytest.approx(F1_OF_0)
    assert evaluated(("0", "1"), positive_label="1")["f1"] == pytest.approx(F1_OF_1)


def test_a_positive_label_that_the_table_does_not_have_changes_nothing() -> None:
    assert evaluated(("no", "yes"), positive_label="1") == evaluated(("no", "yes"))


def test_f1_of_three_labels_is_the_mean_over_the_classes() -> None:
    classes = np.array([0, 0, 1, 1, 2, 2, 2])
    predicted = np.array([0, 1, 1, 1, 0, 2, 0])
    by_class = [2 * 1 / (3 + 2), 2 * 2 / (3 + 2), 2 * 1 / (1 + 3)]
    metrics = evaluate_probabilities(sure(predicted, 3), classes, ("a", "b", "c"), ("accuracy", "f1"))
    assert metrics["f1"] == pytest.approx(sum(by_class) / 3)
    assert metrics["accuracy"] == pytest.approx(4 / 7)


def test_a_class_that_never_occurs_counts_as_zero_in_the_mean() -> None:
    classes = np.array([0, 1])
    metrics = evaluate_probabilities(sure(classes, 3), classes, ("a", "b", "c"), ("f1",))
    assert metrics["f1"] == pytest.approx(2 / 3)


def test_mrpc_s_f1_is_about_paraphrases() -> None:
    assert find_dataset("mrpc").positive_label == "1"
    assert find_dataset("mrpc").metrics == ("accuracy", "f1")


def test_metrics_are_printed_on_one_line() -> None:
    assert format_metrics({"accuracy": 0.79656, "f1": 0.5, "loss": 12.0}) == "accuracy 0.7966  f1 0.5000  loss 12.0000"


# Against scikit-learn


@pytest.mark.parametrize("kinds", [2, 3, 7])
def test_metrics_equal_those_of_scikit_learn(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    for rows in (1, 5, 400):
        classes = rng.integers(kinds, size=rows)
        predicted = np.where(rng.random(rows) < 0.6, classes, rng.integers(kinds, size=rows))
        names = tuple(map(str, range(kinds)))
        metrics = evaluate_probabilities(sure(predicted, kinds), classes, names, ("accuracy", "f1", "matthews"))
        average: dict[str, Any] = {"average": "macro", "labels": list(range(kinds))}
        if kinds == 2:
            average = {"average": "binary"}
        assert metrics["accuracy"] == pytest.approx(scores.accuracy_score(classes, predicted), abs=1e-9)
        assert metrics["f1"] == pytest.approx(scores.f1_score(classes, predicted, zero_division=0, **average), abs=1e-9)
        assert metrics["matthews"] == pytest.approx(scores.matthews_corrcoef(classes, predicted), abs=1e-9)


def test_matthews_is_zero_where_it_is_not_defined() -> None:
    """One class alone in the table, or in the predictions."""
    for predicted, classes in (([1, 1], [1, 1]), ([1, 1], [0, 1]), ([0, 1], [1, 1]), ([0], [1])):
        assert matthews(np.array(predicted), np.array(classes)) == 0
        assert scores.matthews_corrcoef(classes, predicted) == 0
    assert matthews(np.array([0, 1, 1]), np.array([1, 0, 0])) == pytest.approx(-1)


# Over a table


@pytest.fixture(scope="module")
def predicted(classifier: Path, tables: Tables) -> tuple[Array, Array]:
    """Probabilities of the dev rows, a text at a time, so without any padded row; and the right classes."""
    rows = list(Table(tables.dev, TableFormat()))
    model = Classifier(classifier, batch_size=1)
    assert model.class_names == ("no", "yes")
    probabilities = [list(model.predict([row.text])[0].probabilities.values()) for row in rows]
    return np.array(probabilities), np.array([model.class_names.index(str(row.label)) for row in rows])


@pytest.mark.parametrize("batch_size", [1, 7, 8, 21, 32])
def test_evaluation_counts_each_row_once_whatever_the_batch_size(
    classifier: Path, tables: Tables, predicted: tuple[Array, Array], batch_size: int
) -> None:
    probabilities, classes = predicted
    chosen = probabilities.argmax(axis=1)
    hits = int(((chosen == 1) & (classes == 1)).sum())
    expected = {
        "accuracy": float((chosen == classes).mean()),
        "f1": 2 * hits / int((chosen == 1).sum() + (classes == 1).sum()),
        "loss": float(-np.log(probabilities[np.arange(len(classes)), classes]).mean()),
    }
    result = evaluate(classifier, tables.dev, EvaluateOptions(batch_size=batch_size))
    assert (result.rows, result.truncated) == (21, 0)
    assert result.metrics == pytest.approx(expected, rel=1e-5)


def test_counting_a_padded_row_would_have_been_noticed(predicted: tuple[Array, Array]) -> None:
    """The test above can fail: filling the batch of 32 with any row would change the loss by more."""
    probabilities, classes = predicted
    losses = -np.log(probabilities[np.arange(len(classes)), classes])
    for row in losses:
        assert (losses.sum() + 11 * row) / 32 != pytest.approx(losses.mean(), rel=1e-4)


def test_the_command_prints_the_same_metrics(cli: Callable[..., Result], classifier: Path, tables: Tables) -> None:
    metrics = evaluate(classifier, tables.dev).metrics
    assert cli("evaluate", classifier, tables.dev).out == format_metrics(metrics) + "\n"
    printed = json.loads(cli("evaluate", classifier, tables.dev, "--json", "--batch-size", 5).out)
    assert printed.pop("dropped_labels") == {}
    assert printed == pytest.approx({**metrics, "rows": 21, "truncated": 0, "left_out": 0}, rel=1e-5)
