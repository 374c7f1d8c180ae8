"""Grafting: which outputs take a classifier, and what the classifier then is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bertsym import UsageError, graft, graft_for_inference
from bertsym.array import Array
from bertsym.encoders.inputs import input_shapes
from bertsym.encoders.symbol_heads import head_parameters
from bertsym.mxnet_runtime import mx


def load(prefix: Path) -> object:
    return mx.sym.load(f"{prefix}-symbol.json")


def test_head_is_dropout_then_fully_connected_then_softmax_output(bundles: dict[str, Path]) -> None:
    base = mx.sym.load(f"{bundles['cls']}-symbol.json")
    before = len(json.loads(base.tojson())["nodes"])
    symbol = graft(base, num_classes=3, dropout=0.2)
    added = json.loads(symbol.tojson())["nodes"][before:]
    operators = [(node["op"], node["name"]) for node in added if node["op"] != "null"]
    assert operators == [
        ("Dropout", "dropout-finetune"),
        ("FullyConnected", "fc-finetune"),
        ("SoftmaxOutput", "softmax"),
    ]
    assert [node["name"] for node in added if node["op"] == "null"] == [
        "fc-finetune_weight",
        "fc-finetune_bias",
        "softmax_label",
    ]
    assert added[0]["attrs"]["p"] == "0.2"
    assert symbol.list_outputs() == ["softmax_output"]


@pytest.mark.parametrize("output", ["cls", "pooled", "mean"])
def test_head_on_a_two_dimensional_output_has_one_weight_per_unit_and_class(
    bundles: dict[str, Path], output: str
) -> None:
    symbol = graft(load(bundles[output]), num_classes=3)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(**dict(input_shapes(2, 7)))[0]))
    assert shapes["fc-finetune_weight"] == (3, 32)


def test_a_head_on_the_sequence_is_refused_unless_requested(bundles: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="locked to one length"):
        graft(load(bundles["sequence"]), num_classes=2)


def test_a_head_on_the_sequence_has_a_weight_of_length_times_units(bundles: dict[str, Path]) -> None:
    symbol = graft(load(bundles["sequence"]), num_classes=2, whole_sequence=True)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(**dict(input_shapes(2, 12)))[0]))
    assert shapes["fc-finetune_weight"] == (2, 12 * 32)


def test_whole_sequence_needs_a_sequence(bundles: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="no length to flatten"):
        graft(load(bundles["cls"]), num_classes=2, whole_sequence=True)


def test_a_symbol_of_two_outputs_asks_which_one(bundles: dict[str, Path]) -> None:
    group = mx.sym.Group([mx.sym.var("a") * 2, mx.sym.var("b") * 2])
    with pytest.raises(UsageError, match=r"2 outputs .*choose the output"):
        graft(group, num_classes=2)


@pytest.mark.parametrize(("classes", "dropout"), [(1, 0.1), (0, 0.1), (2, 1.0), (2, -0.1)])
def test_numbers_out_of_range_are_refused(bundles: dict[str, Path], classes: int, dropout: float) -> None:
    with pytest.raises(UsageError):
        graft(load(bundles["cls"]), num_classes=classes, dropout=dropout)


def test_any_symbol_takes_a_head_when_its_input_shapes_are_given() -> None:
    base = mx.sym.FullyConnected(mx.sym.var("x"), num_hidden=5, name="body")
    symbol = graft(base, num_classes=4, shapes=[("x", (2, 9))])
    assert symbol.list_outputs() == ["softmax_output"]


def test_a_symbol_that_has_a_head_takes_no_second_one(bundles: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="already has a layer fc-finetune"):
        graft(graft_for_inference(load(bundles["cls"]), 2), 2)


def test_a_symbol_of_unknown_inputs_asks_for_their_shapes() -> None:
    with pytest.raises(UsageError, match="give the shapes of the inputs"):
        graft(mx.sym.FullyConnected(mx.sym.var("x"), num_hidden=5, name="body"), 2)


def test_inference_twin_has_no_label_and_the_same_probabilities(bundles: dict[str, Path]) -> None:
    base = load(bundles["cls"])
    train, inference = graft(base, 3), graft_for_inference(base, 3)
    assert set(train.list_arguments()) - set(inference.list_arguments()) == {"softmax_label"}
    assert inference.list_outputs() == train.list_outputs()

    params = dict(mx.nd.load(f"{bundles['cls']}-0000.params"))
    arrays = {name.removeprefix("arg:"): array for name, array in params.items()}
    rng = np.random.default_rng(0)
    arrays["fc-finetune_weight"] = mx.nd.array(rng.normal(size=(3, 32)))
    arrays["fc-finetune_bias"] = mx.nd.array(rng.normal(size=3))
    arrays["data0"] = mx.nd.array(rng.integers(6, 20, size=(4, 9)))
    arrays["data1"] = mx.nd.zeros((4, 9))
    arrays["data2"] = mx.nd.array([9, 1, 5, 3])
    outputs = []
    for symbol in (train, inference):
        arguments = {**arrays, "softmax_label": mx.nd.zeros((4,))} if symbol is train else arrays
        outputs.append(symbol.bind(mx.cpu(), arguments).forward(is_train=False)[0].asnumpy())
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)
    np.testing.assert_allclose(outputs[0].sum(axis=1), 1, atol=1e-6)


def test_initial_head_is_small_random_weights_and_zero_bias_from_the_seed(bundles: dict[str, Path]) -> None:
    base = mx.sym.load(f"{bundles['cls']}-symbol.json")
    symbol = graft(base, num_classes=2)

    def initial(seed: int) -> dict[str, Array]:
        return head_parameters(symbol, base.list_arguments(), input_shapes(1, 8), seed)

    assert set(initial(0)) == {"fc-finetune_weight", "fc-finetune_bias"}
    assert not initial(0)["fc-finetune_bias"].any()
    assert initial(0)["fc-finetune_weight"].std() == pytest.approx(0.02, rel=0.3)
    np.testing.assert_array_equal(initial(3)["fc-finetune_weight"], initial(3)["fc-finetune_weight"])
    assert (initial(0)["fc-finetune_weight"] != initial(1)["fc-finetune_weight"]).all()
