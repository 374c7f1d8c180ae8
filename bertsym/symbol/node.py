"""Nodes of a symbol graph, and the outputs of them that others read."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

VARIABLE = "null"  #: operator of a variable in the JSON


@dataclass(frozen=True)
class Output:
    """One output of a node: what another node reads, or what the graph ends in."""

    node: Node
    index: int = 0
    #: above 0 where the reader changes it, an auxiliary state; no part of what two outputs are compared by
    version: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.text({self.node: self.node.name})

    def text(self, names: Mapping[Node, str]) -> str:
        """The text ``NODE`` or ``NODE:INDEX``, with the node called as in `names`."""
        return names[self.node] if self.index == 0 else f"{names[self.node]}:{self.index}"


@dataclass(eq=False)
class Node:
    """A variable or an operator. To be changed through the methods of its SymbolGraph only.

    ``attrs`` are strings as in the JSON, ``inputs`` the outputs that it reads, ``num_outputs`` includes those
    that MXNet hides (as of LayerNorm).
    """

    op: str
    name: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Output, ...] = ()
    num_outputs: int = 1
    #: the JSON of the node as it was read, for keys that a round trip must keep
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_variable(self) -> bool:
        """Whether the node is an argument or auxiliary state rather than an operator."""
        return self.op == VARIABLE

    def __repr__(self) -> str:
        return f"Node({self.op!r}, {self.name!r}, inputs={[str(entry) for entry in self.inputs]})"


def free_name(name: str, taken: Container[str]) -> str:
    """The name itself, or the next one with underscores behind it that is not `taken`."""
    while name in taken:
        name += "_"
    return name
