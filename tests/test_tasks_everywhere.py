"""Each kind of task goes the whole way: what fine-tuning writes passes every command with the same answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, in_turn
from kinds import KINDS
from tools import needs

from bertsym import (
    Bundle,
    FinetuneOptions,
    OnnxOptions,
    QuantizeOptions,
    evaluate,
    export,
    export_hugging_face,
    export_onnx,
    extract,
    finetune,
    inspect,
    load,
    lower,
    quantize,
    remove_head,
    using_engine,
    verify,
)
from bertsym.bundle import TRAIN_SYMBOL
from bertsym.events import Event, Note
from bertsym.inference.task_bundle import TaskBundle
from bertsym.mxnet_runtime import mx

Cli = Callable[..., Result]
OPTIONS = FinetuneOptions(epochs=3, batch_size=16, learning_rate=5e-3, max_length=24)


TEXTS = [
    "the happy cat sat on the red mat",
    "a sad dog ran",
    "the birds flew under the old tree",
    "the cat sat on the mat the dog sat on the park the bird sat on the tree the cats ran in an old house " * 2,
]
QUESTIONS = ["the cat sat", "the dog flew", "the birds sat", "the dog sat"]


@dataclass(frozen=True)
class Trained:
    """A fine-tuned bundle with its files."""

    task: str
    prefix: Path
    train: Path
    dev: Path


@pytest.fixture(scope="session", params=KINDS)
def trained(request: pytest.FixtureRequest, bundles: dict[str, Path], once: Callable[..., Path]) -> Trained:
    """A bundle of each kind of task; no test may change its files."""
    kind = KINDS[request.param]

    def make(folder: Path) -> None:
        train, dev = folder / f"train.{kind.ending}", folder / f"dev.{kind.ending}"
        kind.write(train, 64, 0)
        kind.write(dev, 16, 1)
        options = dataclasses.replace(OPTIONS, task=request.param)
        events: list[Event] = []
        finetune(bundles[kind.output], train, dev, folder / "model", options=options, on_event=events.append)
        assert all(event.text for event in events if isinstance(event, Note))

    folder = once(f"everywhere-{request.param}", make)
    return Trained(request.param, folder / "model", folder / f"train.{kind.ending}", folder / f"dev.{kind.ending}")


def answers(prefix: Path) -> list[dict[str, Any]]:
    """The predictions for the texts: short ones, and one that is longer than the model's inputs."""
    model: Any = load(prefix)
    found = model.predict(QUESTIONS, TEXTS) if model.task.name == "qa" else model.predict(TEXTS)
    return [prediction.to_json() for prediction in found]


