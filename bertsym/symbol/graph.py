"""A symbol graph as objects: nodes read outputs of other nodes; every edit keeps the graph valid or raises."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fnmatch
import functools
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bertsym.errors import ModelError, UsageError
from bertsym.file_reader import read_bytes
from bertsym.symbol.document import build_document, read_document
from bertsym.symbol.node import VARIABLE, Node, Output
from bertsym.symbol.node_names import find_node, find_output, references
from bertsym.symbol.structure import check_structure, is_ordered, sort_nodes

_KEPT_TEXT = 1 << 20  # maximal number of characters of a text whose graph is kept


class SymbolGraph:
    """The graph of a ``-symbol.json`` file.

    >>> graph = SymbolGraph.load("out/base-symbol.json")      # doctest: +SKIP
    >>> graph.find(op="LayerNorm")                            # doctest: +SKIP
    >>> graph.set_outputs([graph.node("cls_slice")])          # doctest: +SKIP
    >>> graph.cleanup()                                       # doctest: +SKIP

    Every edit checks the whole graph. When the graph would be invalid (a cycle, a duplicate name, an output that does
    not exist), the edit raises and the graph stays as it was.
    """

    def __init__(
        self, nodes: Iterable[Node], outputs: Iterable[Output], document: Mapping[str, Any] | None = None
    ) -> None:
        self.nodes: list[Node] = list(nodes)  #: in topological order
        self.outputs: list[Output] = list(outputs)  #: of the graph, ``heads`` in the JSON
        self.document = document  #: the JSON as it was read; None for a new graph
        self._editing = False

    # Reading and writing

    @classmethod
    def parse(cls, text: str, where: str = "symbol") -> SymbolGraph:
        """Read symbol JSON of any MXNet since 0.8; raises ModelError naming `where` and the node."""
        if len(text) <= _KEPT_TEXT:
            # An invalid text is not kept: it is read again for the message.
            with contextlib.suppress(ModelError):
                return _read(text, "symbol").copy()
        return _read.__wrapped__(text, where)

    @classmethod
    def load(cls, path: str | Path) -> SymbolGraph:
        """Read a ``-symbol.json`` file; raises ModelError."""
        try:
            return cls.decode(read_bytes(path), str(path))
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}") from None

    @classmethod
    def decode(cls, content: bytes, where: str) -> SymbolGraph:
        """Read the content of a ``-symbol.json`` file; raises ModelError."""
        try:
            return cls.parse(content.decode("utf-8"), where)
        except UnicodeDecodeError:
            raise ModelError(f"{where}: not UTF-8 text") from None

    def to_json(self) -> str:
        """Return the symbol JSON: the same bytes for an unchanged graph that MXNet 1.9.1 wrote."""
        return build_document(self.nodes, self.outputs, self.document)

    def copy(self) -> SymbolGraph:
        """Copy the graph and its nodes."""
        return self.copied()[0]

    def copied(self) -> tuple[SymbolGraph, dict[Node, Node]]:
        """Copy the graph; returns also a dictionary from each node to its copy."""
        copies: dict[Node, Node] = {}
        for node in self.nodes:
            inputs = tuple(Output(copies[entry.node], entry.index, entry.version) for entry in node.inputs)
            copies[node] = Node(node.op, node.name, dict(node.attrs), inputs, node.num_outputs, node.raw)
        outputs = [Output(copies[entry.node], entry.index, entry.version) for entry in self.outputs]
        return SymbolGraph(copies.values(), outputs, self.document), copies

    def part(self, outputs: Iterable[Output]) -> SymbolGraph:
        """Return the part of the graph that outputs depend on. It shares its nodes with this graph: do not edit it."""
        ends = list(outputs)
        needed = self.ancestors(*map(_node_of, ends))
        return SymbolGraph([node for node in self.nodes if node in needed], ends, self.document)

    # Queries

    @property
    def variables(self) -> list[str]:
        """Names of the arguments and auxiliary states: inputs, labels and parameters."""
        return [node.name for node in self.nodes if node.is_variable]

    @property
    def output_names(self) -> list[str]:
        """Names of the nodes whose outputs are those of the graph."""
        return [entry.node.name for entry in self.outputs]

    @property
    def mxnet_version(self) -> str | None:
        """The MXNet that wrote the file, such as ``1.9.1``; None when the file does not state it."""
        try:
            number = int((self.document or {})["attrs"]["mxnet_version"][1])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            return None
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    def set_mxnet_version(self, version: str) -> None:
        """Set the MXNet version that the file names as its writer, such as ``1.5.0``; older versions then warn."""
        major, minor, patch = map(int, version.split("."))
        number = major * 10000 + minor * 100 + patch
        self.document = {**(self.document or json.loads(self.to_json())), "attrs": {"mxnet_version": ["int", number]}}

    def node(self, name: str) -> Node:
        """Return the node with a name, or ``NAME#2`` for the second of several nodes named NAME.

        Raises UsageError, with the nearest names, for an unknown name, and for a name of several nodes.
        """
        return find_node(self.nodes, name)

    def variable(self, name: str) -> Node:
        """Return the variable with a name; names of variables are unique. Raises UsageError for an unknown name."""
        found = next((node for node in self.nodes if node.is_variable and node.name == name), None)
        return found if found is not None else find_node([node for node in self.nodes if node.is_variable], name)

    def output(self, text: str) -> Output:
        """Return the output named ``NODE``, ``NODE:INDEX``, or ``NODE_output`` as MXNet lists it.

        NODE may be ``NAME#2``. Raises UsageError.
        """
        return self._own(find_output(self.nodes, text))

    def find(self, pattern: str = "*", *, op: str | None = None) -> list[Node]:
        """List nodes by operator and by a pattern of the name: ``*``, ``?``, ``[...]``, the name, ``NAME#2``."""
        nodes = [node for node in self.nodes if op is None or node.op == op]
        if pattern == "*":
            return nodes
        matches: Callable[[str], Any] = re.compile(fnmatch.translate(pattern)).match
        numbered = references(self.nodes) if "#" in pattern else {}
        return [node for node in nodes if pattern in (node.name, numbered.get(node)) or matches(node.name)]

    def consumers(self, what: Node | Output) -> list[Node]:
        """List the nodes that read any output of a node, or one output."""
        if isinstance(what, Output):
            return [node for node in self.nodes if what in node.inputs]
        return [node for node in self.nodes if any(entry.node is what for entry in node.inputs)]

    def producers(self, node: Node) -> list[Node]:
        """List the nodes whose outputs a node reads, each once, in the order of its inputs."""
        return list(dict.fromkeys(entry.node for entry in node.inputs))

    def ancestors(self, *nodes: Node, within: Container[Node] | None = None) -> set[Node]:
        """Return the nodes and all that they depend on, or only what is reachable through nodes of `within`."""
        seen = set(nodes)
        waiting = list(seen)
        while waiting:
            for entry in waiting.pop().inputs:
                if entry.node not in seen and (within is None or entry.node in within):
                    seen.add(entry.node)
                    waiting.append(entry.node)
        return seen

    def descendants(self, *nodes: Node) -> set[Node]:
        """Return the nodes and all that depend on them."""
        seen = set(nodes)
        for node in self.nodes:
            if any(entry.node in seen for entry in node.inputs):
                seen.add(node)
        return seen

    def between(self, start: Node, end: Node) -> list[Node]:
        """List the nodes on all paths from `start` to `end`, both included; empty when there is no path."""
        later = self.nodes[self.nodes.index(start) :]
        before = self.ancestors(end, within={*later})
        reached = {start} & before
        found = []
        for node in later:
            if node in before and (node in reached or any(entry.node in reached for entry in node.inputs)):
                reached.add(node)
                found.append(node)
        return found

    def check(self, where: str = "symbol") -> None:
        """Raise ModelError when MXNet could not load the graph: order, names, inputs and outputs are checked."""
        check_structure(self.nodes, self.outputs, where)

    # Editing

    def _own(self, what: Output | Node) -> Output:
        """Return the output, or a node's first output; raises UsageError when it does not belong to this graph."""
        output = Output(what) if isinstance(what, Node) else what
        node = output.node
        if node not in self.nodes:
            raise UsageError(f"{node.name} is not a node of this graph")
        if not 0 <= output.index < node.num_outputs:
            raise UsageError(f"there is no {output}: the outputs of {node.name} are 0 to {node.num_outputs - 1}")
        return output

    def add(
        self,
        op: str,
        name: str,
        inputs: Iterable[Output | Node] = (),
        attrs: Mapping[str, str] | None = None,
        *,
        num_outputs: int = 1,
    ) -> Node:
        """Add an operator that reads `inputs`; nothing reads it yet. Raises UsageError for a name that is taken."""
        return self._add(Node(op, name, dict(attrs or {}), tuple(map(self._own, inputs)), num_outputs))

    def add_variable(self, name: str, attrs: Mapping[str, str] | None = None) -> Node:
        """Add an input or a parameter. Raises UsageError for a name that is taken."""
        return self._add(Node(VARIABLE, name, dict(attrs or {})))

    def _add(self, node: Node) -> Node:
        if any(other.name == node.name for other in self.nodes):
            raise UsageError(f"the name {node.name!r} is taken")
        with self.edit():
            self.nodes.append(node)
        return node

    def insert_after(
        self,
        output: Output | Node,
        op: str,
        name: str,
        attrs: Mapping[str, str] | None = None,
        *,
        inputs: Iterable[Output | Node] = (),
    ) -> Node:
        """Insert an operator after `output`: readers of `output` read the new node instead.

        `inputs` are further inputs of the operator.
        """
        output = self._own(output)
        with self.edit():
            node = self.add(op, name, [output, *inputs], attrs)
            self._rewire(output, Output(node), except_in={node, *self.ancestors(*map(_node_of, node.inputs))})
        return node

    def rewire(self, old: Output | Node, new: Output | Node) -> None:
        """Replace `old` with `new` in the inputs of all nodes and in the outputs. Raises ModelError for a cycle."""
        with self.edit():
            self._rewire(self._own(old), self._own(new), except_in=set())

    def _rewire(self, old: Output, new: Output, except_in: set[Node]) -> None:
        for node in self.nodes:
            if old in node.inputs and node not in except_in:
                node.inputs = tuple(_swapped(entry, old, new) for entry in node.inputs)
        self.outputs = [_swapped(entry, old, new) for entry in self.outputs]

    def set_inputs(self, node: Node, inputs: Iterable[Output | Node]) -> None:
        """Set the inputs of a node. Raises ModelError for a cycle."""
        with self.edit():
            self._own(node).node.inputs = tuple(map(self._own, inputs))

    def replace(self, node: Node, op: str, attrs: Mapping[str, str] | None = None, *, num_outputs: int = 1) -> None:
        """Change operator and attributes of a node; name, inputs and readers stay."""
        with self.edit():
            self._own(node)
            if op != node.op:  # a subgraph belongs to the old operator
                node.raw = {key: value for key, value in node.raw.items() if key != "subgraphs"}
            node.op, node.attrs, node.num_outputs = op, dict(attrs or {}), num_outputs

    def remove(self, node: Node, *, bypass: bool = False) -> None:
        """Remove a node; with `bypass`, its readers read its first input instead.

        Raises UsageError when something reads it and `bypass` is False, or when it has no input to read instead.
        """
        self._own(node)
        readers = [reader.name for reader in self.consumers(node)]
        readers += ["the graph's outputs"] if any(entry.node is node for entry in self.outputs) else []
        if readers and not bypass:
            raise UsageError(f"{node.name} is read by {', '.join(readers[:3])}: it can't be removed")
        entries = [*self.outputs, *(entry for reader in self.consumers(node) for entry in reader.inputs)]
        if readers and (not node.inputs or any(entry.node is node and entry.index for entry in entries)):
            raise UsageError(f"{node.name} has no input that could be read instead of it")
        with self.edit():
            if readers:
                self._rewire(Output(node), dataclasses.replace(node.inputs[0], version=0), except_in={node})
            self.nodes.remove(node)

    def rename(self, names: Mapping[str, str] | Mapping[Node, str]) -> None:
        """Rename nodes at once: old name or node -> new name.

        Raises UsageError for unknown and colliding names.
        """
        count = collections.Counter(node.name for node in self.nodes)
        known = {node.name: node for node in self.nodes}

        def named(old: str | Node) -> Node:
            return old if isinstance(old, Node) else known[old] if count[old] == 1 else self.node(old)

        nodes = {named(old): new for old, new in names.items()}
        taken = collections.Counter(nodes.get(node, node.name) for node in self.nodes)
        for node, new in nodes.items():
            if not new:
                raise UsageError(f"{node.name} needs a name")
            if taken[new] > 1:
                raise UsageError(f"{node.name} can't be renamed to {new}: another node has that name")
        with self.edit():
            for node, new in nodes.items():
                node.name = new

    def set_attribute(self, node: Node, key: str, value: str | None) -> None:
        """Set an attribute of a node; None removes it."""
        with self.edit():
            self._own(node)
            attrs = {name: old for name, old in node.attrs.items() if name != key}
            node.attrs = dict(sorted({**attrs, key: value}.items())) if value is not None else attrs

    def set_outputs(self, outputs: Iterable[Output | Node]) -> None:
        """Set the outputs of the graph; `cleanup` then removes the nodes that they do not need."""
        with self.edit():
            self.outputs = list(map(self._own, outputs))

    def cut(self, output: Output | Node, name: str, attrs: Mapping[str, str] | None = None) -> Node:
        """Turn a tensor into an input: add a variable that all readers of `output` read instead."""
        with self.edit():
            variable = self.add_variable(name, attrs)
            self._rewire(self._own(output), Output(variable), except_in=set())
        return variable

    def merge(self, other: SymbolGraph, inputs: Mapping[str, Output | Node]) -> list[Output]:
        """Add the nodes of another graph; its variables named in `inputs` are replaced with outputs of this graph.

        Variables that both graphs have, such as the token ids, are shared. Returns the other graph's outputs; this
        graph's stay until `set_outputs`. Raises UsageError for an unknown variable, and for an operator whose name
        this graph uses.
        """
        names = {node.name: node for node in self.nodes}
        copy = other.copy()
        replaced = {copy.node(name): self._own(output) for name, output in inputs.items()}
        for node in replaced:
            if not node.is_variable:
                raise UsageError(f"{node.name} is a {node.op}: only a variable can be replaced with an output")
        with self.edit():
            for node in copy.nodes:
                taken = names.get(node.name)
                if node in replaced:
                    continue
                if taken and node.is_variable and taken.is_variable:
                    replaced[node] = Output(taken)
                elif taken:
                    raise UsageError(f"both graphs have a node {node.name!r}: rename it in one of them")
                else:
                    node.inputs = tuple(_placed(entry, replaced) for entry in node.inputs)
                    self.nodes.append(node)
        return [_placed(entry, replaced) for entry in copy.outputs]

    def assign(self, other: SymbolGraph) -> None:
        """Take over nodes, outputs and document of another graph, which must not be used afterwards."""
        with self.edit():
            self.nodes, self.outputs, self.document = other.nodes, other.outputs, other.document

    def cleanup(self) -> list[Node]:
        """Remove the nodes that no output needs; returns them."""
        needed = self.ancestors(*map(_node_of, self.outputs))
        dropped = [node for node in self.nodes if node not in needed]
        with self.edit():
            self.nodes = [node for node in self.nodes if node in needed]
        return dropped

    def toposort(self) -> None:
        """Sort the nodes as MXNet writes them: depth first from the outputs, inputs before their readers.

        Raises ModelError for a cycle.
        """
        self.nodes = sort_nodes(self.nodes, self.outputs)

    @contextlib.contextmanager
    def edit(self) -> Iterator[None]:
        """Group edits into a transaction: the graph is checked after the last; an exception undoes all of them.

        Raises ModelError when the graph would be invalid.
        """
        if self._editing:
            yield
            return
        nodes, outputs, document = list(self.nodes), list(self.outputs), self.document
        states = [(node.op, node.name, node.attrs, node.inputs, node.num_outputs, node.raw) for node in nodes]
        self._editing = True
        try:
            yield
            if not is_ordered(self.nodes):
                self.toposort()
            self.check()
        except BaseException:
            self.nodes, self.outputs, self.document = nodes, outputs, document
            for node, state in zip(nodes, states):
                node.op, node.name, node.attrs, node.inputs, node.num_outputs, node.raw = state
            raise
        finally:
            self._editing = False


@functools.lru_cache(maxsize=8)  # a command reads a graph when it checks it, and again when it uses it
def _read(text: str, where: str) -> SymbolGraph:
    graph = SymbolGraph(*read_document(text, where))
    graph.check(where)
    return graph


def _node_of(output: Output) -> Node:
    return output.node


def _swapped(entry: Output, old: Output, new: Output) -> Output:
    return dataclasses.replace(new, version=entry.version) if entry == old else entry


def _placed(entry: Output, places: Mapping[Node, Output]) -> Output:
    return dataclasses.replace(places[entry.node], version=entry.version) if entry.node in places else entry
