"""Attention of folded encoders, in float32 and in int8, by MXNet's interleaved operators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_files import token_inputs

from bertsym import Bundle, ModelError, SymbolGraph
from bertsym.acceleration.graphs import accelerate_graph, to_symbol
from bertsym.acceleration.inference_symbols import FastInference
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.array import Array
from bertsym.execution.engines.mxnet import compute
from bertsym.passes.attention_interleaving import interleave_attention
from bertsym.passes.qkv_folding import fold_qkv
from bertsym.symbol.params import shapes_of

QK = "_contrib_interleaved_matmul_selfatt_qk"


def folded(prefix: Path) -> tuple[SymbolGraph, dict[str, Array]]:
    """The fast graph of a bundle without dropout, with query, key and value folded, and its parameters."""
    bundle = Bundle.open(prefix)
    params = dict(bundle.params())
    graph = accelerate_graph(bundle.graph(), shapes_of(params), "fast")
    for node in graph.find(op="Dropout"):
        graph.remove(node, bypass=True)
    return graph, fold_qkv(graph, params).arg_params


@pytest.mark.parametrize(("output", "layers"), [("sequence", 2), ("cls", 1)])
def test_outputs_stay_the_same(bundles: dict[str, Path], output: str, layers: int) -> None:
    """A last layer for position 0 alone stays as it is."""
    graph, params = folded(bundles[output])
    inputs = token_inputs(4, 13, 30)
    (expected,) = compute(graph.to_json(), "it", False, params, inputs)
    interleaved = interleave_attention(graph, shapes_of(params))
    assert (len(interleaved.derived), len(graph.find(op=QK))) == (2 * layers, layers)
    graph.toposort()
    params.update(interleaved.parameters(params))
    read = {name: array for name, array in params.items() if name in graph.variables}
    (found,) = compute(graph.to_json(), "it", False, read, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_graph_whose_inner_layers_are_read_stays_as_it_is(bundles: dict[str, Path]) -> None:
    graph, params = folded(bundles["sequence"])
    encoder = require_encoder(graph, shapes_of(params))
    graph.set_outputs([*graph.outputs, encoder.layers[0].output])
    before = graph.to_json()
    with pytest.raises(ModelError, match="is read outside of the next layer"):
        interleave_attention(graph, shapes_of(params))
    assert graph.to_json() == before


def test_int8_bundles_are_predicted_so_and_answer_as_their_file(int8_classifier: Callable[..., Path]) -> None:
    bundle = Bundle.open(int8_classifier())
    fast = FastInference(to_symbol(bundle.graph()), bundle.params().shapes)
    assert QK in fast.symbols.padded.tojson()
    inputs = token_inputs(4, 13, 30)
    (expected,) = compute(bundle.graph().to_json(), "it", False, dict(bundle.params()), inputs)
    params = fast.parameters(bundle.params())
    (found,) = compute(fast.symbols.padded.tojson(), "it", False, params, inputs)
    np.testing.assert_allclose(found, expected, atol=0.05)  # ties may be rounded differently


def test_weights_of_one_scale_stay_as_they_are(int8_classifier: Callable[..., Path]) -> None:
    """They can't hold the scale of the query, which the interleaved operator applies itself."""
    bundle = Bundle.open(int8_classifier("tensor-wise"))
    fast = FastInference(to_symbol(bundle.graph()), bundle.params().shapes)
    assert QK not in fast.symbols.padded.tojson()