def assert_same(found: Any, expected: Any) -> None:
    """Same JSON, but for rounding of its numbers."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5, rel=1e-4)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_same(found[name], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other)
    else:
        assert found == expected


def test_the_training_symbol_computes_the_gradient_of_the_loss(trained: Trained) -> None:
    """Module divides it by the number of rows: the loss is a mean over the rows, or a tagger's over its words."""
    opened = TaskBundle.open(trained.prefix, "predict")
    bundle, task = opened.bundle, opened.task
    examples = task.read(trained.dev, opened.reading())
    targets, windows = task.targets(examples), [window for row in examples.rows for window in row.windows]
    rows, length = np.arange(4), max(len(window.token_ids) for window in windows[:4])
    if trained.task != "tagging":
        assert targets.count(rows) == len(rows)
    inputs = {name: np.zeros((4, length), np.float32) for name in ("data0", "data1")}
    for i, window in enumerate(windows[:4]):
        inputs["data0"][i, : len(window.token_ids)] = window.token_ids
        inputs["data1"][i, : len(window.token_types)] = window.token_types
    inputs["data2"] = np.array([len(window.token_ids) for window in windows[:4]], np.float32)
    labels = targets.labels(rows, length)
    symbol = mx.sym.load_json(bundle.graph(TRAIN_SYMBOL).to_json())
    feeds = {**inputs, **labels}
    weight = "fc-finetune_weight"
    wanted = {name: "write" if name == weight else "null" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(mx.cpu(), grad_req=wanted, **{name: each.shape for name, each in feeds.items()})
    executor.copy_params_from({name: mx.nd.array(array) for name, array in bundle.params().items()})

    def loss(values: Any) -> float:
        executor.arg_dict[weight][:] = values
        executor.forward(is_train=False, **{name: mx.nd.array(each) for name, each in feeds.items()})
        return task.loss([output.asnumpy() for output in executor.outputs], labels)

    original = np.array(bundle.params()[weight])
    loss(original)
    executor.backward()
    gradient = executor.grad_dict[weight].asnumpy().astype(np.float64)
    step = (1e-2 * gradient / np.sqrt(np.square(gradient).sum())).astype(np.float32)
    slope = (loss(original + step) - loss(original - step)) / 2
    assert slope == pytest.approx(float((gradient * step).sum()), rel=1e-2)


@pytest.mark.parametrize(
    ("trained", "options"),
    in_turn(KINDS, [{"form": "gluonnlp"}, {"form": "fast", "fold": True}]),
    ids=lambda value: value if isinstance(value, str) else value["form"],
    indirect=["trained"],
)
def test_lowered_bundles_give_the_same_answers(trained: Trained, tmp_path: Path, options: dict[str, Any]) -> None:
    lower(trained.prefix, tmp_path / "x", **options)
    assert verify(tmp_path / "x")
    assert_same(answers(tmp_path / "x"), answers(trained.prefix))


@needs("onnx", "onnxruntime")
def test_onnxruntime_gives_the_same_answers(trained: Trained, tmp_path: Path) -> None:
    for signature in ("mxnet", "hf"):
        assert export_onnx(trained.prefix, tmp_path / f"{signature}.onnx", OnnxOptions(signature=signature)).checks
    expected = answers(trained.prefix)
    with using_engine("onnxruntime"):
        assert_same(answers(trained.prefix), expected)


def test_an_int8_bundle_is_measured_and_predicts(trained: Trained, tmp_path: Path) -> None:
    # With all bits: limited weights move the probabilities of 32 units by 0.015, and these are close to a half.
    options = QuantizeOptions(max_drop=1, processors="auto")
    done = quantize(trained.prefix, tmp_path / "x", trained.dev, options)
    assert done.layers
    assert done.int8.agreement > 0.5
    assert evaluate(tmp_path / "x", trained.dev).metrics == pytest.approx(done.int8.metrics, abs=1e-5)
    assert [list(each) for each in answers(tmp_path / "x")] == [list(each) for each in answers(trained.prefix)]


def test_a_folder_of_transformers_gives_the_same_answers(trained: Trained, tmp_path: Path) -> None:
    done = export_hugging_face(trained.prefix, tmp_path / "hf")
    assert done.architecture == KINDS[trained.task].architecture
    again = export(f"hf:{tmp_path / 'hf'}", tmp_path / "again").bundle
    original = Bundle.open(trained.prefix)
    for name in ("task", "class_names", "task_settings", "max_length"):
        assert getattr(again.signature, name) == getattr(original.signature, name), name
    assert_same(answers(tmp_path / "again"), answers(trained.prefix))
    assert evaluate(tmp_path / "again", trained.dev).metrics == pytest.approx(
        evaluate(trained.prefix, trained.dev).metrics, abs=1e-5
    )


def test_fine_tuning_continues_the_head(trained: Trained, tmp_path: Path) -> None:
    """With a learning rate of next to nothing, its weights stay."""
    options = dataclasses.replace(OPTIONS, task=trained.task, epochs=1, learning_rate=1e-30, weight_decay=0.0)
    finetune(trained.prefix, trained.train, trained.dev, tmp_path / "x", options=options)
    found, original = Bundle.open(tmp_path / "x"), Bundle.open(trained.prefix)
    assert found.signature.class_names == original.signature.class_names
    for name, array in original.params().items():
        np.testing.assert_array_equal(found.params()[name], array, err_msg=name)


def test_inspect_extract_and_graft_take_the_bundle(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    assert inspect(trained.prefix).to_json()["task"] == trained.task
    assert json.loads(cli("inspect", trained.prefix, "--json").out)["task"] == trained.task
    extract(trained.prefix, tmp_path / "part", ["fc-finetune"])
    headless = remove_head(trained.prefix, tmp_path / "headless").bundle
    assert isinstance(headless, Bundle)
    assert (headless.signature.output, headless.signature.task_settings) == (KINDS[trained.task].output, {})
    assert Bundle.open(tmp_path / "headless").signature.task is None
