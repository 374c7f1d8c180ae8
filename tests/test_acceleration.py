"""What is computed in memory is what is written: outputs and gradients of the rewritten graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, hugging_face_weights
from gluonnlp_models import bert_model
from numpy.typing import NDArray

from bertsym.acceleration.graphs import TrainingSymbol, accelerate_graph, build_training_symbol
from bertsym.acceleration.mask_sampling import sample_dropout_mask
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import Form
from bertsym.encoders.graph import encoder_graph
from bertsym.encoders.outputs import output_symbol
from bertsym.encoders.parameters import parameter_shapes
from bertsym.encoders.spec import EncoderSpec
from bertsym.encoders.symbol_heads import graft
from bertsym.mxnet_runtime import mx
from bertsym.passes.dropout_masks import feed_dropout_masks
from bertsym.passes.layer_norm import decompose_layer_norm
from bertsym.symbol.graph import SymbolGraph

Array = NDArray[Any]

UNITS = CONFIG["hidden_size"]
BERT = BertConfig(
    num_layers=CONFIG["num_hidden_layers"],
    units=UNITS,
    hidden_size=CONFIG["intermediate_size"],
    num_heads=CONFIG["num_attention_heads"],
    vocab_size=CONFIG["vocab_size"],
    token_type_vocab_size=CONFIG["type_vocab_size"],
    max_length=CONFIG["max_position_embeddings"],
    layer_norm_eps=CONFIG["layer_norm_eps"],
)
SHAPES = parameter_shapes(BERT)
OUTPUTS = ("cls", "pooled", "mean")
LABELS = np.array([0, 1, 1, 0])


def texts(length: int) -> dict[str, Array]:
    """Four rows, one of them full, with random ids at the padding too."""
    rng = np.random.default_rng(length)
    return {
        "data0": rng.integers(BERT.vocab_size, size=(4, length)),
        "data1": rng.integers(BERT.token_type_vocab_size, size=(4, length)),
        "data2": np.array([length, 1, length - 1, length // 2]),
    }


def run(symbol: Any, values: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """The first output, and the gradients of all parameters: of its loss, or of its sum with random weights."""
    arguments = {name: mx.nd.array(values[name]) for name in symbol.list_arguments()}
    given = ("data0", "data1", "data2", "softmax_label")
    slots = {name: array.zeros_like() for name, array in arguments.items() if name not in given and "mask" not in name}
    executor = symbol.bind(mx.cpu(), arguments, args_grad=slots, grad_req=dict.fromkeys(slots, "write"))
    executor.forward(is_train=True)
    weights = np.random.default_rng(9).normal(size=executor.outputs[0].shape)
    executor.backward(mx.nd.array(weights))
    return executor.outputs[0].asnumpy(), {name: array.asnumpy() for name, array in slots.items()}


def kept(training: TrainingSymbol, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Masks that drop nothing."""
    shapes, _, _ = training.symbol.infer_shape(**{name: array.shape for name, array in inputs.items()})
    return {
        name: np.ones(shape) for name, shape in zip(training.symbol.list_arguments(), shapes) if name in training.masks
    }


def assert_close(found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float = 1e-4) -> None:
    for name, value in expected.items():
        scale = np.abs(value).max()
        if name.endswith("_key_bias") and scale < 1e-4:  # zero in mathematics, rounding in both
            assert np.abs(found[name]).max() < 1e-4
        else:
            assert scale > 1e-4, name
            assert np.abs(found[name] - value).max() < tolerance * scale, name


def gluonnlp_gradients(output: str, inputs: Mapping[str, Array], head: Mapping[str, Array]) -> dict[str, Array]:
    """Of GluonNLP's own net with a classifier on one of its outputs, by autograd."""
    weight, bias = (mx.nd.array(head[f"fc-finetune_{part}"]) for part in ("weight", "bias"))
    weight.attach_grad()
    bias.attach_grad()
    net = bert_model(CONFIG, hugging_face_weights())
    with mx.autograd.record():
        encoded, pooled = net(*map(mx.nd.array, inputs.values()))
        if output == "mean":
            lengths = mx.nd.array(inputs["data2"])
            encoded = mx.nd.SequenceMask(encoded, lengths, use_sequence_length=True, axis=1)
            read = mx.nd.broadcast_div(encoded.sum(axis=1), lengths.reshape((-1, 1)))
        else:
            read = pooled if output == "pooled" else encoded[:, 0]
        scores = mx.nd.FullyConnected(read, weight, bias, num_hidden=2)
        loss = -mx.nd.pick(mx.nd.log_softmax(scores), mx.nd.array(LABELS)).sum()
    loss.backward()
    found = {
        name: parameter.grad().asnumpy()
        for name, parameter in net.collect_params().items()
        if output == "pooled" or "pooler" not in name
    }
    return {**found, "fc-finetune_weight": weight.grad.asnumpy(), "fc-finetune_bias": bias.grad.asnumpy()}


@pytest.mark.parametrize("length", [9, 16])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("cpu", [True, False])
def test_gradients_of_the_training_symbol_are_those_of_gluonnlp(output: str, length: int, cpu: bool) -> None:
    inputs = texts(length)
    net = bert_model(CONFIG, hugging_face_weights())
    params = {name: parameter.data().asnumpy() for name, parameter in net.collect_params().items()}
    head: dict[str, NDArray[Any]] = {
        "fc-finetune_weight": np.random.default_rng(4).normal(size=(2, UNITS)).astype(np.float32),
        "fc-finetune_bias": np.zeros(2, np.float32),
    }
    still = BertConfig(**{**vars(BERT), "dropout": 0.0, "attention_dropout": 0.0})
    config = BERT if cpu else still  # MXNet's own Dropout has no switch to keep everything
    symbol = graft(output_symbol(config, output), 2, dropout=0.1 if cpu else 0.0)
    training = build_training_symbol(SymbolGraph.parse(symbol.tojson()), SHAPES, cpu=cpu)
    values = {**inputs, **params, **head, "softmax_label": LABELS}
    found = run(training.symbol, {**values, **kept(training, inputs)})[1]
    assert_close(found, gluonnlp_gradients(output, inputs, head))
    assert bool(training.masks) == cpu


