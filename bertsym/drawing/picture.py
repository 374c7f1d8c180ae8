"""The input of all renderers: a graph with groups, shapes and highlights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Union

from bertsym.symbol.attributes import sizes
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

Shape = tuple[Union[int, str], ...]
#: number of reading groups from which an output gets stubs instead of edges
SHARED_BY = 4


@dataclass(frozen=True)
class Group:
    """Nodes that are folded into one box, such as an encoder layer."""

    number: int
    title: str  #: unique, such as ``layer 3``
    subtitle: str
    nodes: frozenset[Node]


@dataclass(frozen=True)
class Picture:
    """A graph with everything that is drawn.

    `parameters` are listed in the box of the node that reads them and have no box of their own.
    """

    title: str
    sentence: str = ""  #: description of the classifiers, with names in backticks
    graph: SymbolGraph = field(default_factory=lambda: SymbolGraph([], []))
    groups: tuple[Group, ...] = ()  #: disjoint, from the inputs to the outputs
    shapes: Mapping[Output, Shape] = field(default_factory=dict)
    highlighted: frozenset[Node] = frozenset()  #: nodes in the highlight colour: the [CLS] slice
    path: frozenset[Node] = frozenset()  #: nodes with thicker lines: the path from the inputs to the head
    parameters: frozenset[str] = frozenset()
    dtype: str = "?"  #: dtype, if all parameters have the same

    @cached_property
    def index(self) -> Mapping[Node, int]:
        """The index of each node in the graph, used in ids, because names may contain any character."""
        return {node: number for number, node in enumerate(self.graph.nodes)}

    @cached_property
    def group_of(self) -> Mapping[Node, Group]:
        """The group of each grouped node."""
        return {node: group for group in self.groups for node in group.nodes}

    @cached_property
    def drawn(self) -> tuple[Node, ...]:
        """The nodes with a box of their own, in the order of the graph."""
        ends = {entry.node for entry in self.graph.outputs}
        return tuple(node for node in self.graph.nodes if node in ends or not self._is_parameter(node))

    @cached_property
    def readers(self) -> Mapping[Output, tuple[Node, ...]]:
        """The distinct drawn nodes that read each output."""
        found: dict[Output, dict[Node, None]] = {}
        for node in self.drawn:
            for entry in node.inputs:
                found.setdefault(entry, {})[node] = None
        return {entry: tuple(nodes) for entry, nodes in found.items()}

    @cached_property
    def shared(self) -> frozenset[Output]:
        """Outputs that SHARED_BY groups or more read, such as the attention mask; edges would hide the rest."""
        return frozenset(
            entry
            for entry, nodes in self.readers.items()
            if len({self.group_of[node].title for node in nodes if node in self.group_of}) >= SHARED_BY
        )

    def data_inputs(self, node: Node) -> tuple[Output, ...]:
        """Return the distinct inputs of a node other than its parameters."""
        drawn = self._drawn_set
        return tuple(dict.fromkeys(entry for entry in node.inputs if entry.node in drawn))

    def parameters_of(self, node: Node) -> tuple[Node, ...]:
        """Return the parameters that are listed in the box of a node."""
        drawn = self._drawn_set
        return tuple(dict.fromkeys(entry.node for entry in node.inputs if entry.node not in drawn))

    def shape(self, output: Output) -> Shape | None:
        """Return the shape of an output, or of a variable's ``__shape__``; None if unknown."""
        known = self.shapes.get(output)
        if known is None and output.node.is_variable:
            known = sizes(output.node.attrs, "__shape__")
        return known

    def count_of(self, nodes: Iterable[Node]) -> str:
        """Format counts as ``27 operators, 7.1 M parameters``; without parameters if a shape is unknown."""
        nodes = list(nodes)
        operators = sum(not node.is_variable for node in nodes)
        text = f"{operators} operator{'' if operators == 1 else 's'}"
        parameters = {parameter for node in nodes for parameter in self.parameters_of(node)}
        sizes = [_size(self.shape(Output(parameter))) for parameter in parameters]
        if sizes and all(sizes):
            text += f", {_amount(sum(sizes))} parameters"
        return text

    @cached_property
    def _drawn_set(self) -> frozenset[Node]:
        return frozenset(self.drawn)

    def _is_parameter(self, node: Node) -> bool:
        return node.is_variable and node.name in self.parameters


def _size(shape: Shape | None) -> int:
    """Return the number of elements; 0 if unknown."""
    if shape is None:
        return 0
    size = 1
    for dimension in shape:
        size *= dimension if isinstance(dimension, int) else 0
    return size


def _amount(number: int) -> str:
    if number < 10_000:
        return str(number)
    return f"{number / 1e3:.1f} k" if number < 1e6 else f"{number / 1e6:.1f} M"
