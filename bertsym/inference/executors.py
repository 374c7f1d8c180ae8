"""Bound graphs by shape: a bounded number of them, and of the memory that they hold."""

from __future__ import annotations

import collections
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.acceleration.inference import InferenceSymbols
from bertsym.bert.inputs import INPUT_NAMES
from bertsym.runtime import mx
from bertsym.symbol.params import Array

_SHORT = 128  # tokens of which a forward takes less time than packing the weights anew
_MAX_GRAPHS = 32
_MAX_WEIGHTS = 1 << 30  # bytes of weights, of which each bound graph may have a copy in oneDNN's layout

_binding = threading.Lock()  # MXNet does not promise that graphs can be bound at the same time


class Weights(dict[str, Any]):
    """Parameters on a device by name, copied to it when a symbol first reads them; several Executors may share them."""

    def __init__(self, arrays: Mapping[str, Array], device: Any) -> None:
        super().__init__()
        self._arrays, self._device = dict(arrays), device

    def __missing__(self, name: str) -> Any:
        array = self._arrays.pop(name)
        # By itself mx.nd.array makes float32 of everything, of the weights of int8 models too.
        self[name] = mx.nd.array(array, self._device, np.int8 if array.dtype == np.int8 else np.float32)
        return self[name]


class Executors:
    """Forwards of one function on one device, one after the other.

    A graph is bound when its shape first comes; the one that was not used for longest is dropped. The memory of the
    largest is shared by all. `nbytes` is the size of the weights that a bound graph copies.
    """

    def __init__(self, device: Any, symbols: InferenceSymbols, weights: Weights, nbytes: int) -> None:
        self._device, self._symbols, self._weights = device, symbols, weights
        # By rows, length and symbol, which may be one for all batches.
        self._bound: collections.OrderedDict[tuple[int, int, int], Any] = collections.OrderedDict()
        self._largest: tuple[int, Any] = (0, None)
        #: how many graphs are bound at a time
        self.capacity = max(2, min(_MAX_GRAPHS, _MAX_WEIGHTS // max(1, nbytes)))

    def forward(self, inputs: Sequence[Array]) -> Any:
        """The first output for data0, data1 (N, T) and data2 (N,): an NDArray that is still being computed.

        It holds until the next forward of any shape, since they share memory.
        """
        executor = self.prepare(inputs)
        for name, array in zip(INPUT_NAMES, inputs):
            if name in executor.arg_dict:
                executor.arg_dict[name]._sync_copyfrom(array)
        return executor.forward(is_train=False)[0]

    def prepare(self, inputs: Sequence[Array]) -> Any:
        """The graph for inputs of these shapes, bound if it is not."""
        rows, length = inputs[0].shape
        symbol = self._symbol(rows * length, bool((inputs[2] < length).any()))
        key = (rows, length, id(symbol))
        executor = self._bound.pop(key, None)
        if executor is None:
            if len(self._bound) >= self.capacity:
                self._bound.popitem(last=False)
            with _binding:
                executor = self._bind(symbol, rows, length)
        self._bound[key] = executor
        return executor

    def _symbol(self, tokens: int, padded: bool) -> Any:
        if padded:
            return self._symbols.padded
        return self._symbols.short if tokens <= _SHORT else self._symbols.unpadded

    def _bind(self, symbol: Any, rows: int, length: int) -> Any:
        inputs = dict(zip(INPUT_NAMES, ((rows, length), (rows, length), (rows,))))
        arrays = {
            name: mx.nd.empty(inputs[name], self._device) if name in inputs else self._weights[name]
            for name in symbol.list_arguments()
        }
        size, largest = self._largest
        shared = largest if rows * length <= size else None
        executor = symbol.bind(self._device, arrays, grad_req="null", shared_exec=shared)
        if shared is None:
            self._largest = (rows * length, executor)
        return executor
