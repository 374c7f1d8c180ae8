"""Upgrade symbols of MXNet before 0.9, which lack auxiliary states, as MXNet does on loading them."""

from __future__ import annotations

from bertsym.errors import ModelError
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Node, Output

# Operator -> position of its first auxiliary state, and names and initializers of the states.
_STATISTICS = {"moving_mean": '["zero", {}]', "moving_var": '["one", {}]'}
_MISSING = {
    "BatchNorm": (3, _STATISTICS),
    "BatchNorm_v1": (3, _STATISTICS),
    "IdentityAttachKLSparseReg": (1, {"moving_avg": ""}),
}


def add_auxiliary_states(graph: SymbolGraph, where: str) -> list[str]:
    """Add the auxiliary states that a file of MXNet before 0.9 leaves out, in place; returns their names.

    Source: UpgradeJSON_000800_000900 in src/nnvm/legacy_json_util.cc; a file that names no version counts as 0.8 there
    too. Raises ModelError, naming `where`, when a name is taken.
    """
    version = graph.mxnet_version
    if version is not None and not version.startswith(("0.7.", "0.8.")):
        return []
    names = {node.name for node in graph.nodes}
    nodes: list[Node] = []
    added: list[str] = []
    with graph.edit():
        for node in graph.nodes:
            first, states = _MISSING.get(node.op, (None, {}))
            if len(node.inputs) == first:
                for state, initializer in states.items():
                    name = f"{node.name}_{state}"
                    if name in names:
                        raise ModelError(f"{where}: node {node.name!r} has no {state}, and the name {name!r} is taken")
                    names.add(name)
                    added.append(name)
                    nodes.append(Node(VARIABLE, name, {"__init__": initializer} if initializer else {}))
                    node.inputs = (*node.inputs, Output(nodes[-1]))
            nodes.append(node)
        graph.nodes = nodes
    return added
