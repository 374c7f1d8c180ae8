"""Find the oldest MXNet that loads a graph, by a table that scripts/maintenance/operator_table.py writes.

MXNet refuses to load unknown operators, attributes and enum values, and operators without required attributes. An
operator without parameters accepts and ignores any attribute.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol


class NodeLike(Protocol):
    """A node of a graph; a variable's ``op`` is ``"null"``."""

    @property
    def op(self) -> str:
        """Name or alias of the operator."""

    @property
    def name(self) -> str:
        """Name of the node."""

    @property
    def attrs(self) -> Mapping[str, str]:
        """The attributes, all as text."""


@dataclass(frozen=True)
class Requirement:
    """A feature of a node that no MXNet before ``version`` loads, such as ``LeakyReLU act_type=gelu``."""

    version: str
    node: str
    reason: str


@dataclass(frozen=True)
class Unknown:
    """A feature of a node that no MXNet of the table loads, or none that loads the rest of the graph."""

    node: str
    reason: str


@dataclass(frozen=True)
class Oldest:
    """The oldest release line that loads a graph, without its ``unknown`` features.

    ``requirements`` rule out the release line before; there are none when the first line of the table suffices.
    """

    version: str
    requirements: list[Requirement]
    unknown: list[Unknown]


def oldest_mxnet(nodes: Iterable[NodeLike]) -> Oldest:
    """Find the oldest MXNet whose ``load_json`` accepts the nodes, in the form x.y.0.

    Attributes of variables and attributes in ``__double_underscores__`` belong to the user and are always accepted.
    Their older names (``lr_mult``, ``ctx_group``) are not accepted on operators: MXNet renames them only in a file that
    names an older MXNet, or none, as its writer.
    """
    table = _table()
    facts = [(node.name, fact) for node in nodes if node.op != "null" for fact in table.facts(node.op, node.attrs)]
    unknown = [Unknown(name, fact.reason) for name, fact in facts if not fact.lines]
    known = [(name, fact) for name, fact in facts if fact.lines]
    common = functools.reduce(lambda lines, item: lines & item[1].lines, known, table.all_lines)
    if common:
        oldest = _first(common)
    else:
        # One feature was removed before another was added.
        oldest = max(_first(fact.lines) for _, fact in known)
        gone = [(name, fact) for name, fact in known if not fact.lines >> oldest & 1]
        unknown += [
            Unknown(name, f"{fact.reason} (until {table.versions[fact.lines.bit_length() - 1]})") for name, fact in gone
        ]
    version = table.versions[oldest]
    # For a new operator, its attributes need no mention.
    deciding = [(name, fact) for name, fact in known if oldest and not fact.lines >> (oldest - 1) & 1]
    new_nodes = {name for name, fact in deciding if fact.is_operator}
    requirements = [
        Requirement(version, name, fact.reason)
        for name, fact in deciding
        if fact.lines >> oldest & 1 and (fact.is_operator or name not in new_nodes)
    ]
    return Oldest(version, requirements, unknown)


def is_operator(name: str) -> bool:
    """Whether MXNet 1.9.1 has an operator or alias with this name; ``_backward_*`` do not count."""
    table = _table()
    return bool(table.operator_lines(name) >> (len(table.versions) - 1))


@dataclass(frozen=True)
class _Fact:
    """A feature of a node, and the release lines that load it: bit i is version i of the table."""

    reason: str
    lines: int
    is_operator: bool = False


class _Table:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.versions: list[str] = document["versions"]
        self.all_lines = (1 << len(self.versions)) - 1
        self._operators: dict[str, dict[str, Any]] = document["operators"]

    def operator_lines(self, operator: str) -> int:
        return self._lines(self._operators[operator]["in"]) if operator in self._operators else 0

    def facts(self, operator: str, attrs: Mapping[str, str]) -> Iterator[_Fact]:
        lines = self.operator_lines(operator)
        yield _Fact(operator, lines, is_operator=True)
        if not lines:
            return
        entry = self._operators[operator]
        if operator == "_sg_mkldnn_fully_connected" and attrs.get("quantized") == attrs.get("with_eltwise") == "True":
            # 1.7 and 1.8 load it, and fail at the first forward: oneDNN "could not append an elementwise post-op".
            yield _Fact(f"{operator} quantized with_eltwise", self._lines("1.9.0"))
        # In release lines without the operator, its attributes do not matter.
        elsewhere = self.all_lines & ~lines
        is_open = self._lines(entry["open"]) if "open" in entry else 0
        for name, value in attrs.items():
            if _is_hidden(name):
                continue
            known = self._lines_of(entry.get("attributes", {}), name)
            if known | is_open != lines:
                fact = _Fact(f"{operator} {name}", known | is_open | (elsewhere if known | is_open else 0))
                yield fact
                if not fact.lines:
                    continue
            taken = self._value_lines(entry, name, value, known)
            if taken != known:
                fits = taken | is_open
                yield _Fact(f"{operator} {name}={value}", fits | (self.all_lines & ~known if fits else 0))
        for span, names in entry.get("required", {}).items():
            for name in names:
                if name not in attrs:
                    fits = lines & ~self._lines(span)
                    yield _Fact(f"{operator} without {name}", fits | elsewhere if fits else 0)

    def _value_lines(self, entry: Mapping[str, Any], name: str, value: str, known: int) -> int:
        """The release lines among `known`, which have the attribute, that accept its value."""
        if name in entry.get("values", {}):
            return known & self._lines_of(entry["values"][name], value)
        refused = entry.get("refused", {}).get(name, {})
        kinds = _kinds(value) if refused else ()
        return known & ~functools.reduce(lambda lines, kind: lines | self._lines_of(refused, kind), kinds, 0)

    def _lines_of(self, groups: Mapping[str, list[str]], fact: str) -> int:
        return next((self._lines(span) for span, facts in groups.items() if fact in facts), 0)

    def _lines(self, span: str) -> int:
        """Parse a span: ``"1.4.0"`` means since 1.4.0, ``"1.0.0-1.6.0"`` has an end."""
        first, _, last = span.partition("-")
        from_first = self.all_lines & -1 << self.versions.index(first)
        return from_first & (2 << self.versions.index(last)) - 1 if last else from_first


@functools.lru_cache(maxsize=1)
def _table() -> _Table:
    text = resources.files("bertsym").joinpath("symbol/operators.json").read_text(encoding="utf-8")
    return _Table(json.loads(text))


def _first(lines: int) -> int:
    return (lines & -lines).bit_length() - 1


def _is_hidden(attribute: str) -> bool:
    return len(attribute) > 4 and attribute.startswith("__") and attribute.endswith("__")


def _kinds(value: str) -> tuple[str, ...]:
    """Find the examples in the table that have the form of a value."""
    text = value.strip()
    if text == "None":
        return ("None",)
    if re.fullmatch(r"-\d+", text):
        return ("-1",)
    if text[:1] not in ("(", "["):
        return ()
    return ("(None,)",) * ("None" in text) + ("(-1,)",) * ("-" in text)
