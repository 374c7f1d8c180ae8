"""Parse the attributes of operators, which are text in the JSON."""

from __future__ import annotations

import functools
from collections.abc import Mapping

RATE_MULTIPLIER = "__lr_mult__"  #: of a parameter: the factor of its learning rate in MXNet's optimizers

_SHORT = 100  # maximal number of characters of a text whose integers are kept
_LONGEST = 32  # characters of an integer; MXNet's integers have 64 bits


def integer(attrs: Mapping[str, str], key: str, default: int) -> int:
    """Parse an integer; `default` when it is missing or has another form."""
    value = _number(attrs.get(key, ""))
    return default if value is None else value


def decimal(attrs: Mapping[str, str], key: str, default: float) -> float:
    """Parse a number; `default` when it is missing or has another form."""
    try:
        return float(attrs.get(key, default))
    except ValueError:
        return default


def flag(attrs: Mapping[str, str], key: str, default: bool) -> bool:
    """Parse a boolean: ``True``, ``true`` and ``1`` are true."""
    return attrs[key].strip().lower() in ("true", "1") if key in attrs else default


def integers(attrs: Mapping[str, str], key: str) -> tuple[int | None, ...]:
    """Parse a tuple such as ``(0, None, 1)``, a list, or a single integer; empty when it is missing."""
    text = attrs.get(key, "")
    return _integers(text) if len(text) <= _SHORT else _integers.__wrapped__(text)


def sizes(attrs: Mapping[str, str], key: str) -> tuple[int, ...] | None:
    """Parse a shape; None when it is missing or a size is unknown or not positive."""
    found = integers(attrs, key)
    known = tuple(size for size in found if size is not None and size > 0)
    return known if known and len(known) == len(found) else None


@functools.lru_cache(maxsize=1 << 12)  # a command parses the same attributes many times
def _integers(text: str) -> tuple[int | None, ...]:
    return tuple(_number(part) for part in text.strip().strip("()[]").split(",") if part.strip())


def _number(text: str) -> int | None:
    return None if len(text) > _LONGEST else _parse_number(text)


@functools.lru_cache(maxsize=1 << 12)
def _parse_number(text: str) -> int | None:
    try:
        return int(text.strip().rstrip("L"))  # Python 2 wrote 1L
    except ValueError:
        return None
