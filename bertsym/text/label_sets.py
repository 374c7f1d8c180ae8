"""Any number of labels of a row: in one cell with a delimiter, as a JSON list, or as columns of 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.text.json_lines import format_label

_MARKS = {"0": False, "1": True, "false": False, "true": True}


def split_labels(value: str | list[Any], delimiter: str) -> tuple[str, ...]:
    """Return the labels of a cell or of a JSON list, without spaces around them; a blank cell has none.

    Raises ValueError with a message for an empty or repeated label, and for an element that is not a label.
    """
    if isinstance(value, str):
        parts: list[Any] = value.split(delimiter) if value.strip() else []
    else:
        parts = value
    labels: dict[str, None] = {}
    for part in parts:
        if not isinstance(part, (str, bool, int, float)):
            raise ValueError(f"the list of labels holds {part!r:.30}, which is not a string or a number")
        label = part.strip() if isinstance(part, str) else format_label(part)
        if not label:
            where = f"{value!r:.60}" if isinstance(value, str) else "the list"
            raise ValueError(f"{where} holds an empty label")
        if label in labels:
            raise ValueError(f"the label {label!r:.60} is repeated")
        labels[label] = None
    return tuple(labels)


def marked_labels(marks: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels that are marked with 1 or true; raises ValueError for a mark that is not 0, 1, false or true.

    `marks` maps each label to the cell of its column, or to its JSON value.
    """
    labels = []
    for label, value in marks.items():
        mark = value.strip().lower() if isinstance(value, str) else format_label(value) if _is_number(value) else None
        if mark not in _MARKS:
            raise ValueError(f"the label column {label!r} holds {value!r:.30}, which is not 0 or 1")
        if _MARKS[mark]:
            labels.append(label)
    return tuple(labels)


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))
