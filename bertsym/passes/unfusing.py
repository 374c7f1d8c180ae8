"""Replace oneDNN's fused operators that compute in float32 by the operators that they were fused from."""

from __future__ import annotations

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output, free_name
from bertsym.symbol.quantized_layers import fused_layers


def unfuse_float32_layers(graph: SymbolGraph) -> int:
    """Replace fused float32 layers by the original operators, and give int8 layers the names of the original ones.

    In place. MXNet fuses the operators again when it binds the graph. Raises ModelError as `fused_layers` does.
    """
    layers = fused_layers(graph)
    unfused = 0
    with graph.edit():
        graph.rename({node.name: layer.name for node, layer in layers.items() if layer.quantized})
        for node, layer in layers.items():
            if not layer.quantized:
                inputs = list(node.inputs)
                taken = {other.name for other in graph.nodes}
                for operator in layer.operators:
                    last = graph.add(operator.op, free_name(operator.name, taken), inputs, operator.attrs)
                    inputs = [Output(last)]
                graph.rewire(node, last)
                graph.remove(node)
                unfused += 1
    return unfused