@pytest.mark.parametrize("spec", [EncoderSpec(BERT), EncoderSpec(BERT, concatenated_biases=True)])
def test_the_last_layer_of_one_query_computes_position_0(spec: EncoderSpec) -> None:
    """Without its keys and values, and with biases in either order; drawn weights that do not sum to one too."""
    rng = np.random.default_rng(1)
    values = {**texts(9), **{name: rng.normal(size=shape) * 0.3 for name, shape in SHAPES.items()}}
    mask = rng.integers(2, size=(4 * BERT.num_heads, 1, 9)).astype(np.float32)
    answers = []
    for form, first_only in ((Form("portable", erf=False), False), (Form("training", erf=False), True)):
        encoded = mx.sym.load_json(encoder_graph(spec, form, first_only=first_only).to_json())
        symbol = mx.sym.slice_axis(encoded, axis=1, begin=0, end=1, name="first")
        graph = SymbolGraph.parse(symbol.tojson())
        names = feed_dropout_masks(graph).probabilities
        fed = mx.sym.load_json(graph.to_json())
        shapes, _, _ = fed.infer_shape(**{name: array.shape for name, array in texts(9).items()})
        ones: dict[str, Array] = {
            name: np.ones(shape) for name, shape in zip(fed.list_arguments(), shapes) if name in names
        }
        last = f"bertencoder0_transformer{BERT.num_layers - 1}_attention_dropout_mask"
        if first_only:
            ones[last] = mask.reshape(ones[last].shape)
        else:
            ones[last] = np.broadcast_to(mask, (mask.shape[0], 9, 9)).reshape(ones[last].shape)
        answers.append(run(fed, {**values, **ones}))
    (expected, gradients), (found, fast) = answers
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(expected).max() > 0.5
    assert_close(fast, gradients)


@pytest.mark.parametrize("shape", [(5, 8), (3, 4, 8)])
def test_layer_norm_from_products_is_layer_norm(shape: tuple[int, ...]) -> None:
    names = ("x", "gamma", "beta")
    symbol = mx.sym.LayerNorm(*map(mx.sym.var, names), eps=1e-3, name="norm")
    graph = SymbolGraph.parse(symbol.tojson())
    decompose_layer_norm(graph, {"gamma": (8,), "beta": (8,)})
    assert not graph.find(op="LayerNorm")
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(8,)) for name in ("gamma", "beta")}
    values["x"] = rng.normal(3, 2, size=shape)
    expected, gradients = run(symbol, values)
    found, others = run(mx.sym.load_json(graph.to_json()), values)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert_close(others, gradients, 1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_layer_norm_over_another_axis_stays(axis: int) -> None:
    symbol = mx.sym.LayerNorm(mx.sym.var("x"), mx.sym.var("gamma"), mx.sym.var("beta"), axis=axis)
    graph = SymbolGraph.parse(symbol.tojson())
    decompose_layer_norm(graph, {"gamma": (8,), "beta": (8,)})
    assert graph.find(op="LayerNorm")


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_a_mask_drops_its_share_and_keeps_the_mean(p: float) -> None:
    mask = np.empty((1000, 401), np.float32)
    sample_dropout_mask(np.random.default_rng(0), p, mask)
    assert (mask == 0).mean() == pytest.approx(p, abs=4e-3)
    assert mask.mean() == pytest.approx(1, abs=8e-3)
    assert np.unique(mask) == pytest.approx([0, 1 / (1 - p)], rel=1e-4)


@pytest.mark.parametrize("axes", [(), (1,), (0, 2)])
def test_a_mask_is_shared_along_the_axes_that_its_dropout_names(axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    data, mask = (rng.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(2))
    graph = SymbolGraph.parse(mx.sym.Dropout(mx.sym.var("data"), p=0.25, axes=axes, name="drop").tojson())
    assert feed_dropout_masks(graph).probabilities == {"drop_mask": 0.25}
    symbol = mx.sym.load_json(graph.to_json())
    shapes, outputs, _ = symbol.infer_shape(data=(2, 3, 4))
    assert (shapes, outputs) == ([(2, 3, 4)] * 2, [(2, 3, 4)])
    executor = symbol.bind(mx.cpu(), {"data": mx.nd.array(data), "drop_mask": mx.nd.array(mask)}, grad_req="null")
    first = mask[tuple(slice(1) if axis in axes else slice(None) for axis in range(3))]
    np.testing.assert_array_equal(executor.forward()[0].asnumpy(), data * first)


def test_masks_of_one_seed_are_the_same_and_those_of_another_are_not() -> None:
    drawn = []
    for seed in (0, 0, 1):
        mask = np.empty((64, 32), np.float32)
        sample_dropout_mask(np.random.default_rng(seed), 0.5, mask)
        drawn.append(mask)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_only_gelu_is_fused_in_a_graph_without_a_bert() -> None:
    symbol = mx.sym.FullyConnected(mx.sym.var("x"), num_hidden=3, name="fc")
    graph = SymbolGraph.parse(symbol.tojson())
    assert accelerate_graph(graph, {"fc_weight": (3, 2), "fc_bias": (3,)}, "training").to_json() == graph.to_json()
