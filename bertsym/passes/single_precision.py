"""Let a graph compute in float32 what it computes in float16."""

from __future__ import annotations

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.validation import DTYPES

_FLAGS = {dtype: str(flag) for flag, dtype in DTYPES.items()}


def compute_in_float32(graph: SymbolGraph) -> int:
    """Declare what a graph declares as float16 as float32, in place; returns how many attributes were changed."""
    changed = 0
    attributes = {"__dtype__": (_FLAGS["float16"], _FLAGS["float32"]), "dtype": ("float16", "float32")}
    with graph.edit():
        for node in graph.nodes:
            for name, (half, single) in attributes.items():
                if node.attrs.get(name) == half:
                    graph.set_attribute(node, name, single)
                    changed += 1
    return changed
