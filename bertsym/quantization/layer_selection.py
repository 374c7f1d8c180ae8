"""Select the layers that stay in float32 to keep an int8 model accurate."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def fewest_kept(layers: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> Sequence[str] | None:
    """Find a short prefix of `layers`, the most sensitive first, that must stay in float32.

    `holds` tests a model in which some layers stay in float32; it is false for no layers. It is called for 1, 2, 4, ...
    layers, then for numbers between the last two. None when even all layers except one are not enough.
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
