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

FUSED, QUANTIZE = "_sg_mkldnn_fully_connected", "_contrib_quantize_v2"
#: operators that quantization adds to a graph
OPERATORS = frozenset({FUSED, QUANTIZE})
_ACTIVATIONS = frozenset({"LeakyReLU", "Activation"})


@dataclass(frozen=True)
class FusedLayer:
    """The original operators of a fused one."""

    name: str  #: of the original FullyConnected
    quantized: bool  #: whether it computes in int8
    operators: tuple[Node, ...]  #: the FullyConnected and perhaps an activation, as nodes of the subgraph

    @classmethod
    def of(cls, node: Node) -> FusedLayer:
        """Read a fused operator; raises ModelError, naming the node, for any other subgraph."""
        return _layer(node)

    @property
    def activation(self) -> str | None:
        """The kind of the activation, such as ``gelu`` or ``relu``; None without one."""
        return self.operators[1].attrs.get("act_type", "") if len(self.operators) > 1 else None


def fused_layers(graph: SymbolGraph) -> dict[Node, FusedLayer]:
    """Find the original operators of each fused one; raises ModelError, naming the node, for any other subgraph."""
    return {node: _layer(node) for node in graph.find(op=FUSED)}


def quantized_layers(graph: SymbolGraph) -> list[str]:
    """List the names of the fused operators that compute in int8."""
    return [node.name for node in int8_nodes(graph)]


def int8_nodes(graph: SymbolGraph) -> list[Node]:
    """List the fused operators that compute in int8."""
    return [node for node in graph.find(op=FUSED) if _is_quantized(node)]


def check_integer_readers(graph: SymbolGraph) -> None:
    """Raise ModelError, naming the node, for an operator that computes with integers without being an int8 layer."""
    for node in graph.nodes:
        if node.op != FUSED and any(_gives_integers(entry.node) for entry in node.inputs):
            raise ModelError(f"node {node.name!r} ({node.op}) reads int8 data without being an int8 layer")
    for output in graph.outputs:
        if _gives_integers(output.node):
            raise ModelError(f"the output {output} is int8 data")


def _gives_integers(node: Node) -> bool:
    if node.op != FUSED:
        return node.op == QUANTIZE
    return _is_quantized(node) and not flag(node.attrs, "enable_float_output", False)


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
