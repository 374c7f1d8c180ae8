"""Clip the inputs of a BERT inside its graph: no input can then make MXNet access memory out of bounds."""

from __future__ import annotations

from bertsym.analysis.input_clips import (
    clipped_ids,
    clipped_lengths,
    is_length_clipped,
    table_rows,
    unclipped_embeddings,
)
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name


def add_input_guard(graph: SymbolGraph, token_ids: str, token_types: str | None, valid_length: str | None) -> int:
    """Clip the named inputs, in place: ids to the rows of the embeddings that they index, lengths to [1, T].

    T is the number of columns of `token_ids`. NaN becomes length 1; as an id, Embedding takes it for 0. All operators
    exist in MXNet 1.4. An input that is already clipped is left as it is.
    """
    added = 0
    with graph.edit():
        for embedding, name in unclipped_embeddings(graph, {token_ids, token_types}):
            limits = {"a_max": str(float(table_rows(embedding) - 1)), "a_min": "0.0"}
            clip = _add(graph, "clip", f"{name}_clipped", [embedding.inputs[0]], limits)
            graph.set_inputs(embedding, [Output(clip), *embedding.inputs[1:]])
            added += 1
        if valid_length is not None and not is_length_clipped(graph, valid_length):
            _clip_lengths(graph, token_ids, valid_length)
            added += 1
    graph.toposort()
    return added


def remove_input_guard(graph: SymbolGraph) -> int:
    """Remove the clips that `add_input_guard` added, in place: for inputs that the caller has checked."""
    removed = 0
    with graph.edit():
        for embedding in graph.find(op="Embedding"):
            ids = clipped_ids(embedding)
            if ids is not None:
                graph.set_inputs(embedding, [ids, *embedding.inputs[1:]])
                removed += 1
        for node in list(graph.nodes):
            lengths = clipped_lengths(Output(node))
            if lengths is not None:
                graph.rewire(node, lengths)
                removed += 1
        graph.cleanup()
    return removed


def _clip_lengths(graph: SymbolGraph, token_ids: str, valid_length: str) -> None:
    variable, name = graph.variable(valid_length), valid_length
    place = graph.cut(variable, _free(graph, f"{name}_clipped"))
    # The casts let callers bind integers of any dtype.
    number = _add(graph, "Cast", f"{name}_float", [variable], {"dtype": "float32"})
    condition = _add(graph, "_greater_equal_scalar", f"{name}_positive", [number], {"scalar": "1.0"})
    ones = _add(graph, "ones_like", f"{name}_ones", [number])
    # `where` and not clip or maximum, which let NaN pass.
    positive = _add(graph, "where", f"{name}_at_least_one", [condition, number, ones])
    tokens = _add(graph, "ones_like", f"{token_ids}_ones", [graph.variable(token_ids)])
    tokens = _add(graph, "Cast", f"{token_ids}_ones_float", [tokens], {"dtype": "float32"})
    longest = _add(graph, "sum", f"{token_ids}_length", [tokens], {"axis": "1"})
    end = _add(graph, "broadcast_minimum", f"{name}_at_most_length", [positive, longest])
    graph.rewire(place, end)
    graph.remove(place)


def _add(
    graph: SymbolGraph, op: str, name: str, inputs: list[Output | Node], attrs: dict[str, str] | None = None
) -> Node:
    return graph.add(op, _free(graph, name), inputs, attrs)


def _free(graph: SymbolGraph, name: str) -> str:
    return free_name(name, {node.name for node in graph.nodes})
