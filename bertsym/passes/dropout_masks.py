"""Dropout by masks that are inputs of the graph: MXNet's own operator draws its numbers on one thread."""

from __future__ import annotations

import numpy as np

from bertsym.symbol.attributes import decimal, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import free_name
from bertsym.symbol.params import Array

_DEFAULT_P = 0.5  # of MXNet's Dropout
_WORD = 1 << 16  # a mask's number is drawn with so many steps


def feed_dropout_masks(graph: SymbolGraph) -> dict[str, float]:
    """Let each Dropout be a product with a new input, in place; name of the input -> probability of a zero in it.

    A mask has the shape of what is dropped, and holds 0 or 1 / (1 - p); along the ``axes`` of a Dropout its first value
    stands for all.
    """
    masks = {}
    with graph.edit():
        for node in graph.find(op="Dropout"):
            p, axes, data = decimal(node.attrs, "p", _DEFAULT_P), integers(node.attrs, "axes"), node.inputs[0]
            name = free_name(f"{node.name}_mask", {other.name for other in graph.nodes})
            mask = factor = graph.add_variable(name)
            if axes:  # the shape of the mask is inferred from the sum
                zeros = graph.add("zeros_like", f"{name}_zeros", [data])
                factor = graph.add("elemwise_add", f"{name}_shaped", [zeros, mask])
            for axis in axes:
                attrs = {"axis": str(axis), "begin": "0", "end": "1"}
                factor = graph.add("slice_axis", f"{name}_axis{axis}", [factor], attrs)
            graph.replace(node, "broadcast_mul" if axes else "elemwise_mul")
            graph.set_inputs(node, [data, factor])
            masks[mask.name] = p
    return masks


def draw_dropout_mask(generator: np.random.Generator, p: float, out: Array) -> None:
    """Fill a float32 mask: 0 with probability p, to 1/65536, and otherwise the number that keeps the mean at 1."""
    dropped = min(round(p * _WORD), _WORD - 1)
    words = generator.integers(1 << 64, size=-(-out.size // 4), dtype=np.uint64, endpoint=False)
    kept = words.view(np.uint16)[: out.size].reshape(out.shape) >= dropped
    np.multiply(kept, np.float32(_WORD / (_WORD - dropped)), out=out)
