"""Regression: metrics as scipy has them, the loss that MXNet minimises, and the whole way of a model."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_runner import Run
from conftest import WORDS, Result
from headed import headed_weights, write_headed
from scipy import stats
from sklearn.metrics import mean_squared_error

from bertsym import Bundle, Columns, FinetuneOptions, ModelError, Regressor, TableFormat, evaluate, export, finetune
from bertsym.array import Array
from bertsym.metrics.regression import evaluate_values, pearson, spearman
from bertsym.mxnet_runtime import mx
from bertsym.tasks.regression import Regression, ValuePrediction

Cli = Callable[..., Result]
Forked = Callable[..., Run]

FAST = FinetuneOptions(task="regression", epochs=8, batch_size=16, learning_rate=1e-2, max_length=24)


def write_scores(path: Path, rows: int, seed: int) -> Path:
    """A table of texts whose score grows with the number of the word happy."""
    rng = np.random.default_rng(seed)
    others = [word for word in WORDS if word.isalpha() and word not in ("happy", "sad")]
    lines = ["score\ttext"]
    for i in range(rows):
        words = [*rng.choice(others, 4), *["happy"] * (i % 5), *["sad"] * (4 - i % 5)]
        lines.append(f"{i % 5 / 2 + float(rng.normal(0, 0.1)):.3f}\t{' '.join(rng.permutation(words))}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def scores(once: Callable[..., Path]) -> Path:
    """A folder with train.tsv and dev.tsv."""

    def make(folder: Path) -> None:
        write_scores(folder / "train.tsv", 90, 0)
        write_scores(folder / "dev.tsv", 25, 1)

    return once("scores", make)


COLUMN = ("--label-column", "score")


@pytest.fixture(scope="session")
def regressor(once: Callable[..., Path], bundles: dict[str, Path], scores: Path) -> Path:
    """Prefix of a trained regression model; no test may change its files."""
    options = dataclasses.replace(FAST, table_format=TableFormat(columns=Columns(label="score")))

    def make(folder: Path) -> None:
        finetune(bundles["cls"], scores / "train.tsv", scores / "dev.tsv", folder / "model", options=options)

    return once("regressor", make) / "model"


# Metrics


def expected_metrics(values: Array, scores: Array) -> dict[str, float]:
    """What scipy and scikit-learn compute in float64."""
    squared = float(mean_squared_error(scores, values))
    return {
        "pearson": float(stats.pearsonr(values, scores)[0]),
        "spearman": float(stats.spearmanr(values, scores)[0]),
        "mse": squared,
        "loss": squared / 2,
    }


@pytest.mark.parametrize("rows", [4, 50, 1000])
def test_metrics_equal_those_of_scipy(rows: int) -> None:
    rng = np.random.default_rng(rows)
    scores = rng.normal(3, 2, rows)
    for values in (
        rng.normal(0, 1, rows),
        scores + rng.normal(0, 0.1, rows),
        -scores,
        (scores * 1e-3 + 1e4).astype(np.float32).astype(np.float64),
        np.round(scores + np.arange(rows) % 2),  # ties
    ):
        found = evaluate_values(values, np.round(scores, 1), ("pearson", "spearman", "mse"))
        assert list(found) == ["pearson", "spearman", "mse", "loss"]
        assert found == pytest.approx(expected_metrics(values, np.round(scores, 1)), rel=1e-9, abs=1e-9)


def test_equal_numbers_share_their_mean_rank() -> None:
    values, scores = np.array([1.0, 2, 2, 2, 5]), np.array([1.0, 1, 2, 3, 3])
    # Ranks 1, 3, 3, 3, 5 and 1.5, 1.5, 3, 4.5, 4.5.
    assert spearman(values, scores) == pytest.approx(6 / np.sqrt(8 * 9))
    assert spearman(values, scores) == pytest.approx(stats.spearmanr(values, scores)[0], abs=1e-12)


def test_a_correlation_that_is_not_defined_is_zero() -> None:
    """scipy gives NaN, which JSON can't express."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for values, scores in (([0.1] * 7, [1, 2, 3, 4, 5, 6, 7]), ([1, 2, 3], [4, 4, 4]), ([1], [2])):
            assert pearson(np.array(values), np.array(scores)) == 0
            assert spearman(np.array(values), np.array(scores)) == 0
            if len(values) > 1:
                assert np.isnan(stats.pearsonr(values, scores)[0])


# The loss


