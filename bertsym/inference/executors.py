"""Bound graphs by shape: a bounded number of them, and of the memory that they hold."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.acceleration.inference import InferenceSymbols
from bertsym.acceleration.ndarray_views import memory_of
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.forking import no_fork
from bertsym.runtime import mx
from bertsym.symbol.params import Array
from bertsym.text.batches import FEW_TOKENS

_MAX_GRAPHS = 24
_MAX_WEIGHTS = 3 << 29  # bytes of weights, of which each bound graph has a copy in oneDNN's layout

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


class _Bound:
    """A graph with arrays of its own for the inputs."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self._feeds = [self._feed(executor.arg_dict.get(name)) for name in INPUT_NAMES]
        self._outputs: list[Any] = []

    def forward(self, inputs: Sequence[Array]) -> Any:
        """The first output, still being computed."""
        # Until the forward before has read its inputs; its error, if it failed, is not one of these.
        for output in self._outputs:
            with contextlib.suppress(mx.base.MXNetError):
                output.wait_to_read()
        for feed, array in zip(self._feeds, inputs):
            if feed is not None:
                feed[:] = array
        self._outputs = self.executor.forward(is_train=False)
        return self._outputs[0]

    @staticmethod
    def _feed(array: Any) -> Any:
        """What an input is written into: on a CPU its memory, since each copy by MXNet waits for a worker twice."""
        if array is None or array.context.device_type != "cpu":
            return array
        return memory_of(array)


class Executors:
    """Forwards of one function on one device, one after the other.

    A graph is bound when its shape first comes; the least recently used is dropped. The memory of the
    largest is shared by all. `nbytes` is the size of the weights that a bound graph copies.
    """

    def __init__(self, device: Any, symbols: InferenceSymbols, weights: Weights, nbytes: int) -> None:
        self._device, self._symbols, self._weights = device, symbols, weights
        # By rows, length and symbol, which may be one for all batches.
        self._bound: collections.OrderedDict[tuple[int, int, int], _Bound] = collections.OrderedDict()
        self._largest: tuple[int, Any] = (0, None)
        #: how many graphs are bound at a time
        self.capacity = max(2, min(_MAX_GRAPHS, _MAX_WEIGHTS // max(1, nbytes)))

    def forward(self, inputs: Sequence[Array]) -> Any:
        """The first output for data0, data1 (N, T) and data2 (N,): an NDArray that is still being computed.

        It holds until the next forward of any shape, since they share memory.
        """
        return self.prepare(inputs).forward(inputs)

    def prepare(self, inputs: Sequence[Array]) -> _Bound:
        """The graph for inputs of these shapes, bound if it is not."""
        rows, length = inputs[0].shape
        symbol = self._symbol(rows * length, bool((inputs[2] < length).any()))
        key = (rows, length, id(symbol))
        bound = self._bound.pop(key, None)
        if bound is None:
            if len(self._bound) >= self.capacity:
                self._bound.popitem(last=False)
            with no_fork(), _binding:
                bound = _Bound(self._bind(symbol, rows, length))
        self._bound[key] = bound
        return bound

    def _symbol(self, tokens: int, padded: bool) -> Any:
        if tokens <= FEW_TOKENS:
            return self._symbols.few
        return self._symbols.padded if padded else self._symbols.unpadded

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
