"""Parameters, gradients and moments as slices of a few flat arrays: one operation instead of hundreds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.mxnet_runtime import mx

_Shapes = Mapping[str, tuple[int, ...]]
_ALIGNMENT = 16  # elements: 64 bytes, the alignment at which oneDNN's kernels are fastest
_NO_DECAY = ("_bias", "_bias_weight", "_gamma", "_beta")  # _bias_weight: biases of scores by relative position


@dataclass(frozen=True)
class Block:
    """Parameters that are contiguous in one flat array."""

    names: tuple[str, ...]
    decays: bool  #: whether weight decay applies to them
    rate: float = 1.0  #: factor of their learning rate


def split_into_blocks(
    shapes: _Shapes, count: int, multipliers: Mapping[str, float] = MappingProxyType({})
) -> list[Block]:
    """Split parameters into blocks of equal learning rate; `multipliers` are the factors of the rates that have one.

    At each rate, parameters with weight decay are in `count` blocks of similar size; bias, gamma and beta are in one
    more.
    """
    rates = {name: multipliers.get(name, 1.0) for name in shapes}
    blocks: list[Block] = []
    for rate in sorted({*rates.values()}, reverse=True):
        names = [name for name in shapes if rates[name] == rate]
        groups: list[list[str]] = [[] for _ in range(count)]
        sizes = [0] * count
        decaying = [name for name in names if not name.endswith(_NO_DECAY)]
        for name in sorted(decaying, key=lambda name: -math.prod(shapes[name])):
            smallest = sizes.index(min(sizes))
            groups[smallest].append(name)
            sizes[smallest] += math.prod(shapes[name])
        without_decay = tuple(name for name in names if name.endswith(_NO_DECAY))
        blocks += [Block(tuple(group), True, rate) for group in groups] + [Block(without_decay, False, rate)]
    return [block for block in blocks if block.names]


class FlatArrays:
    """A float32 array of zeros for each block, and a view of it for each parameter."""

    def __init__(self, layout: list[Block], shapes: _Shapes, context: Any) -> None:
        self.flats: list[Any] = []
        self.arrays: dict[str, Any] = {}  #: name -> NDArray of its shape, a view of a flat array
        for block in layout:
            starts = np.cumsum([0] + [-(-math.prod(shapes[name]) // _ALIGNMENT) * _ALIGNMENT for name in block.names])
            flat = mx.nd.zeros(int(starts[-1]), ctx=context)
            self.flats.append(flat)
            for name, start in zip(block.names, starts.tolist()):
                self.arrays[name] = flat[start : start + math.prod(shapes[name])].reshape(shapes[name])

    def set(self, values: Mapping[str, Array]) -> None:
        """Copy `values` into the parameters that they name."""
        for name, value in values.items():
            self.arrays[name][:] = value

    def clear(self) -> None:
        """Set all elements to zero."""
        for flat in self.flats:
            flat[:] = 0
