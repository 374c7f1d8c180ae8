"""Replace fused operators that compute in float32 by the operators that they were fused from."""

from __future__ import annotations

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output, free_name
from bertsym.symbol.quantized_layers import fused_layers


def unfuse_float32_layers(graph: SymbolGraph) -> None:
    """Write the fused operators that compute in float32 as what they stand for, in place; name the others after it.

    MXNet fuses them again when it binds the graph, and others can read it. Raises ModelError as `fused_layers`.
    """
    layers = fused_layers(graph)
    graph.rename({node.name: layer.name for node, layer in layers.items() if layer.quantized})
    with graph.edit():
        for node, layer in layers.items():
            if not layer.quantized:
                inputs = list(node.inputs)
                taken = {other.name for other in graph.nodes}
                for operator in layer.operators:
                    last = graph.add(operator.op, free_name(operator.name, taken), inputs, operator.attrs)
                    inputs = [Output(last)]
                graph.rewire(node, last)
                graph.remove(node)
