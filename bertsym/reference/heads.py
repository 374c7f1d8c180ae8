"""What a head computes from an encoding."""

from __future__ import annotations

import numpy as np

from bertsym.reference.checkpoint import Array, Float


def dense(x: Float, weight: Array, bias: Array) -> Float:
    """A dense layer on the last axis: (..., U), weight (C, U) and bias (C,) -> (..., C)."""
    result: Float = x @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
    return result


def softmax(x: Float) -> Float:
    """Probabilities over the last axis; a score of minus infinity has none."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Float = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
