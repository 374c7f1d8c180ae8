"""Which layers stay in float32, so that an int8 model answers well enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def fewest_kept(layers: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> Sequence[str] | None:
    """A short beginning of `layers`, the most sensitive first, with which in float32 a model is good enough.

    `holds` says whether a model is, in which these layers stay float32; it is not where none does. Asked about 1, 2,
    4, ... layers, and between the last two. None where even all but one are too few.
    """
    most = max(len(layers) - 1, 0)
    low, high = 0, min(1, most)  # `low` layers are too few
    while high > low and not holds(layers[:high]):
        low, high = high, min(2 * high, most)
    if high == low:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(layers[:middle]) else (middle, high)
    return layers[:high]
