"""Find the clips of a BERT's inputs that `passes.input_guard` adds."""

from __future__ import annotations

from collections.abc import Container

from bertsym.symbol.attributes import decimal, integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, operators_with

# Operators whose elements are those of their first input, possibly clipped.
_KEEPING = operators_with(Effect.IDENTITY, Effect.CAST, Effect.RESHAPE, Effect.TRANSPOSE) | {"clip"}


def is_guarded(graph: SymbolGraph, token_ids: str, token_types: str | None, valid_length: str | None) -> bool:
    """Whether these inputs are clipped before every use that MXNet does not check for out-of-bounds access."""
    clipped = not unclipped_embeddings(graph, {token_ids, token_types})
    return clipped and (valid_length is None or is_length_clipped(graph, valid_length))


def clipped_ids(embedding: Node) -> Output | None:
    """Return the ids of an Embedding before they are clipped to its rows; None if they are not clipped."""
    clip = embedding.inputs[0].node
    if clip.op != "clip" or decimal(clip.attrs, "a_min", -1) != 0:
        return None
    return clip.inputs[0] if decimal(clip.attrs, "a_max", -1) == table_rows(embedding) - 1 else None


def clipped_lengths(output: Output) -> Output | None:
    """Return the input with the lengths that a tensor holds, clipped to [1, T]; None for any other tensor."""
    found = clip_of_lengths(output)
    return found[0] if found is not None else None


def clip_of_lengths(output: Output) -> tuple[Output, Output] | None:
    """As `clipped_lengths`, with the (N, T) tensor whose columns are counted for T."""
    node = output.node
    if node.op != "broadcast_minimum":
        return None
    positive, longest = (entry.node for entry in node.inputs)
    if positive.op != "where" or longest.op != "sum" or integers(longest.attrs, "axis") != (1,):
        return None
    condition, number, ones = positive.inputs
    counted = _first_input_chain(longest, "Cast", "ones_like")
    at_least_one = condition.node.op == "_greater_equal_scalar" and decimal(condition.node.attrs, "scalar", 0) == 1
    same = condition.node.inputs == ones.node.inputs == (number,)
    if not (at_least_one and same and ones.node.op == "ones_like" and number.node.op == "Cast") or counted is None:
        return None
    return (number.node.inputs[0], counted.inputs[0]) if number.node.inputs[0].node.is_variable else None


def unclipped_embeddings(graph: SymbolGraph, inputs: Container[str | None]) -> list[tuple[Node, str]]:
    """List the embeddings that read one of `inputs` without a clip, with the name of the input."""
    found = []
    for embedding in graph.find(op="Embedding"):
        ids = embedding.inputs[0].node
        while ids.op in _KEEPING:
            ids = ids.inputs[0].node
        if ids.name in inputs and clipped_ids(embedding) is None:
            found.append((embedding, ids.name))
    return found


def is_length_clipped(graph: SymbolGraph, name: str) -> bool:
    """Whether all nodes that depend on the lengths `name` read them clipped."""
    ends = {node for node in graph.nodes if (lengths := clipped_lengths(Output(node))) and lengths.node.name == name}
    inner = graph.ancestors(*(end.inputs[0].node for end in ends))
    reached = {graph.variable(name)}
    for node in graph.nodes:
        if node not in ends and any(entry.node in reached for entry in node.inputs):
            reached.add(node)
    return reached <= inner and not any(entry.node in reached for entry in graph.outputs)


def _first_input_chain(node: Node, *operators: str) -> Node | None:
    """Follow first inputs, which must be these operators; returns the last node, or None."""
    for op in operators:
        node = node.inputs[0].node
        if node.op != op:
            return None
    return node


def table_rows(embedding: Node) -> int:
    """Return the rows of the table that an Embedding reads; 1 if its attributes do not state them."""
    return integer(embedding.attrs, "input_dim", 1)
