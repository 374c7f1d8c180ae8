"""Symbol JSON as MXNet writes it, byte for byte.

The layout is that of dmlc-core's JSONWriter (include/dmlc/json.h), through which nnvm's SaveJSON goes: two
spaces a level, ``", "`` between elements also at the end of a line, objects of one entry and arrays of up to
ten numbers on one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST_LINE = 10  # elements of an array that stay on one line
_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def to_text(document: Mapping[str, Any]) -> str:
    """The text of a symbol's document: strings, integers, lists and objects as MXNet lays them out."""
    pieces: list[str] = []
    _write_object(document, 0, pieces)
    return "".join(pieces)


def _write_object(document: Mapping[str, Any], depth: int, pieces: list[str]) -> None:
    """A symbol, a node of it, or a subgraph of a control-flow node: an entry a line."""
    for i, (key, value) in enumerate(document.items()):
        pieces.append(("{" if i == 0 else ", ") + _line(depth + 1) + f"{_string(key)}: ")
        if key in ("nodes", "subgraphs") and _are_objects(value):
            _write_objects(value, depth + 1, pieces)
        else:
            _write_value(value, depth + 1, pieces)
    pieces.append(_line(depth) + "}")


def _write_objects(values: Sequence[Any], depth: int, pieces: list[str]) -> None:
    for i, value in enumerate(values):
        pieces.append(("[" if i == 0 else ", ") + _line(depth + 1))
        _write_object(value, depth + 1, pieces)
    pieces.append(_line(depth) + "]" if values else "[]")


def _are_objects(value: Any) -> bool:
    """Whether a list is laid out as MXNet's; nobody has checked what is in a subgraph."""
    return isinstance(value, list) and all(isinstance(entry, Mapping) and entry for entry in value)


def _write_value(value: Any, depth: int, pieces: list[str]) -> None:
    if isinstance(value, Mapping):
        several = len(value) > 1
        pieces.append("{")
        for i, (key, entry) in enumerate(value.items()):
            pieces.append((", " if i else "") + (_line(depth + 1) if several else "") + f"{_string(key)}: ")
            _write_value(entry, depth + 1, pieces)
        pieces.append((_line(depth) if several else "") + "}")
    elif isinstance(value, (list, tuple)):
        several = len(value) > _LONGEST_LINE
        pieces.append("[")
        for i, entry in enumerate(value):
            pieces.append((", " if i else "") + (_line(depth + 1) if several else ""))
            _write_value(entry, depth + 1, pieces)
        pieces.append((_line(depth) if several else "") + "]")
    else:
        pieces.append(_string(value) if isinstance(value, str) else json.dumps(value))


def _line(depth: int) -> str:
    return "\n" + "  " * depth


def _string(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
