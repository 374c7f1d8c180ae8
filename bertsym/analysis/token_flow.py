"""Follows the tokens from the encoder's output to the outputs of the graph.

An abstract run of the graph by `token_flow_rules.RULES`. A tensor that no rule covers has no trace, so that nothing is
claimed about it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import ADDITIONS, INTERLEAVED
from bertsym.analysis.flow_context import FlowContext
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes, Axis
from bertsym.analysis.token_flow_rules import RULES, trace_combination
from bertsym.analysis.trace import TokenSelection, Trace
from bertsym.symbol.attributes import integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, integer_of, operators_with, traits, with_aliases

MAX_STEPS = 256  #: of a trace; each trace has a list of its own

Traces = dict[Output, Trace]


def trace_tokens(graph: SymbolGraph, encoder: DetectedEncoder, params: Mapping[str, Any] | None = None) -> Traces:
    """Trace the encoder's output and the tensors downstream of it. `params` are arrays by name."""
    context = FlowContext(graph, encoder, params)
    units: Axis = encoder.units if encoder.units is not None else "U"
    axes: Axes = (LENGTH, BATCH, units) if is_time_major(graph, encoder) else (BATCH, LENGTH, units)
    traces: Traces = {encoder.output: Trace(axes, TokenSelection.ALL)}
    if encoder.layers[-1].first_only:
        traces[encoder.output] = Trace((BATCH, 1, units), TokenSelection.POSITION, 0)
    from_tokens = value_descendants(graph.nodes, encoder.token_embedding)
    downstream = value_descendants(graph.nodes, encoder.output.node)
    for node in graph.nodes:
        if node not in downstream or node is encoder.output.node:
            continue
        known = [traces.get(entry) for entry in node.inputs]
        # An input that depends on the tokens in an unknown way makes the result unknown.
        if any(found is None and entry.node in from_tokens for entry, found in zip(node.inputs, known)):
            continue
        first, rule = known[0], RULES.get(node.op)
        if rule is not None and first is not None and not any(known[1:]):
            for index in range(node.num_outputs if node.op in with_aliases("SliceChannel") else 1):
                result = rule(node, first, context, index)
                if result is not None and len(result.steps) <= MAX_STEPS:
                    traces[Output(node, index)] = result
        elif rule is None:
            result = trace_combination(node, known, context)
            if result is not None and len(result.steps) <= MAX_STEPS:
                traces[Output(node)] = result
    return traces


def value_descendants(nodes: Iterable[Node], start: Node) -> set[Node]:
    """The node and all of the `nodes`, in topological order, whose elements, not only their shapes, depend on it."""
    seen = {start}
    for node in nodes:
        if any(entry.node in seen for entry in node.inputs[: traits(node.op).shape_only]):
            seen.add(node)
    return seen


def value_ancestors(node: Node, stop: Container[Node] = ()) -> set[Node]:
    """The node and all nodes on whose elements, not only their shapes, it depends; none upstream of `stop`."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        other = waiting.pop()
        if other not in seen and other not in stop:
            seen.add(other)
            waiting += [entry.node for entry in other.inputs[: traits(other.op).shape_only]]
    return seen


def is_time_major(graph: SymbolGraph, encoder: DetectedEncoder) -> bool:
    """Whether the encoder computes in the layout TNC: an odd number of transposes lies between token ids and output."""
    if any(node.op == INTERLEAVED for node in encoder.layers[-1].nodes):
        return True  # the operator accepts no other layout
    major = {Output(encoder.token_embedding): False}
    for node in graph.nodes:
        # Along the residual connections, all summands have the same layout.
        known = [major[entry] for entry in node.inputs if entry in major]
        if known and (node.op in ADDITIONS or node.op in _KEEPING or node.op in _TRANSPOSES):
            major[Output(node)] = known[0] ^ swaps_batch_and_length(node)
    return major.get(encoder.output, False)


_TRANSPOSES = operators_with(Effect.TRANSPOSE)
_KEEPING = operators_with(Effect.IDENTITY, Effect.DROPOUT, Effect.CAST, Effect.MULTIPLY) | with_aliases(
    "LayerNorm", "SequenceMask", "_mul_scalar"
)


def swaps_batch_and_length(node: Node) -> bool:
    """Whether a node transposes the first two axes."""
    if node.op == "transpose":
        axes = integers(node.attrs, "axes")
        return axes[:2] == (1, 0)
    return node.op in _TRANSPOSES and {integer_of(node, "dim1"), integer_of(node, "dim2")} == {0, 1}
