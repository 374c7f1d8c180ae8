"""The functions that encoders and their heads are made of, float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bertsym.array import Array

Float = NDArray[np.float64]


def dense(x: Float, weight: Array, bias: Array) -> Float:
    """A dense layer on the last axis: (..., U), weight (C, U) and bias (C,) -> (..., C)."""
    result: Float = x @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)
    return result


def layer_norm(x: Float, scale: Array, shift: Array, epsilon: float) -> Float:
    """LayerNorm over the last axis, with the variance of the whole axis (Ba et al. 2016)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    result: Float = centred / deviation * np.asarray(scale, np.float64) + np.asarray(shift, np.float64)
    return result


def softmax(x: Float) -> Float:
    """Probabilities over the last axis; a score of minus infinity has none."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Float = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def sigmoid(x: Float) -> Float:
    """The logistic function of each element."""
    result: Float = (1 + np.tanh(x / 2)) / 2
    return result


def gelu(x: Float) -> Float:
    """The exact one, x * Phi(x) (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415)."""
    # numpy has no erf.
    errors = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel().tolist()), np.float64, x.size)
    result: Float = x * 0.5 * (1 + errors.reshape(x.shape))
    return result


def gelu_tanh(x: Float) -> Float:
    """Its approximation by tanh, of the same source."""
    result: Float = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return result


def relu(x: Float) -> Float:
    """The positive part of each element."""
    return np.maximum(x, 0.0)


def tanh(x: Float) -> Float:
    """The hyperbolic tangent of each element."""
    result: Float = np.tanh(x)
    return result


def relative_buckets(length: int, buckets: int, farthest: int = 128) -> NDArray[np.int64]:
    """The bucket of each pair of positions, query and key, (T, T) (Raffel et al. 2020, https://arxiv.org/abs/1910.10683).

    Half of the buckets are for keys after the query. The first half of these have one distance each, the others have
    ranges that grow by a constant factor up to the distance `farthest`.
    """
    distance = np.arange(length)[:, None] - np.arange(length)
    near, half = np.abs(distance), buckets // 2
    exact = half // 2
    growth = np.arange(1, half - exact) / (half - exact)
    starts = np.round(exact * (farthest / exact) ** growth, 9)  # 16 to the power of 1/4 must be 2
    bucket = np.where(near < exact, near, exact + np.searchsorted(starts, near, side="right"))
    return np.asarray(bucket + half * (distance < 0), np.int64)


#: name in a config -> function
ACTIVATIONS: Mapping[str, Callable[[Float], Float]] = {
    "gelu": gelu,
    "relu": relu,
    "tanh": tanh,
    "gelu_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
}
