"""ALBERT's layers read the same parameters: what training, folding, int8 and inference make of them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from third_party import random_weight

from bertsym import BertConfig
from bertsym.acceleration.graphs import accelerate_graph, build_training_symbol, to_symbol
from bertsym.acceleration.inference_symbols import FastInference
from bertsym.array import Array
from bertsym.encoders.catalogue import LABEL_NAME
from bertsym.encoders.graph_heads import graft_onto_graph
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.outputs import output_graph
from bertsym.encoders.parameters import parameter_shapes, shared_name
from bertsym.mxnet_runtime import mx, quiet_stderr
from bertsym.passes.qkv_folding import fold_qkv
from bertsym.quantization.graph_quantizer import GraphQuantizer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import shapes_of

#: more layers than MXNet adds gradients of in one operator
SHARED = BertConfig(
    num_layers=12,
    units=8,
    hidden_size=12,
    num_heads=2,
    vocab_size=30,
    max_length=16,
    dropout=0.0,
    attention_dropout=0.0,
    activation="gelu_tanh",
    family="albert",
    embedding_size=4,
    shares_layers=True,
)
OWN = dataclasses.replace(SHARED, shares_layers=False)  # each layer has a copy
PARAMS = {name: random_weight(name, shape) for name, shape in parameter_shapes(SHARED, pooler=False).items()}
PARAMS |= {"fc-finetune_weight": random_weight("w", (2, 8)), "fc-finetune_bias": random_weight("b", (2,))}
RNG = np.random.default_rng(0)
INPUTS: dict[str, Array] = {
    "data0": RNG.integers(30, size=(3, 9)).astype(np.float32),
    "data1": RNG.integers(2, size=(3, 9)).astype(np.float32),
    "data2": np.array([9, 1, 5], np.float32),
}


def graphs(config: BertConfig) -> tuple[SymbolGraph, SymbolGraph, dict[str, Array]]:
    """A classifier for inference and for training, and its parameters."""
    encoder = output_graph(config, "cls")
    inference, training, _ = graft_onto_graph(encoder, encoder.outputs[0], "classification", 2, 0.0, config.units)
    names = set(inference.variables) - {*INPUT_NAMES}
    return inference, training, {name: PARAMS.get(name, PARAMS[shared_name(name)]) for name in names}


def run(symbol: Any, params: dict[str, Array], labels: Array | None = None) -> tuple[Array, dict[str, Array]]:
    """The output of a symbol and the gradients of its parameters."""
    arrays = {**params, **INPUTS, **({} if labels is None else {LABEL_NAME: labels})}
    arrays["dropout-finetune_mask"] = np.ones((3, 8), np.float32)  # of the symbol that is trained
    arguments = {name: mx.nd.array(arrays[name], dtype=arrays[name].dtype) for name in symbol.list_arguments()}
    gradients = {name: mx.nd.zeros(arguments[name].shape) for name in params} if labels is not None else {}
    with quiet_stderr():
        executor = symbol.bind(mx.cpu(), arguments, gradients, "write" if gradients else "null")
    executor.forward(is_train=bool(gradients))
    if gradients:
        executor.backward()
    return executor.outputs[0].asnumpy(), {name: array.asnumpy() for name, array in gradients.items()}


def test_the_gradient_of_a_shared_parameter_is_the_sum_over_the_layers() -> None:
    """In the form that is written and in the form that is trained, which agree with each other."""
    labels = np.array([0, 1, 1], np.float32)
    written: dict[str, Array] = {}
    for is_fast in (False, True):
        found = []
        for config in (SHARED, OWN):
            _, training, params = graphs(config)
            symbol = build_training_symbol(training, shapes_of(params)).symbol if is_fast else to_symbol(training)
            found.append(run(symbol, params, labels))
        (output, gradients), (expected_output, own) = found
        assert np.array_equal(output, expected_output)
        sums: dict[str, Array] = {}
        for name, gradient in own.items():
            sums[shared_name(name)] = sums.get(shared_name(name), 0) + gradient.astype(np.float64)
        written = written or sums
        assert gradients.keys() == sums.keys()
        for name, expected in sums.items():
            # The gradient of a key's bias is rounding noise.
            scale = np.abs(sums[re.sub("key_bias$", "query_bias", name)]).max()
            assert np.abs(gradients[name] - expected).max() <= 1e-5 * scale, name
            assert np.abs(gradients[name] - written[name]).max() <= 1e-3 * scale, name


@pytest.mark.parametrize("granularity", ["tensor-wise", "channel-wise"])
def test_int8_layers_with_shared_weights_compute_what_layers_with_copies_compute(granularity: str) -> None:
    """Also where some of the layers that share a weight stay in float32."""
    outputs: list[list[Array]] = []
    for config in (dataclasses.replace(SHARED, num_layers=4), dataclasses.replace(OWN, num_layers=4)):
        inference, _, params = graphs(config)
        graph = accelerate_graph(inference, shapes_of(params), "fast")
        with graph.edit():
            for node in graph.find(op="Dropout"):
                graph.remove(node, bypass=True)
        quantizer = GraphQuantizer(graph, fold_qkv(graph, params).arg_params, granularity == "channel-wise")
        quantizer.calibrate([INPUTS], "naive")
        outside = [name for name in quantizer.layers if "transformer" not in name]  # MXNet crashes with these in int8
        some = [name for i, name in enumerate(quantizer.layers) if i % 3 == 0 or name in outside]
        outputs.append([])
        for kept in (outside, some, quantizer.layers):
            int8, arrays = quantizer.quantized(kept)
            outputs[-1].append(run(to_symbol(int8), arrays)[0])
    shared, own = outputs
    for found, expected in zip(shared, own):
        assert np.array_equal(found, expected)
    assert not np.array_equal(shared[0], shared[2])
    assert not np.array_equal(shared[1], shared[2])


def test_a_shared_weight_is_folded_once_and_computed_once_for_inference() -> None:
    inference, _, params = graphs(SHARED)
    graph, _ = inference.copied()
    folded = fold_qkv(graph, params)
    assert folded.layers == 12
    assert [name for name in folded.arg_params if "query" in name] == [
        f"bertencoder0_transformer0_dotproductselfattentioncell0_query_key_value_{part}" for part in ("weight", "bias")
    ]
    fast = FastInference(to_symbol(inference), shapes_of(params))
    computed = [name for name in fast.parameters(params) if "query_key_value_weight" in name]
    assert len(computed) == 1
    expected, _ = run(to_symbol(inference), params)
    found, _ = run(fast.symbols.padded, fast.parameters(params))
    assert np.abs(found - expected).max() < 1e-5
    few, _ = run(fast.symbols.few, fast.parameters(params))
    assert np.abs(few - expected).max() < 1e-5
