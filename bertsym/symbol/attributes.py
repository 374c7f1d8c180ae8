"""Attribute values of operators, which the JSON holds as text, as Python values."""

from __future__ import annotations

from collections.abc import Mapping

_LONGEST = 32  # characters of a whole number; MXNet's have 64 bits


def integer(attrs: Mapping[str, str], key: str, default: int) -> int:
    """A whole number; `default` when it is missing or is none."""
    value = _number(attrs.get(key, ""))
    return default if value is None else value


def decimal(attrs: Mapping[str, str], key: str, default: float) -> float:
    """A number; `default` when it is missing or is none."""
    try:
        return float(attrs.get(key, default))
    except ValueError:
        return default


def flag(attrs: Mapping[str, str], key: str, default: bool) -> bool:
    """A truth value, as ``True``, ``true`` or ``1``."""
    return attrs[key].strip().lower() in ("true", "1") if key in attrs else default


def integers(attrs: Mapping[str, str], key: str) -> tuple[int | None, ...]:
    """A tuple such as ``(0, None, 1)``, a list, or a single number; empty when it is missing."""
    text = attrs.get(key, "").strip().strip("()[]")
    return tuple(_number(part) for part in text.split(",") if part.strip())


def sizes(attrs: Mapping[str, str], key: str) -> tuple[int, ...] | None:
    """A shape of which every size is known and positive; None when it is missing or not such a one."""
    found = integers(attrs, key)
    known = tuple(size for size in found if size is not None and size > 0)
    return known if known and len(known) == len(found) else None


def _number(text: str) -> int | None:
    if len(text) > _LONGEST:
        return None
    try:
        return int(text.strip().rstrip("L"))  # Python 2 wrote 1L
    except ValueError:
        return None
