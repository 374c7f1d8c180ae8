"""Symbol JSON as a checked structure: nodes, inputs, outputs, variables."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.errors import ModelError

_MAX_NODES = 1 << 20


@dataclass(frozen=True)
class Node:
    """One node: ``op`` is ``"null"`` for a variable; ``inputs`` are (node index, output index) pairs."""

    op: str
    name: str
    attrs: dict[str, str]
    inputs: tuple[tuple[int, int], ...]

    @property
    def is_variable(self) -> bool:
        """Whether the node is an argument or auxiliary state rather than an operator."""
        return self.op == "null"


@dataclass(frozen=True)
class SymbolGraph:
    """The graph of a ``-symbol.json`` file, in topological order."""

    nodes: tuple[Node, ...]
    heads: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str, where: str = "symbol") -> SymbolGraph:
        """Read symbol JSON of any MXNet since 1.0; raises ModelError naming `where` and the node."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{where}: not JSON: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
            raise ModelError(f"{where}: not an MXNet symbol, there is no list of nodes")
        raw_nodes = document["nodes"]
        if not 1 <= len(raw_nodes) <= _MAX_NODES:
            raise ModelError(f"{where}: {len(raw_nodes)} nodes")
        nodes = tuple(_parse_node(raw, i, where) for i, raw in enumerate(raw_nodes))
        heads = _parse_entries(document.get("heads"), len(nodes), f"{where}: heads")
        if not heads:
            raise ModelError(f"{where}: no outputs")
        names = [node.name for node in nodes]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ModelError(f"{where}: two nodes are named {twice!r}")
        graph = cls(nodes, heads)
        for label, entries in graph._labelled_entries():
            for node, output in entries:
                if output and nodes[node].is_variable:
                    raise ModelError(f"{where}: {label}: {names[node]!r} is a variable, it has no output {output}")
        return graph

    @classmethod
    def load(cls, path: str | Path) -> SymbolGraph:
        """Read a ``-symbol.json`` file; raises ModelError."""
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ModelError(f"{path}: not UTF-8 text") from None

    def check_only(self, operators: Container[str], where: str) -> None:
        """Raise ModelError for an operator that isn't one of `operators`, and for any output but the first."""
        for node in self.nodes:
            if node.op not in operators:
                raise ModelError(f"{where}: node {node.name!r} has the operator {node.op!r}, which is not expected")
        for label, entries in self._labelled_entries():
            if any(output for _, output in entries):
                raise ModelError(f"{where}: {label}: an output other than the first is read")

    def _labelled_entries(self) -> Iterator[tuple[str, tuple[tuple[int, int], ...]]]:
        for index, node in enumerate(self.nodes):
            yield f"node {index} ({node.name!r})", node.inputs
        yield "heads", self.heads

    @property
    def variables(self) -> list[str]:
        """Names of the arguments and auxiliary states: inputs, labels and parameters."""
        return [node.name for node in self.nodes if node.is_variable]

    @property
    def output_names(self) -> list[str]:
        """Names of the nodes that the graph ends in."""
        return [self.nodes[node].name for node, _ in self.heads]


def _parse_node(raw: Any, index: int, where: str) -> Node:
    if not isinstance(raw, dict) or not isinstance(raw.get("op"), str) or not isinstance(raw.get("name"), str):
        raise ModelError(f"{where}: node {index} has no op or no name")
    label = f"{where}: node {index} ({raw['name']!r})"
    # MXNet wrote "param" before 0.9, "attr" up to 1.0 and "attrs" since.
    attrs: dict[str, str] = {}
    for key in ("param", "attr", "attrs"):
        part = raw.get(key, {})
        if not isinstance(part, dict) or not all(isinstance(value, str) for value in part.values()):
            raise ModelError(f"{label}: attributes are not strings")
        attrs.update(part)
    # An input must come earlier in the list: no cycles.
    inputs = _parse_entries(raw.get("inputs", []), index, label)
    if raw["op"] == "null" and inputs:
        raise ModelError(f"{label}: a variable with inputs")
    return Node(raw["op"], raw["name"], attrs, inputs)


def _parse_entries(raw: Any, limit: int, label: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(raw, list):
        raise ModelError(f"{label}: no list of inputs or outputs")
    entries = []
    for entry in raw:
        if (
            not isinstance(entry, list)
            or not 2 <= len(entry) <= 3
            or not all(type(value) is int and value >= 0 for value in entry)
            or entry[0] >= limit
        ):
            raise ModelError(f"{label}: {entry!r} does not name an earlier node")
        entries.append((entry[0], entry[1]))
    return tuple(entries)
