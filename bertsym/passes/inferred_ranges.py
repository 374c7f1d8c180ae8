"""Ranges whose length is that of the tensor that is added to them, as GluonNLP 0.8 writes positions."""

from __future__ import annotations

from bertsym.symbol.attributes import decimal
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.operator_traits import decimal_of, flag_of, integer_of


def resolve_inferred_ranges(graph: SymbolGraph) -> int:
    """Replace each `_arange` that has `infer_range` with `_contrib_arange_like` of the tensor added to it, in place.

    MXNet infers the length of such a range from its reader, and ONNX can't. Ranges with a reader other than
    ``elemwise_add`` stay.
    """
    resolved = 0
    with graph.edit():
        for node in graph.find(op="_arange"):
            readers = graph.consumers(node)
            added = {reader: other for reader in readers if (other := _added(reader, node)) is not None}
            if not readers or len(added) < len(readers) or not _is_inferred(node):
                continue
            attrs = {"start": node.attrs.get("start", "0"), "step": node.attrs.get("step", "1"), "axis": "0"}
            for reader, other in added.items():
                name = free_name(f"{node.name}_like", {known.name for known in graph.nodes})
                found = graph.add("_contrib_arange_like", name, [other], attrs)
                graph.set_inputs(reader, [found if entry.node is node else entry for entry in reader.inputs])
            graph.set_outputs([found if entry.node is node else entry for entry in graph.outputs])
            resolved += 1
        if resolved:
            graph.cleanup()
    return resolved


def _is_inferred(node: Node) -> bool:
    """Whether the length alone is inferred, and the numbers are those of a float32 range of that length."""
    is_exact = node.attrs.get("dtype", "float32") == "float32" or all(
        number.is_integer() for number in (decimal(node.attrs, "start", 0), decimal_of(node, "step"))
    )
    is_open = flag_of(node, "infer_range") and node.attrs.get("stop", "None") == "None"
    return is_open and integer_of(node, "repeat") == 1 and is_exact


def _added(reader: Node, node: Node) -> Output | None:
    """The tensor that `reader` adds to `node`; None for another reader."""
    others = [entry for entry in reader.inputs if entry.node is not node]
    return others[0] if reader.op == "elemwise_add" and len(others) == 1 else None