def test_the_loss_is_what_the_training_symbol_minimises() -> None:
    """The gradient of MXNet's LinearRegressionOutput is that of the reported loss."""
    outputs, labels = np.array([[0.5], [-2.0], [3.0]], np.float32), np.array([[1.0], [-2.5], [0.0]], np.float32)
    data, label = mx.nd.array(outputs), mx.nd.array(labels)
    data.attach_grad()
    with mx.autograd.record():
        result = mx.nd.LinearRegressionOutput(data, label)
    result.backward()
    task, step = Regression(), 1e-3
    assert task.loss([outputs], {"regression_label": labels}) == pytest.approx((0.25 + 0.25 + 9) / 2)
    for row in range(3):
        moved = outputs.astype(np.float64)
        moved[row] += step
        higher = task.loss([moved], {"regression_label": labels})
        moved[row] -= 2 * step
        lower = task.loss([moved], {"regression_label": labels})
        assert data.grad.asnumpy()[row, 0] == pytest.approx((higher - lower) / (2 * step), abs=1e-6)


# The whole way


def test_a_regression_is_trained_evaluated_and_predicted(
    forked: Forked, bundles: dict[str, Path], scores: Path, tmp_path: Path
) -> None:
    tables = ("--train", scores / "train.tsv", "--dev", scores / "dev.tsv", *COLUMN)
    settings = ("--task", "regression", "--epochs", 8, "--batch-size", 16, "--lr", "1e-2", "--max-length", 24)
    model = tmp_path / "model"
    trained = forked("finetune", bundles["cls"], model, *tables, *settings)
    assert trained.code == 0, trained.error
    printed = next(line for line in trained.out.splitlines() if line.startswith("pearson "))
    assert [part.split()[0] for part in printed.split("  ")] == ["pearson", "spearman", "mse", "loss"]
    assert float(printed.split()[1]) > 0.8
    assert forked("evaluate", model, scores / "dev.tsv").out.strip() == printed

    signature = Bundle.open(model).signature
    assert (signature.kind, signature.task, signature.output_shape) == ("logits", "regression", ("batch", 1))
    assert [tensor.name for tensor in signature.label_inputs] == ["regression_label"]
    assert signature.task_settings["sigmoid"] is False

    predicted = forked("predict", model, scores / "dev.tsv")
    header, *rows = predicted.out.splitlines()
    assert header == "value"
    wanted = [float(line.split("\t")[0]) for line in (scores / "dev.tsv").read_text().splitlines()[1:]]
    assert f"pearson {stats.pearsonr(list(map(float, rows)), wanted)[0]:.4f}" in printed
    # In the same order, from standard input, as JSON.
    texts = "".join(line.split("\t")[1] + "\n" for line in (scores / "dev.tsv").read_text().splitlines()[1:])
    found = forked("predict", model, "--output-format", "jsonl", stdin=texts.encode())
    assert [f"{json.loads(line)['value']:.6f}" for line in found.out.splitlines()] == rows


def test_a_trained_regression_is_quantized_lowered_and_converted(
    forked: Forked, regressor: Path, scores: Path, tmp_path: Path
) -> None:
    quantized = forked("quantize", regressor, tmp_path / "int8", "--calibrate", scores / "train.tsv", *COLUMN)
    assert quantized.code == 0, quantized.error
    assert "agreement with float32" in quantized.out
    assert evaluate(tmp_path / "int8", scores / "dev.tsv").metrics["pearson"] > 0.8
    lowered = forked("lower", regressor, tmp_path / "lowered", "--target-mxnet", "1.5")
    assert lowered.code == 0, lowered.error
    text = "the happy happy dog"
    (expected,) = Regressor(regressor).predict([text])
    assert Regressor(tmp_path / "lowered").predict([text])[0].value == pytest.approx(expected.value, abs=1e-4)
    assert forked("onnx", regressor, tmp_path / "model.onnx").code == 0
    by_onnx = forked("predict", regressor, "--text", text, "--engine", "onnxruntime")
    assert float(by_onnx.out.split()[1]) == pytest.approx(expected.value, abs=1e-4)
    assert "task       regression" in forked("inspect", regressor).out


def test_values_agree_within_a_twentieth() -> None:
    one = ValuePrediction(1.0)
    assert one.agrees(ValuePrediction(1.05))
    assert not one.agrees(ValuePrediction(1.06))
    assert ValuePrediction(100.0).agrees(ValuePrediction(104.0))
    assert not ValuePrediction(0.0).agrees(ValuePrediction(0.06))


def test_training_continues_a_regression_head(regressor: Path, scores: Path, cli: Cli, tmp_path: Path) -> None:
    tables = ("--train", scores / "train.tsv", "--dev", scores / "dev.tsv", *COLUMN)
    settings = ("--task", "regression", "--epochs", 1, "--lr", "1e-6")
    result = cli("finetune", regressor, tmp_path / "more", *tables, *settings)
    assert result.code == 0, result.err
    assert "continuing the trained head" in result.err
    before = evaluate(regressor, scores / "dev.tsv").metrics["pearson"]
    assert evaluate(tmp_path / "more", scores / "dev.tsv").metrics["pearson"] == pytest.approx(before, abs=1e-3)


