"""Clips inside of a graph for the inputs of a BERT, so that no value of a caller makes MXNet leave its memory."""

from __future__ import annotations

from collections.abc import Container

from bertsym.symbol.attributes import decimal, integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name

# Operators whose numbers are those of their first input, or clipped.
_KEEPING = frozenset({"Cast", "Flatten", "Reshape", "SwapAxis", "_copy", "clip", "expand_dims", "squeeze", "transpose"})


def add(graph: SymbolGraph, token_ids: str, token_types: str | None, valid_length: str | None) -> None:
    """Clip the inputs of these names, in place: ids to the rows of the tables that they index, lengths to [1, T].

    T is the number of columns of `token_ids`. NaN becomes the length 1; as an id, Embedding takes it for 0. All
    operators are in MXNet 1.4. An input that is clipped already is left so.
    """
    with graph.edit():
        for embedding, name in _unclipped(graph, {token_ids, token_types}):
            limits = {"a_max": str(float(_rows(embedding) - 1)), "a_min": "0.0"}
            clip = _add(graph, "clip", f"{name}_clipped", [embedding.inputs[0]], limits)
            graph.set_inputs(embedding, [Output(clip), *embedding.inputs[1:]])
        if valid_length is not None and not _is_clipped(graph, valid_length):
            _clip_lengths(graph, token_ids, valid_length)
    graph.toposort()


def removed(graph: SymbolGraph) -> SymbolGraph:
    """A copy without the clips that `add` put in: for inputs that are checked before they get there."""
    graph = graph.copy()
    with graph.edit():
        for embedding in graph.find(op="Embedding"):
            ids = clipped_ids(embedding)
            if ids is not None:
                graph.set_inputs(embedding, [ids, *embedding.inputs[1:]])
        for node in list(graph.nodes):
            lengths = clipped_lengths(Output(node))
            if lengths is not None:
                graph.rewire(node, lengths)
        graph.cleanup()
    return graph


def is_complete(graph: SymbolGraph, token_ids: str, token_types: str | None, valid_length: str | None) -> bool:
    """Whether every use of these inputs by which MXNet could leave its memory is clipped."""
    clipped = not _unclipped(graph, {token_ids, token_types})
    return clipped and (valid_length is None or _is_clipped(graph, valid_length))


def clipped_ids(embedding: Node) -> Output | None:
    """What an Embedding reads, before it is clipped to the rows of the table; None where it is not."""
    clip = embedding.inputs[0].node
    if clip.op != "clip" or decimal(clip.attrs, "a_min", -1) != 0:
        return None
    return clip.inputs[0] if decimal(clip.attrs, "a_max", -1) == _rows(embedding) - 1 else None


def clipped_lengths(output: Output) -> Output | None:
    """The input whose numbers a tensor holds, clipped to [1, T]; None where it is anything else."""
    found = clip_of_lengths(output)
    return found[0] if found is not None else None


def clip_of_lengths(output: Output) -> tuple[Output, Output] | None:
    """The same with the tensor, (N, T) for a T, whose columns are counted."""
    node = output.node
    if node.op != "broadcast_minimum":
        return None
    positive, longest = (entry.node for entry in node.inputs)
    if positive.op != "where" or longest.op != "sum" or integers(longest.attrs, "axis") != (1,):
        return None
    condition, number, ones = positive.inputs
    counted = _inner(longest, "Cast", "ones_like")
    at_least_one = condition.node.op == "_greater_equal_scalar" and decimal(condition.node.attrs, "scalar", 0) == 1
    same = condition.node.inputs == ones.node.inputs == (number,)
    if not (at_least_one and same and ones.node.op == "ones_like" and number.node.op == "Cast") or counted is None:
        return None
    return (number.node.inputs[0], counted.inputs[0]) if number.node.inputs[0].node.is_variable else None


def _unclipped(graph: SymbolGraph, inputs: Container[str | None]) -> list[tuple[Node, str]]:
    """Embeddings of some inputs that read them as they are fed, and which."""
    found = []
    for embedding in graph.find(op="Embedding"):
        ids = embedding.inputs[0].node
        while ids.op in _KEEPING:
            ids = ids.inputs[0].node
        if ids.name in inputs and clipped_ids(embedding) is None:
            found.append((embedding, ids.name))
    return found


def _clip_lengths(graph: SymbolGraph, token_ids: str, valid_length: str) -> None:
    variable, name = graph.variable(valid_length), valid_length
    place = graph.cut(variable, _free(graph, f"{name}_clipped"))
    # The casts let callers bind integers of any kind.
    number = _add(graph, "Cast", f"{name}_float", [variable], {"dtype": "float32"})
    condition = _add(graph, "_greater_equal_scalar", f"{name}_positive", [number], {"scalar": "1.0"})
    ones = _add(graph, "ones_like", f"{name}_ones", [number])
    # Chosen and not computed: clip and the maximum of two numbers let NaN pass.
    positive = _add(graph, "where", f"{name}_at_least_one", [condition, number, ones])
    tokens = _add(graph, "ones_like", f"{token_ids}_ones", [graph.variable(token_ids)])
    tokens = _add(graph, "Cast", f"{token_ids}_ones_float", [tokens], {"dtype": "float32"})
    longest = _add(graph, "sum", f"{token_ids}_length", [tokens], {"axis": "1"})
    end = _add(graph, "broadcast_minimum", f"{name}_at_most_length", [positive, longest])
    graph.rewire(place, end)
    graph.remove(place)


def _is_clipped(graph: SymbolGraph, name: str) -> bool:
    """Whether nothing depends on the lengths `name` but by their clipped numbers."""
    ends = {node for node in graph.nodes if (lengths := clipped_lengths(Output(node))) and lengths.node.name == name}
    inner = graph.ancestors(*(end.inputs[0].node for end in ends))
    reached = {graph.variable(name)}
    for node in graph.nodes:
        if node not in ends and any(entry.node in reached for entry in node.inputs):
            reached.add(node)
    return reached <= inner and not any(entry.node in reached for entry in graph.outputs)


def _inner(node: Node, *operators: str) -> Node | None:
    """The operator that is reached through first inputs of these kinds."""
    for op in operators:
        node = node.inputs[0].node
        if node.op != op:
            return None
    return node


def _rows(embedding: Node) -> int:
    return integer(embedding.attrs, "input_dim", 1)


def _add(
    graph: SymbolGraph, op: str, name: str, inputs: list[Output | Node], attrs: dict[str, str] | None = None
) -> Node:
    return graph.add(op, _free(graph, name), inputs, attrs)


def _free(graph: SymbolGraph, name: str) -> str:
    return free_name(name, {node.name for node in graph.nodes})
