"""Gelu as one operator or as a formula with erf: each is recognised and replaced with the other without loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bertsym.acceleration.graphs import accelerate_graph
from bertsym.mxnet_runtime import mx
from bertsym.passes.gelu import decompose_gelu, fuse_gelu
from bertsym.symbol.graph import SymbolGraph

X = np.linspace(-6, 6, 97, dtype=np.float32).reshape(1, -1)
EXACT = np.array([[x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in X[0]]])


def one_operator() -> SymbolGraph:
    net = mx.sym.LeakyReLU(mx.sym.var("x") * 1.0, act_type="gelu", name="gelu")
    return SymbolGraph.parse(mx.sym.LeakyReLU(net, act_type="leaky", slope=1.0, name="end").tojson())


def answer(graph: SymbolGraph) -> Any:
    symbol = mx.sym.load_json(graph.to_json())
    return symbol.bind(mx.cpu(), {"x": mx.nd.array(X)}).forward()[0].asnumpy()


def test_operator_and_formula_compute_the_exact_gelu() -> None:
    graph = one_operator()
    np.testing.assert_allclose(answer(graph), EXACT, atol=1e-6)
    decompose_gelu(graph)
    assert [node.op for node in graph.nodes if node.op == "LeakyReLU"] == ["LeakyReLU"]  # the other one
    np.testing.assert_allclose(answer(graph), EXACT, atol=1e-6)


def test_fusing_undoes_decomposing() -> None:
    graph = one_operator()
    before = graph.to_json()
    assert decompose_gelu(graph) == 1
    assert graph.node("gelu").op == "elemwise_mul"
    assert fuse_gelu(graph) == 1
    assert graph.to_json() == before


def test_names_of_other_nodes_are_kept() -> None:
    graph = one_operator()
    graph.rename({"end": "gelu_half"})
    decompose_gelu(graph)
    assert graph.output_names == ["gelu_half"]
    assert graph.node("gelu_half_").op == "_mul_scalar"
    np.testing.assert_allclose(answer(graph), EXACT, atol=1e-6)


@pytest.mark.parametrize(
    ("node", "scalar"), [("gelu_half", "0.4"), ("gelu_plus", "2.0"), ("gelu_scaled", "1.5"), ("gelu_half", "x")]
)
def test_a_subgraph_that_is_not_quite_gelu_is_unchanged(node: str, scalar: str) -> None:
    graph = one_operator()
    decompose_gelu(graph)
    graph.set_attribute(graph.node(node), "scalar", scalar)
    before = graph.to_json()
    assert fuse_gelu(graph) == 0
    assert graph.to_json() == before


def test_gelu_of_two_tensors_is_left_alone() -> None:
    graph = one_operator()
    decompose_gelu(graph)
    graph.set_inputs(graph.node("gelu_half"), [graph.node("x")])
    fuse_gelu(graph)
    assert graph.node("gelu").op == "elemwise_mul"


def test_a_part_of_gelu_that_is_read_elsewhere_stays() -> None:
    graph = one_operator()
    decompose_gelu(graph)
    graph.set_outputs([graph.node("end"), graph.node("gelu_erf")])
    fuse_gelu(graph)
    assert graph.node("gelu").op == "LeakyReLU"
    assert graph.node("gelu_erf").op == "erf"


def test_a_symbol_is_run_with_one_operator() -> None:
    graph = one_operator()
    decompose_gelu(graph)
    run = accelerate_graph(graph, {}, "training")
    assert not run.find(op="erf")
    assert run.output_names == ["end"]
