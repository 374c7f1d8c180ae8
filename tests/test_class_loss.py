"""Weighted and smoothed losses: gradients, training symbols, and what is trained, against float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables
from runs import OPTIONS, Recorder, Run, files

from bertsym import FinetuneOptions, TaskOptions, finetune
from bertsym.acceleration.graphs import to_symbol
from bertsym.array import Array
from bertsym.mxnet_runtime import mx
from bertsym.passes.class_loss import replace_softmax_loss
from bertsym.symbol.graph import SymbolGraph

Cli = Callable[..., Result]

ROWS, CLASSES = 7, 3
LABELS = np.array([0, 2, 1, 0, 0, 2, 0])
WEIGHTS = (0.5, 3.0, 1.25)


def cross_entropy(logits: Array, weights: tuple[float, ...], smoothing: float) -> tuple[Array, Array, float]:
    """Loss of each row, gradient of their sum, and the divisor, as torch.nn.CrossEntropyLoss defines them."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    weight = np.array(weights or [1.0] * CLASSES)
    targets = weight * ((1 - smoothing) * np.eye(CLASSES)[LABELS] + smoothing / CLASSES)
    gradient = targets.sum(axis=1, keepdims=True) * np.exp(logs) - targets
    return -(targets * logs).sum(axis=1), gradient, float(weight[LABELS].sum())


@pytest.mark.parametrize("divides", [False, True])
@pytest.mark.parametrize(("weights", "smoothing"), [(WEIGHTS, 0.0), ((), 0.1), (WEIGHTS, 0.3)])
def test_loss_and_gradients_are_those_of_the_definition(
    weights: tuple[float, ...], smoothing: float, divides: bool
) -> None:
    graph = SymbolGraph.parse(
        mx.sym.SoftmaxOutput(mx.sym.var("x"), mx.sym.var("softmax_label"), name="softmax").tojson()
    )
    replace_softmax_loss(graph, CLASSES, weights, smoothing, divides=divides)
    symbol = to_symbol(graph)
    logits = np.random.default_rng(0).normal(0, 3, (ROWS, CLASSES))
    arguments, slot = {"x": mx.nd.array(logits), "softmax_label": mx.nd.array(LABELS)}, mx.nd.zeros((ROWS, CLASSES))
    executor = symbol.bind(mx.cpu(), arguments, args_grad={"x": slot}, grad_req={"x": "write", "softmax_label": "null"})
    probabilities, losses = executor.forward(is_train=True)
    executor.backward()
    expected, gradient, divisor = cross_entropy(logits.astype(np.float32).astype(np.float64), weights, smoothing)
    factor = ROWS / divisor if divides else 1.0
    np.testing.assert_allclose(losses.asnumpy(), factor * expected, rtol=1e-5)
    np.testing.assert_allclose(slot.asnumpy(), factor * gradient, atol=1e-5)
    np.testing.assert_allclose(probabilities.asnumpy().sum(axis=1), 1, rtol=1e-5)
    assert symbol.list_outputs() == ["softmax_output", "loss_output"]


