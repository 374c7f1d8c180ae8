"""The functions that encoders and their heads are made of, float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Array = np.ndarray[Any, np.dtype[Any]]


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


#: name in a config -> function
ACTIVATIONS: Mapping[str, Callable[[Float], Float]] = {
    "gelu": gelu,
    "relu": relu,
    "gelu_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
}
