"""What each tensor behind the encoder is: which tokens it comes from, in which axes.

An abstract run of the graph from the encoder's last layer on, by the rules of `following`. A tensor that they
don't cover is left unknown, so that nothing is claimed of it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from bertsym.analysis.encoder_detection import ADDITIONS, INTERLEAVED, DetectedEncoder
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes, Axis
from bertsym.analysis.token_flow_rules import RULES, Scene, Trace, combined
from bertsym.symbol.attributes import integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

__all__ = [
    "BATCH",
    "LENGTH",
    "MAX_STEPS",
    "Axes",
    "Axis",
    "Trace",
    "Traces",
    "dependents",
    "exchanges",
    "is_time_major",
    "sources",
    "trace",
]

MAX_STEPS = 256  #: between the encoder and a tensor that is followed: each tensor has a list of its own of them

Traces = dict[Output, Trace]
# Operators of whose inputs only the shape matters, and how many of the first do not.
_SHAPE_ONLY = {
    "_contrib_arange_like": 0,
    "_ones_like": 0,
    "_zeros_like": 0,
    "broadcast_like": 1,
    "ones_like": 0,
    "reshape_like": 1,
    "shape_array": 0,
    "size_array": 0,
    "slice_like": 1,
    "zeros_like": 0,
}


def trace(graph: SymbolGraph, encoder: DetectedEncoder, params: Mapping[str, Any] | None = None) -> Traces:
    """The traces of the encoder's output and of what is computed of it. `params` are arrays by name."""
    scene = Scene(graph, encoder, params)
    units: Axis = encoder.units if encoder.units is not None else "U"
    axes: Axes = (LENGTH, BATCH, units) if is_time_major(graph, encoder) else (BATCH, LENGTH, units)
    traces: Traces = {encoder.output: Trace(axes, "all")}
    if encoder.layers[-1].first_only:
        traces[encoder.output] = Trace((BATCH, 1, units), "position", 0)
    within = dependents(graph, encoder.token_embedding)
    behind = dependents(graph, encoder.output.node)
    for node in graph.nodes:
        if node not in behind or node is encoder.output.node:
            continue
        known = [traces.get(entry) for entry in node.inputs]
        # What also reads an unknown part of the encoder can't be told.
        if any(found is None and entry.node in within for entry, found in zip(node.inputs, known)):
            continue
        first, rule = known[0], RULES.get(node.op)
        if rule is not None and first is not None and not any(known[1:]):
            for index in range(node.num_outputs if node.op in ("SliceChannel", "split") else 1):
                result = rule(node, first, scene, index)
                if result is not None and len(result.steps) <= MAX_STEPS:
                    traces[Output(node, index)] = result
        elif rule is None:
            result = combined(node, known, scene)
            if result is not None and len(result.steps) <= MAX_STEPS:
                traces[Output(node)] = result
    return traces


def dependents(graph: SymbolGraph, start: Node) -> set[Node]:
    """The node itself and all whose values, and not just their shapes, depend on it."""
    seen = {start}
    for node in graph.nodes:
        if any(entry.node in seen for entry in node.inputs[: _SHAPE_ONLY.get(node.op)]):
            seen.add(node)
    return seen


def sources(node: Node, stop: Container[Node] = ()) -> set[Node]:
    """The node itself and all on whose values, and not just their shapes, it depends; none before `stop`."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        other = waiting.pop()
        if other not in seen and other not in stop:
            seen.add(other)
            waiting += [entry.node for entry in other.inputs[: _SHAPE_ONLY.get(other.op)]]
    return seen


def is_time_major(graph: SymbolGraph, encoder: DetectedEncoder) -> bool:
    """Whether the encoder runs as (T, N, U): an odd number of exchanges between the words and its end."""
    if any(node.op == INTERLEAVED for node in encoder.layers[-1].nodes):
        return True  # the operator takes no other order
    major = {Output(encoder.token_embedding): False}
    for node in graph.nodes:
        # Along the residual connections, what is added has the axes of what it is added to.
        known = [major[entry] for entry in node.inputs if entry in major]
        if known and (node.op in ADDITIONS or node.op in _KEEPING or node.op in _EXCHANGING):
            major[Output(node)] = known[0] ^ exchanges(node)
    return major.get(encoder.output, False)


_EXCHANGING = frozenset({"transpose", "SwapAxis", "swapaxes"})
_KEEPING = frozenset({"Dropout", "LayerNorm", "Cast", "cast", "amp_cast", "_copy", "identity", "BlockGrad"}) | {
    "SequenceMask",
    "_mul_scalar",
    "broadcast_mul",
    "elemwise_mul",
}


def exchanges(node: Node) -> bool:
    """Whether a node exchanges the first two axes."""
    if node.op == "transpose":
        axes = integers(node.attrs, "axes")
        return axes[:2] == (1, 0)
    return node.op in _EXCHANGING and {integer(node.attrs, "dim1", 0), integer(node.attrs, "dim2", 0)} == {0, 1}
