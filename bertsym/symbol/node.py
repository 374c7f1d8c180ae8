"""Nodes of a symbol graph and their outputs."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

VARIABLE = "null"  #: operator of a variable in the JSON


@dataclass(frozen=True)
class Output:
    """One output of a node: an input of another node, or an output of the graph."""

    node: Node
    index: int = 0
    #: above 0 for an auxiliary state, which the reader changes; ignored by comparisons
    version: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.text({self.node: self.node.name})

    def text(self, names: Mapping[Node, str]) -> str:
        """Format as ``NODE`` or ``NODE:INDEX``, with the name of the node from `names`."""
        return names[self.node] if self.index == 0 else f"{names[self.node]}:{self.index}"


@dataclass(eq=False)
class Node:
    """A variable or an operator. Change it only through the methods of its SymbolGraph.

    ``attrs`` are strings as in the JSON, ``inputs`` are the outputs that it reads, ``num_outputs`` includes hidden
    outputs (LayerNorm has two).
    """

    op: str
    name: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Output, ...] = ()
    num_outputs: int = 1
    #: the JSON of the node as it was read, to keep its other keys
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_variable(self) -> bool:
        """Whether the node is an argument or auxiliary state rather than an operator."""
        return self.op == VARIABLE

    def __repr__(self) -> str:
        return f"Node({self.op!r}, {self.name!r}, inputs={[str(entry) for entry in self.inputs]})"


def free_name(name: str, taken: Container[str]) -> str:
    """Append underscores to a name until it is not `taken`."""
    while name in taken:
        name += "_"
    return name
