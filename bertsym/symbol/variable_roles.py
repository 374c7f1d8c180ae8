"""Find the roles of variables by the positions at which operators read them."""

from __future__ import annotations

from collections.abc import Container, Mapping

from bertsym.errors import ModelError
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node
from bertsym.symbol.operator_traits import Effect, operators_with, traits

_PARAMETER_NAMES = ("_weight", "_bias", "_gamma", "_beta", "_moving_mean", "_moving_var")
# Operators between a label and the loss.
_LAYOUT = operators_with(Effect.CAST, Effect.RESHAPE, Effect.TRANSPOSE) | {"slice_axis"}


def auxiliary_states(graph: SymbolGraph) -> list[str]:
    """List the variables that an operator changes, such as BatchNorm's moving mean; ``aux:`` in a parameter file.

    MXNet decides by the graph alone: the prefix of a name in a parameter file may be missing or wrong.
    """
    states = {
        node.inputs[position].node
        for node in graph.nodes
        for position in traits(node.op).auxiliary
        if position < len(node.inputs)
    }
    return [node.name for node in graph.nodes if node.is_variable and node in states]


def shared_auxiliary_states(graphs: Mapping[str, SymbolGraph]) -> list[str]:
    """List the auxiliary states of graphs that share one parameter file; messages name the graphs by their keys.

    Raises ModelError for a variable that is an auxiliary state in one graph and an argument in another.
    """
    states = {name: auxiliary_states(graph) for name, graph in graphs.items()}
    found = dict.fromkeys(variable for each in states.values() for variable in each)
    for name, graph in graphs.items():
        both = found.keys() & set(graph.variables).difference(states[name])
        if both:
            variable = min(both)
            other = next(other for other in graphs if variable in states[other])
            raise ModelError(
                f"{name}: {variable} is an argument, but an auxiliary state in {other}: one parameter file can't hold "
                "both; rename it in one of the graphs"
            )
    return list(found)


def label_variables(graph: SymbolGraph) -> list[str]:
    """List the variables that are read only as labels, directly or in another layout."""
    only: dict[Node, bool] = {}
    for node in reversed(graph.nodes):  # readers first
        for position, entry in enumerate(node.inputs):
            there = position == traits(node.op).label or (node.op in _LAYOUT and only.get(node, False))
            only[entry.node] = there and only.get(entry.node, True)
    return [node.name for node in graph.nodes if node.is_variable and only.get(node)]


def input_variables(graph: SymbolGraph, parameters: Container[str] = ()) -> list[str]:
    """List the variables that are neither labels nor `parameters`, and are not read or named like parameters.

    GluonNLP reshapes some weights before it uses them; then only the name shows that they are parameters.
    """
    others = {*label_variables(graph), *_parameters(graph)}
    return [
        name
        for name in graph.variables
        if name not in others and name not in parameters and not name.endswith(_PARAMETER_NAMES)
    ]


def _parameters(graph: SymbolGraph) -> list[str]:
    """List the variables that operators read only as parameters or auxiliary states."""
    found: dict[str, bool] = {}
    for node in graph.nodes:
        for position, entry in enumerate(node.inputs):
            if entry.node.is_variable:
                there = position in traits(node.op).parameters
                found[entry.node.name] = there and found.get(entry.node.name, True)
    return [name for name in graph.variables if found.get(name)]
