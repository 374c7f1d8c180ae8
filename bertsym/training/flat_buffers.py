"""Parameters, and all that goes with them, as slices of a few long arrays: one operation where there were hundreds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.runtime import mx
from bertsym.symbol.params import Array

_Shapes = Mapping[str, tuple[int, ...]]
_ALIGNMENT = 16  # values: 64 bytes, on which the kernels of oneDNN are quickest
_NO_DECAY = ("_bias", "_gamma", "_beta")


@dataclass(frozen=True)
class Block:
    """Parameters that lie one after the other."""

    names: tuple[str, ...]
    decays: bool  #: whether they are subject to weight decay


def blocks(shapes: _Shapes, count: int) -> list[Block]:
    """Those with weight decay in `count` blocks of about one size, bias, gamma and beta in one more."""
    decaying = [name for name in shapes if not name.endswith(_NO_DECAY)]
    shares: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for name in sorted(decaying, key=lambda name: -math.prod(shapes[name])):
        smallest = sizes.index(min(sizes))
        shares[smallest].append(name)
        sizes[smallest] += math.prod(shapes[name])
    others = tuple(name for name in shapes if name.endswith(_NO_DECAY))
    parts = [Block(tuple(share), True) for share in shares] + [Block(others, False)]
    return [part for part in parts if part.names]


class FlatArrays:
    """A float32 array of zeros for each block, and for each parameter its slice of it."""

    def __init__(self, layout: list[Block], shapes: _Shapes, context: Any) -> None:
        self.flats: list[Any] = []
        self.arrays: dict[str, Any] = {}  #: name -> array of its shape, on the memory of a flat one
        for block in layout:
            starts = np.cumsum([0] + [-(-math.prod(shapes[name]) // _ALIGNMENT) * _ALIGNMENT for name in block.names])
            flat = mx.nd.zeros(int(starts[-1]), ctx=context)
            self.flats.append(flat)
            for name, start in zip(block.names, starts.tolist()):
                self.arrays[name] = flat[start : start + math.prod(shapes[name])].reshape(shapes[name])

    def set(self, values: Mapping[str, Array]) -> None:
        """Copy values in, all of them or some."""
        for name, value in values.items():
            self.arrays[name][:] = value

    def clear(self) -> None:
        """Set all to zero."""
        for flat in self.flats:
            flat[:] = 0
