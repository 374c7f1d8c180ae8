"""Symbol JSON as MXNet writes it, byte for byte.

The layout is that of dmlc-core's JSONWriter (include/dmlc/json.h), which nnvm's SaveJSON uses: two spaces per level,
``", "`` between elements also at the end of a line, objects of one entry and arrays of up to ten numbers on one line.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST_LINE = 10  # maximal number of elements of an array on one line
_SHORT = 100  # maximal number of characters of a string that is cached
_CLOSING = {"{": "}", "[": "]"}
_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class Formatted(str):
    """A value of a document that already has MXNet's layout."""

    __slots__ = ()


def format_entries(entries: list[list[int]]) -> Formatted | list[list[int]]:
    """Format the entries of a node's inputs, of which a graph has hundreds, where they are on one line."""
    return Formatted(entries) if len(entries) <= _LONGEST_LINE else entries


def to_text(document: Mapping[str, Any]) -> str:
    """Format a symbol's document: strings, integers, lists and objects in MXNet's layout."""
    return _object(document, 0)


def _object(document: Mapping[str, Any], depth: int) -> str:
    """Format a symbol, a node or a subgraph of a control-flow node: one entry per line."""
    line = _line(depth + 1)
    entries = []
    for key, value in document.items():
        if type(value) is str:
            text = _string(value)
        elif type(value) is Formatted:
            text = value
        elif key in ("nodes", "subgraphs") and _are_objects(value):
            text = _objects(value, depth + 1)
        else:
            text = _value(value, depth + 1)
        entries.append(f"{_string(key)}: {text}")
    return f"{{{line}{f', {line}'.join(entries)}{_line(depth)}}}"


def _objects(values: Sequence[Any], depth: int) -> str:
    line = _line(depth + 1)
    entries = [_object(value, depth + 1) for value in values]
    return f"[{line}{f', {line}'.join(entries)}{_line(depth)}]" if entries else "[]"


def _are_objects(value: Any) -> bool:
    """Whether a list has the layout of MXNet's lists; the contents of subgraphs are unchecked."""
    return isinstance(value, list) and all(isinstance(entry, Mapping) and entry for entry in value)


def _value(value: Any, depth: int) -> str:
    if isinstance(value, str):
        return _string(value)
    if type(value) is int:
        return str(value)
    if type(value) is list and len(value) <= _LONGEST_LINE and all(type(entry) is int for entry in value):
        return str(value)
    if isinstance(value, Mapping):
        entries = [
            f"{_string(key)}: {_string(entry) if type(entry) is str else _value(entry, depth + 1)}"
            for key, entry in value.items()
        ]
        return _laid_out("{", entries, 1, depth)
    if isinstance(value, (list, tuple)):
        return _laid_out("[", [_value(entry, depth + 1) for entry in value], _LONGEST_LINE, depth)
    return json.dumps(value)


def _laid_out(opening: str, entries: list[str], longest_line: int, depth: int) -> str:
    """Format entries in brackets or braces, on one line or one per line."""
    closing = _CLOSING[opening]
    if len(entries) <= longest_line:
        return opening + ", ".join(entries) + closing
    line = _line(depth + 1)
    return opening + line + f", {line}".join(entries) + _line(depth) + closing


def _line(depth: int) -> str:
    return "\n" + "  " * depth


def _string(text: str) -> str:
    return _short_string(text) if len(text) <= _SHORT else _quoted(text)


@functools.lru_cache(maxsize=1 << 13)
def _short_string(text: str) -> str:
    return _quoted(text)  # names and attributes, which are written many times


def _quoted(text: str) -> str:
    return f'"{text}"' if text.isalnum() or text.isidentifier() else f'"{text.translate(_ESCAPES)}"'
