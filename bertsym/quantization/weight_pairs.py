"""Weights of int8 layers whose products saturate on no processor: `PAIR_LIMIT` in `symbol.int8_arithmetic` says why."""

from __future__ import annotations

import numpy as np

from bertsym.array import Array
from bertsym.symbol.int8_arithmetic import PAIR_LIMIT, weight_factors


def limit_pairs(weight: Array) -> Array:
    """Round a weight (O, I) to what MXNet reads as integers none of whose pairs saturate, in the type of the weight.

    Elements of int8 stand for themselves. From float32, MXNet computes a scale for each row: the largest element of a
    row keeps its value, and with it the scale.
    """
    if weight.dtype == np.int8:
        return _limit(weight.astype(np.float64), np.zeros(weight.shape, bool)).astype(np.int8)
    factors = weight_factors(weight).astype(np.float64)[:, np.newaxis]
    factors[~np.isfinite(factors)] = 1  # a row of zeros
    is_kept = np.zeros(weight.shape, bool)
    is_kept[np.arange(len(weight)), np.abs(weight).argmax(axis=1)] = True
    limited = _limit(weight * factors, is_kept) / factors
    return np.where(is_kept, weight, limited).astype(np.float32)


def _limit(elements: Array, is_kept: Array) -> Array:
    """Round elements, in units of an integer: the two of a pair that is too large give up half of the excess each."""
    rows, inputs = elements.shape
    padded = np.pad(elements, ((0, 0), (0, inputs % 2))).reshape(rows, -1, 2)
    is_kept = np.pad(is_kept, ((0, 0), (0, inputs % 2))).reshape(rows, -1, 2)
    sizes = np.where(is_kept, np.ceil(np.abs(padded)), np.minimum(np.abs(padded), 127))
    has_one_sign = padded[..., :1] * padded[..., 1:] > 0
    share = np.where(is_kept.any(axis=-1, keepdims=True), 1 - is_kept, 0.5)
    excess = np.where(has_one_sign, np.maximum(sizes.sum(axis=-1, keepdims=True) - PAIR_LIMIT, 0), 0)
    rounded = np.rint(sizes - share * excess)
    # Both halves may have been rounded up.
    rounded[..., 1:] -= np.where(has_one_sign, np.maximum(rounded.sum(axis=-1, keepdims=True) - PAIR_LIMIT, 0), 0)
    limited: Array = (np.sign(padded) * rounded).reshape(rows, -1)[:, :inputs]
    return limited
