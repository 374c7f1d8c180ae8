"""Calibrate: find the ranges of a model's tensors on real texts, for quantization."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from bertsym.array import Array
from bertsym.encoders.inputs import TOKEN_IDS, VALID_LENGTH
from bertsym.mxnet_runtime import mx

Range = tuple[float, float]
_BINS = 8001  # as in mxnet's own calibration; odd, and a multiple of 3
_LEVELS = 255  # of int8, symmetric


class _Collector(Protocol):
    def add(self, values: Array) -> None:
        """Record elements of the tensor."""

    def range(self) -> Range:
        """Return the range for quantization."""


class _Extremes:
    """The range from the smallest to the largest element: nothing is clipped."""

    def __init__(self) -> None:
        self._least, self._greatest = np.inf, -np.inf

    def add(self, values: Array) -> None:
        self._least = min(self._least, float(values.min()))
        self._greatest = max(self._greatest, float(values.max()))

    def range(self) -> Range:
        return self._least, self._greatest


class _Entropy:
    """The range with the least loss of information (KL divergence): rare large elements are clipped.

    Source: Migacz 2017, "8-bit inference with TensorRT". Like mxnet.contrib.quantization, but with a histogram of
    constant size: mxnet's histogram grows with the outliers, and its search time with the square of the histogram.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._limit = 0.0  # of the histogram, on both sides of 0
        self._least, self._furthest = np.inf, 0.0

    def add(self, values: Array) -> None:
        furthest = float(np.abs(values).max())
        self._least, self._furthest = min(self._least, float(values.min())), max(self._furthest, furthest)
        if furthest == 0:
            return
        self._limit = self._limit or furthest
        while furthest > self._limit:
            third = _BINS // 3
            inner = self._counts.reshape(third, 3).sum(axis=1)
            self._counts = np.pad(inner, third)
            self._limit *= 3
        self._counts += np.histogram(values, _BINS, (-self._limit, self._limit))[0]

    def range(self) -> Range:
        if self._limit == 0:
            return 0.0, 0.0
        # Tensors without negative elements use the whole range of uint8.
        levels = 2 * _LEVELS + 1 if self._least >= 0 else _LEVELS
        edges = np.linspace(-self._limit, self._limit, _BINS + 1)
        threshold, _ = mx.nd.contrib.calibrate_entropy(
            mx.nd.array(self._counts), mx.nd.array(edges), num_quantized_bins=levels
        )
        found = min(float(threshold.asscalar()), self._furthest)
        return (0.0 if self._least >= 0 else -found), found


#: name -> class that computes the range of a tensor
CALIBRATIONS: dict[str, type[_Collector]] = {"entropy": _Entropy, "naive": _Extremes}


def tensor_ranges(
    symbol: Any,
    arg_params: dict[str, Any],
    tensors: Sequence[str],
    batches: Iterable[Mapping[str, Array]],
    calibration: str,
) -> dict[str, Range]:
    """Find the range of each tensor of `symbol`, a float32 graph, on `batches` of its inputs by name.

    `tensors` are names of its internal outputs. Elements at padding are ignored, because no output depends on them.
    """
    internals = symbol.get_internals()
    outputs = mx.sym.Group([internals[name] for name in tensors])
    collectors = [CALIBRATIONS[calibration]() for _ in tensors]
    modules: dict[tuple[int, ...], Any] = {}
    for inputs in batches:
        shape = inputs[TOKEN_IDS].shape
        if shape not in modules:
            module = mx.mod.Module(outputs, list(inputs), None)
            module.bind([(name, array.shape) for name, array in inputs.items()], for_training=False)
            module.set_params(arg_params, {}, allow_extra=True)
            modules = {shape: module}  # one at a time: all tensors of a batch are in memory
        modules[shape].forward(mx.io.DataBatch([mx.nd.array(array) for array in inputs.values()]), is_train=False)
        tokens = np.arange(shape[1]) < inputs[VALID_LENGTH][:, None]
        for collector, output in zip(collectors, modules[shape].get_outputs()):
            values = output.asnumpy()
            collector.add(values[tokens] if values.shape[:2] == shape else values)
    return {name: collector.range() for name, collector in zip(tensors, collectors)}
