"""Dropout with masks that are inputs of the graph: MXNet's own operator draws random numbers on one thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bertsym.symbol.attributes import integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import free_name
from bertsym.symbol.operator_traits import decimal_of


@dataclass(frozen=True)
class DropoutMasks:
    """The new inputs of a graph."""

    probabilities: Mapping[str, float]  #: name of the input -> probability of a zero in it


def feed_dropout_masks(graph: SymbolGraph) -> DropoutMasks:
    """Replace each Dropout with a multiplication by a new input, its mask, in place.

    A mask has the shape of the data and holds 0 or 1 / (1 - p). Along the ``axes`` of a Dropout, the first element of
    the mask is broadcast.
    """
    probabilities = {}
    with graph.edit():
        for node in graph.find(op="Dropout"):
            p, axes, data = decimal_of(node, "p"), integers(node.attrs, "axes"), node.inputs[0]
            name = free_name(f"{node.name}_mask", {other.name for other in graph.nodes})
            mask = factor = graph.add_variable(name)
            if axes:  # MXNet infers the shape of the mask from the sum
                zeros = graph.add("zeros_like", f"{name}_zeros", [data])
                factor = graph.add("elemwise_add", f"{name}_shaped", [zeros, mask])
            for axis in axes:
                attrs = {"axis": str(axis), "begin": "0", "end": "1"}
                factor = graph.add("slice_axis", f"{name}_axis{axis}", [factor], attrs)
            graph.replace(node, "broadcast_mul" if axes else "elemwise_mul")
            graph.set_inputs(node, [data, factor])
            probabilities[mask.name] = p
    return DropoutMasks(probabilities)
