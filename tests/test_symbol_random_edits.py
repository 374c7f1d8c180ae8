"""Whatever is done to a graph: it is refused without a trace, or mxnet loads the result."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from symbol_values import FILES, label, load

from bertsym import BertsymError
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

GRAPHS = ["mxnet-1.9.1/multi", "mxnet-1.9.1/ssd", "mxnet-1.9.1/lstm_gluon", "gluonnlp-0.10.0/pooled-symbol"]
UNARY = ["tanh", "negative", "exp", "_copy"]
T = TypeVar("T")


class Editor:
    """Chooses edits of a graph, sensible ones and others."""

    def __init__(self, graph: SymbolGraph, seed: int) -> None:
        self.graph = graph
        self.other = graph.copy()
        self.random = random.Random(seed)
        self.numbers = itertools.count()
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def one_of(self, values: Sequence[T]) -> T:
        return self.random.choice(values)

    def rarely(self) -> bool:
        return self.random.random() < 0.05

    def name(self) -> str:
        return self.one_of(self.graph.nodes).name if self.rarely() else f"new{next(self.numbers)}"

    def node(self) -> Node:
        return self.one_of(self.other.nodes if self.rarely() else self.graph.nodes)

    def output(self) -> Output:
        node = self.node()
        return Output(node, self.random.randrange(node.num_outputs + self.rarely()))

    def add(self) -> None:
        self.graph.add(self.one_of(UNARY), self.name(), [self.output()])

    def add_variable(self) -> None:
        self.graph.add_variable(self.name(), {"__note__": "é"})

    def insert_after(self) -> None:
        if self.random.random() < 0.5:
            self.graph.insert_after(self.output(), self.one_of(UNARY), self.name())
        else:
            self.graph.insert_after(self.output(), "elemwise_add", self.name(), inputs=[self.output()])

    def rewire(self) -> None:
        self.graph.rewire(self.output(), self.output())

    def set_inputs(self) -> None:
        node = self.node()
        self.graph.set_inputs(node, [self.output() for _ in node.inputs])

    def replace(self) -> None:
        unary = [node for node in self.graph.nodes if node.op in UNARY]
        if unary:
            self.graph.replace(self.one_of(unary), "tanh")

    def remove(self) -> None:
        self.graph.remove(self.node(), bypass=self.random.random() < 0.5)

    def rename(self) -> None:
        first, second = self.one_of(self.graph.nodes).name, self.one_of(self.graph.nodes).name
        self.graph.rename({first: second, second: first} if self.random.random() < 0.5 else {first: self.name()})

    def set_attribute(self) -> None:
        self.graph.set_attribute(self.node(), "__note__", self.one_of([None, "b", 'c "d"\n']))

    def set_outputs(self) -> None:
        self.graph.set_outputs([self.output() for _ in range(self.random.randrange(4))])

    def cut(self) -> None:
        self.graph.cut(self.output(), self.name())

    def merge(self) -> None:
        other = self.other.copy()
        other.set_outputs([self.one_of(other.nodes)])
        if self.random.random() < 0.8:
            prefix = f"merged{next(self.numbers)} "
            names = Counter(node.name for node in other.nodes)
            other.cleanup()
            other.rename({n.name: prefix + n.name for n in other.nodes if not n.is_variable and names[n.name] == 1})
        outputs = self.graph.merge(other, {other.variables[0]: self.output()} if other.variables else {})
        self.graph.set_outputs([*self.graph.outputs, *outputs])

    def cleanup(self) -> None:
        self.graph.cleanup()

    def toposort(self) -> None:
        self.graph.toposort()

    def step(self) -> None:
        """One edit, of which nothing is left when it is refused."""
        edits: list[Callable[[], None]] = [self.add, self.add_variable, self.insert_after, self.rewire]
        edits += [self.set_inputs, self.replace, self.remove, self.rename, self.set_attribute, self.set_outputs]
        edits += [self.cut, self.merge, self.cleanup, self.toposort]
        weights = [4, 2, 6, 3, 3, 2, 6, 3, 3, 3, 2, 1, 2, 2]
        edit = self.random.choices(edits, weights)[0]
        before, other = self.graph.to_json(), self.other.to_json()
        try:
            edit()
        except BertsymError:
            self.refused[edit.__name__] += 1
            assert self.graph.to_json() == before
        else:
            self.done[edit.__name__] += 1
        assert self.other.to_json() == other
        self.graph.check()
        text = self.graph.to_json()
        assert SymbolGraph.parse(text).to_json() == text


def assert_mxnet_has_the_same_graph(graph: SymbolGraph) -> None:
    """mxnet drops what no output needs; what is left it writes as we do, in its own order."""
    loaded: Any = load(graph.to_json())
    copy = graph.copy()
    copy.cleanup()
    copy.toposort()
    assert loaded.list_inputs() == copy.variables
    assert len(loaded.list_outputs()) == len(graph.outputs)
    assert loaded.tojson() == copy.to_json()


@pytest.mark.parametrize("name", GRAPHS)
def test_any_sequence_of_edits_leaves_a_graph_that_mxnet_loads(name: str) -> None:
    done: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for seed in range(4):
        graph = SymbolGraph.load(next(path for path in FILES if label(path) == name))
        editor = Editor(graph, seed)
        for _ in range(6):
            for _ in range(8):
                editor.step()
            assert_mxnet_has_the_same_graph(graph)
        done += editor.done
        refused += editor.refused
    # Every edit was made, and those that can be refused were.
    assert len(done) == 14
    assert {"insert_after", "rewire", "set_inputs", "remove"} <= {*refused}
