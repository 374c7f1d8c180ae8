"""The buckets of relative positions, which a graph reads as a constant.

Source: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, as MPNet has it (Song et al. 2020).
"""

from __future__ import annotations

import math

import numpy as np

from bertsym.array import Array

_FARTHEST = 128  # distance from which all share the last bucket


def position_buckets(length: int, buckets: int) -> Array:
    """Return the bucket of each query and key, (length, length) float32.

    The second half of the buckets are for keys after the query. In each half, the first half are one distance each, and
    the others are ranges that grow up to the distance 128.
    """
    half = buckets // 2
    exact = half // 2
    by_distance = [
        distance if distance < exact else min(half - 1, exact + _growing(distance, exact, half - exact))
        for distance in range(length)
    ]
    positions = np.arange(length)
    offsets = positions - positions[:, None]  # of the key from the query
    found: Array = np.array(by_distance)[np.abs(offsets)] + half * (offsets > 0)
    return found.astype(np.float32)


def _growing(distance: int, exact: int, count: int) -> int:
    """The number of the range, of `count` ranges from `exact` to _FARTHEST, that a distance is in."""
    # A range begins where the fraction is a whole number, of which the logarithms miss the last bits.
    return math.floor(math.log(distance / exact) / math.log(_FARTHEST / exact) * count + 1e-9)
