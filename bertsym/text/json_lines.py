"""Parse the objects and labels of JSON Lines."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any


class JsonObject(dict[str, Any]):
    """A JSON object, with the set of its repeated keys."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs) if len(self) < len(pairs) else {}
        self.repeated = {key for key, count in counts.items() if count > 1}  #: the last value of each is kept


def parse_object(line: str) -> JsonObject:
    """Parse a line; raises ValueError with a message for a line that is not a JSON object."""
    try:
        record = json.loads(line, object_pairs_hook=JsonObject, parse_int=_integer)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON value") from None
    if not isinstance(record, JsonObject):
        raise ValueError("not a JSON object")
    return record


def format_label(value: bool | int | float) -> str:
    """Return a number, true or false as a label, as JSON writes it; 1.0 becomes 1.

    Raises ValueError with a message for a number that is not exactly one label.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the label {json.dumps(value)} is not a finite number")
        if value == 0 and math.copysign(1, value) < 0:
            raise ValueError("the label -0 is the same number as 0, write 0")
        if abs(value) >= 2**53:
            raise ValueError(f"the label {json.dumps(value)} is too large, write it as a string")
        if value.is_integer():
            value = int(value)
    return json.dumps(value)


def _integer(digits: str) -> int | float:
    """Parse an integer; -0 keeps its sign."""
    return int(digits) if digits != "-0" else -0.0
