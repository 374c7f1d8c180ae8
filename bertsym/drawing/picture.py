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
#: groups that must read an output before it gets stubs instead of edges
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
    """A graph with all that its picture shows.

    `parameters` are listed in the box of the node that reads them instead of being drawn as nodes.
    """

    title: str
    sentence: str = ""  #: what the classifiers read; names stand between backticks
    graph: SymbolGraph = field(default_factory=lambda: SymbolGraph([], []))
    groups: tuple[Group, ...] = ()  #: disjoint, from the inputs to the outputs
    shapes: Mapping[Output, Shape] = field(default_factory=dict)
    highlighted: frozenset[Node] = frozenset()  #: in colour: the [CLS] slice
    path: frozenset[Node] = frozenset()  #: drawn stronger: the way from the inputs to the head
    parameters: frozenset[str] = frozenset()
    dtype: str = "?"  #: of the numbers, where all parameters have one

    @cached_property
    def index(self) -> Mapping[Node, int]:
        """The place of each node in the graph, by which files refer to it: names hold any character."""
        return {node: number for number, node in enumerate(self.graph.nodes)}

    @cached_property
    def group_of(self) -> Mapping[Node, Group]:
        """The group of each node that is in one."""
        return {node: group for group in self.groups for node in group.nodes}

    @cached_property
    def drawn(self) -> tuple[Node, ...]:
        """The nodes that get a box of their own, in the order of the graph."""
        ends = {entry.node for entry in self.graph.outputs}
        return tuple(node for node in self.graph.nodes if node in ends or not self._is_parameter(node))

    @cached_property
    def readers(self) -> Mapping[Output, tuple[Node, ...]]:
        """The drawn nodes that read each output, each once."""
        found: dict[Output, dict[Node, None]] = {}
        for node in self.drawn:
            for entry in node.inputs:
                found.setdefault(entry, {})[node] = None
        return {entry: tuple(nodes) for entry, nodes in found.items()}

    @cached_property
    def shared(self) -> frozenset[Output]:
        """Outputs that so many groups read (the attention mask) that edges to all of them would hide the rest."""
        return frozenset(
            entry
            for entry, nodes in self.readers.items()
            if len({self.group_of[node].title for node in nodes if node in self.group_of}) >= SHARED_BY
        )

    def data_inputs(self, node: Node) -> tuple[Output, ...]:
        """What a node reads besides its parameters, each once."""
        drawn = self._drawn_set
        return tuple(dict.fromkeys(entry for entry in node.inputs if entry.node in drawn))

    def parameters_of(self, node: Node) -> tuple[Node, ...]:
        """The parameters that are listed in the box of a node."""
        drawn = self._drawn_set
        return tuple(dict.fromkeys(entry.node for entry in node.inputs if entry.node not in drawn))

    def shape(self, output: Output) -> Shape | None:
        """The shape of an output, for a variable that of its own attribute; None when unknown."""
        known = self.shapes.get(output)
        if known is None and output.node.is_variable:
            known = sizes(output.node.attrs, "__shape__")
        return known

    def count_of(self, nodes: Iterable[Node]) -> str:
        """``27 operators, 7.1 M parameters``; the parameters only where all their shapes are known."""
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
    """The number of values; 0 when it isn't known."""
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