def test_balanced_weights_are_trained_written_and_recorded(bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("label\ttext\n" + "yes\tthe happy cat\n" * 2 + "no\tthe sad dog\n" * 6)
    options = FinetuneOptions(
        epochs=1,
        batch_size=8,
        max_length=16,
        dropout=0.0,
        task_options=TaskOptions(class_weights="balanced", label_smoothing=0.2),
    )
    result = finetune(bundles["cls"], table, table, tmp_path / "x", options=options)
    assert result.bundle.manifest["training"]["loss"] == {"class_weights": [8 / 12, 2.0], "label_smoothing": 0.2}
    assert "class_weights" not in json.dumps(result.bundle.signature.to_json())
    symbol = mx.sym.load(f"{tmp_path / 'x'}-train-symbol.json")
    assert symbol.list_outputs() == ["softmax_output", "loss_output"]


def test_the_written_symbol_trains_in_a_plain_module(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    """Module divides by the number of rows; the gradient is that of the mean over the weights nevertheless."""
    options = FinetuneOptions(epochs=1, max_length=24, task_options=TaskOptions(class_weights={"yes": 5.0}))
    finetune(bundles["cls"], tables.train, tables.dev, tmp_path / "x", options=options)
    symbol, params, _ = mx.model.load_checkpoint(str(tmp_path / "x"), 0)
    symbol = mx.sym.load(f"{tmp_path / 'x'}-train-symbol.json")
    names = ("data0", "data1", "data2")
    module = mx.mod.Module(symbol, data_names=names, label_names=("softmax_label",))
    shapes = [("data0", (4, 6)), ("data1", (4, 6)), ("data2", (4,))]
    module.bind(shapes, [("softmax_label", (4,))])
    module.set_params(params, {})
    labels = np.array([1, 0, 0, 0])
    ids = np.random.default_rng(0).integers(6, 40, (4, 6))
    batch = mx.io.DataBatch([mx.nd.array(ids), mx.nd.zeros((4, 6)), mx.nd.full(4, 6)], [mx.nd.array(labels)])
    module.forward(batch, is_train=True)
    probabilities = module.get_outputs()[0].asnumpy()
    module.backward()
    bias = dict(zip(module._exec_group.param_names, module._exec_group.grad_arrays))["fc-finetune_bias"][0].asnumpy()
    weight = np.array([1.0, 5.0])[labels]
    expected = (weight[:, None] * (probabilities - np.eye(2)[labels])).sum(axis=0) / weight.sum()
    np.testing.assert_allclose(bias / 4, expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{"accumulate": 3}, {"freeze_encoder": True}], ids=str)
def test_a_resumed_run_with_weights_writes_the_same_bytes(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path, changes: dict[str, Any]
) -> None:
    loss = TaskOptions(class_weights={"no": 0.7, "yes": 2.3}, label_smoothing=0.1)
    options = FinetuneOptions(**{**vars(OPTIONS), "epochs": 2, "task_options": loss, **changes})
    whole, resumed = (Run(bundles["cls"], tables, tmp_path / name) for name in ("whole", "resumed"))
    for run in (whole, resumed):
        run.folder.mkdir()
    whole(options=options)
    resumed.stopped(11, options=options, checkpoint_steps=4)
    resumed(options=options, resume=True)
    assert files(resumed.out) == files(whole.out)


@pytest.mark.parametrize("passes", [1, 4])
def test_the_loss_is_divided_by_the_weights_of_the_whole_batch(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path, passes: int
) -> None:
    recorder, loss = Recorder(), TaskOptions(class_weights={"yes": 9.0})
    options = FinetuneOptions(epochs=1, batch_size=90, max_length=24, accumulate=passes, task_options=loss)
    finetune(bundles["cls"], tables.train, tables.dev, tmp_path / "x", options=options, on_event=recorder)
    # A new head answers nearly 1/2 for each class; divided by the rows, the loss would be 5 times as large.
    assert recorder.steps[0][1] == pytest.approx(np.log(2), abs=0.2)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--class-weights", "yes"], 2, "'yes' is not LABEL=WEIGHT; give balanced, or a=1,b=5"),
        (["--class-weights", "yes=x"], 2, "'yes=x' is not LABEL=WEIGHT"),
        (["--class-weights", "yes=1,yes=2"], 2, "the label 'yes' occurs twice"),
        (["--class-weights", "yes=0"], 2, "yes=0.0 is not a finite number above 0"),
        (["--class-weights", "maybe=2"], 1, "train.tsv: class weights: 'maybe' is not one of its labels no, yes"),
        (["--label-smoothing", "1"], 2, "label_smoothing must be 0 or more and below 1, not 1.0"),
    ],
)
def test_impossible_losses_are_refused(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    done = cli("finetune", bundles["cls"], "--train", tables.train, "--dev", tables.dev, tmp_path / "x", *options)
    assert done.code == code
    assert message in done.error_line
