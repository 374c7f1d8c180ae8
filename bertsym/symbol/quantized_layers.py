"""Graphs that MXNet's quantization made: FullyConnected in int8, with what it reads and writes in float32.

MXNet (src/operator/subgraph/mkldnn of 1.9.1) writes such a layer as one operator, whose subgraph is the
FullyConnected and perhaps an activation. Its inputs are the data, the weight and the bias, then the least and the
greatest value of the data, and, where the weight itself is int8, those of weight and bias.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from bertsym.errors import ModelError
from bertsym.symbol.attributes import flag
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Node, Output

FUSED = "_sg_mkldnn_fully_connected"
#: operators that quantization adds to a graph
OPERATORS = frozenset({FUSED, "_contrib_quantize_v2"})
_ACTIVATIONS = frozenset({"LeakyReLU", "Activation"})


@dataclass(frozen=True)
class FusedLayer:
    """The original operators of a fused one."""

    name: str  #: of the original FullyConnected
    quantized: bool  #: whether it computes in int8
    operators: tuple[Node, ...]  #: the FullyConnected and perhaps an activation, as nodes of the subgraph


def fused_layers(graph: SymbolGraph) -> dict[Node, FusedLayer]:
    """Find the original operators of each fused one; raises ModelError, naming the node, for any other subgraph."""
    return {node: _layer(node) for node in graph.find(op=FUSED)}


def quantized_layers(graph: SymbolGraph) -> list[str]:
    """List the names of the fused operators that compute in int8."""
    return [node.name for node in graph.find(op=FUSED) if _is_quantized(node)]


def _is_quantized(node: Node) -> bool:
    return flag(node.attrs, "quantized", False)


def _layer(node: Node) -> FusedLayer:
    subgraphs = node.raw.get("subgraphs")
    if not isinstance(subgraphs, list) or len(subgraphs) != 1:
        raise ModelError(f"node {node.name!r} ({FUSED}) has no subgraph")
    inside = SymbolGraph.parse(json.dumps(subgraphs[0]), f"the subgraph of node {node.name!r}")
    operators = [each for each in inside.nodes if not each.is_variable]
    if (
        not 1 <= len(operators) <= 2
        or operators[0].op != "FullyConnected"
        or [entry.node.op for entry in operators[0].inputs] != [VARIABLE] * 3
        or any(each.op not in _ACTIVATIONS or each.inputs != (Output(operators[0]),) for each in operators[1:])
        or inside.outputs != [Output(operators[-1])]
    ):
        raise ModelError(f"node {node.name!r} ({FUSED}) is not a FullyConnected with a bias and at most an activation")
    return FusedLayer(operators[0].name, _is_quantized(node), tuple(operators))
