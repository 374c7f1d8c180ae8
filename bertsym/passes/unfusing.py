"""Replace oneDNN's fused operators with the operators that they were fused from."""

from __future__ import annotations

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.quantized_layers import QUANTIZE, FusedLayer, check_integer_readers, fused_layers


def unfuse_float32_layers(graph: SymbolGraph) -> int:
    """Replace fused float32 layers with the original operators, and give int8 layers the names of the original ones.

    In place. MXNet fuses the operators again when it binds the graph. Raises ModelError as `fused_layers` does.
    """
    layers = fused_layers(graph)
    with graph.edit():
        graph.rename({node.name: layer.name for node, layer in layers.items() if layer.quantized})
        float32 = {node: layer for node, layer in layers.items() if not layer.quantized}
        for node, layer in float32.items():
            _unfuse(graph, node, layer, list(node.inputs))
            graph.remove(node)
    return len(float32)


def dequantize_layers(graph: SymbolGraph) -> int:
    """Replace fused layers with the original operators, of float32 data that is not rounded, in place.

    Raises ModelError as `fused_layers` and `check_integer_readers` do.
    """
    check_integer_readers(graph)
    layers = fused_layers(graph)
    with graph.edit():
        for node, layer in layers.items():
            data = node.inputs[0]
            source = data.node.inputs[0] if data.node.op == QUANTIZE else data
            _unfuse(graph, node, layer, [source, *node.inputs[1:3]])
        graph.cleanup()  # the next layer read the range of one before
    return len(layers)


def _unfuse(graph: SymbolGraph, node: Node, layer: FusedLayer, inputs: list[Output]) -> None:
    """Let the readers of a fused layer read the original operators of `inputs`."""
    taken = {other.name for other in graph.nodes}
    for operator in layer.operators:
        last = graph.add(operator.op, free_name(operator.name, taken), inputs, operator.attrs)
        inputs = [Output(last)]
    graph.rewire(node, last)