# Cross-encoders


SIGMOID = "torch.nn.modules.activation.Sigmoid"


@pytest.mark.parametrize(
    ("settings", "sigmoid", "note"),
    [
        ({"sentence_transformers": {"activation_fn": SIGMOID, "version": "4.1.0"}}, True, None),
        ({"sbert_ce_default_activation_function": SIGMOID}, True, None),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, False, None),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, False, "activation Tanh"),
        ({}, False, None),
    ],
)
def test_the_activation_of_a_cross_encoder_is_exported(
    tmp_path: Path, settings: dict[str, Any], sigmoid: bool, note: str | None
) -> None:
    result = export(f"hf:{write_headed(tmp_path / 'hf', 'regression', **settings)}", tmp_path / "x")
    assert result.bundle.signature.task_settings.get("sigmoid", False) is sigmoid
    assert any("activation" in each for each in result.notes) is (note is not None)
    texts, pairs = ["the cat", "a dog ran"], ["the dog sat", "the old house"]
    bare = [each.value for each in Regressor(tmp_path / "x", sigmoid=False).predict(texts, pairs)]
    expected = 1 / (1 + np.exp(-np.array(bare)))
    assert [each.value for each in Regressor(tmp_path / "x", sigmoid=True).predict(texts, pairs)] == list(expected)
    found = [each.value for each in Regressor(tmp_path / "x").predict(texts, pairs)]
    assert found == (list(expected) if sigmoid else bare)


def test_a_head_with_several_values_is_not_predicted(forked: Forked, tmp_path: Path) -> None:
    labels = {"0": "LABEL_0", "1": "LABEL_1"}
    weights = headed_weights("regression")
    weights["classifier.weight"], weights["classifier.bias"] = (
        np.repeat(weights[f"classifier.{part}"], 2, axis=0) for part in ("weight", "bias")
    )
    folder = write_headed(tmp_path / "hf", "regression", weights, id2label=labels, problem_type="regression")
    export(f"hf:{folder}", tmp_path / "x")
    run = forked("predict", tmp_path / "x", "--text", "the cat")
    assert (run.code, run.fault) == (1, None)
    assert "2 outputs of its head, but the task regression has 1, not supported by predict" in run.error


# Errors


@pytest.mark.parametrize(
    ("score", "why"),
    [
        ("high", "the score 'high' is not a number"),
        ("nan", "the score 'nan' is not a number; --drop-label nan leaves out its rows"),
        ("inf", "the score 'inf' is not a number"),
        ("1e999", "the score 1e999 is too large for float32"),
        ("1e39", "the score 1e39 is too large for float32"),
        ("1,5", "the score '1,5' is not a number"),
        ("0x10", "the score '0x10' is not a number"),
    ],
)
def test_a_score_that_is_not_a_finite_number_is_an_error(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, score: str, why: str
) -> None:
    table = tmp_path / "train.tsv"
    table.write_text(f"text\tlabel\nthe cat\t1.5\na dog\t{score}\nthe mat\t2\n")
    arguments = ("--train", table, "--dev", table, "--task", "regression")
    result = cli("finetune", bundles["cls"], tmp_path / "x", *arguments)
    assert result.code == 1
    assert result.error_line.startswith(f"Error: {table}, line 3: {why}; --on-error")


def test_a_header_that_is_read_as_a_row_is_an_error(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "train.tsv"
    table.write_text("the cat is happy today\t1.5\nthe dog ran in the park\t0.5\n")
    base = ("finetune", bundles["cls"], tmp_path / "x", "--train", table, "--dev", table, "--task", "regression")
    line = cli(*base, "--text-column", 1, "--label-column", 2).error_line
    assert f"{table}, line 1: read as the header, but its label '1.5' is a class" in line


def test_options_of_other_tasks_are_errors(forked: Forked, regressor: Path, classifier: Path, tmp_path: Path) -> None:
    for model, option, task in (
        (regressor, ("--threshold", 0.3), "--threshold 0.3 has no effect for the task regression: omit it"),
        (classifier, ("--no-sigmoid",), "--no-sigmoid has no effect for the task classification: omit it"),
    ):
        run = forked("predict", model, "--text", "the cat", *option)
        assert (run.code, run.fault) == (2, None)
        assert task in run.error
    with pytest.raises(ModelError, match="is not a regression model, its task is classification"):
        Regressor(classifier)
