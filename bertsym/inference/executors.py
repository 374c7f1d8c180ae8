"""Executors for inference: bound per shape, in bounded number and with bounded memory."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from bertsym.acceleration.inference_symbols import InferenceSymbols
from bertsym.acceleration.ndarray_views import memory_of
from bertsym.array import Array
from bertsym.encoders.inputs import INPUT_NAMES, TOKEN_IDS, VALID_LENGTH, input_shapes
from bertsym.forking import no_fork
from bertsym.mxnet_runtime import mx
from bertsym.text.batches import FEW_TOKENS

_MAX_GRAPHS = 24
_MAX_WEIGHTS = 3 << 29  # bytes; each bound executor has a copy of the weights in oneDNN's layout

_binding = threading.Lock()  # MXNet does not guarantee that binding is thread-safe


class Weights(dict[str, Any]):
    """Parameters on a device by name, copied there at their first use; several Executors may share them."""

    def __init__(self, arrays: Mapping[str, Array], device: Any) -> None:
        super().__init__()
        self._arrays, self._device = dict(arrays), device

    def __missing__(self, name: str) -> Any:
        array = self._arrays.pop(name)
        # By default mx.nd.array converts everything to float32, even the weights of int8 models.
        self[name] = mx.nd.array(array, self._device, np.int8 if array.dtype == np.int8 else np.float32)
        return self[name]


class _Bound:
    """A bound executor with its own input arrays."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self._feeds = {name: self._feed(executor.arg_dict[name]) for name in INPUT_NAMES if name in executor.arg_dict}
        self._outputs: list[Any] = []

    def forward(self, inputs: Mapping[str, Array]) -> Any:
        """Start a forward pass and return its first output without waiting."""
        # Wait until the previous forward has consumed its inputs; its own errors are reported elsewhere.
        for output in self._outputs:
            with contextlib.suppress(mx.base.MXNetError):
                output.wait_to_read()
        for name, feed in self._feeds.items():
            feed[:] = inputs[name]
        self._outputs = self.executor.forward(is_train=False)
        return self._outputs[0]

    @staticmethod
    def _feed(array: Any) -> Any:
        """Return the array to write an input to: on a CPU a view, since a copy by MXNet waits for a worker twice."""
        if array.context.device_type != "cpu":
            return array
        return memory_of(array)


class Executors:
    """Runs the forward passes of a model on one device, one after the other.

    An executor is bound for each new shape, and the least recently used one is dropped. All share the memory of the
    largest. `nbytes` is the size of the weights that each bound executor copies.
    """

    def __init__(self, device: Any, symbols: InferenceSymbols, weights: Weights, nbytes: int) -> None:
        self._device, self._symbols, self._weights = device, symbols, weights
        # The key is rows, length and symbol; one symbol may serve all batches.
        self._bound: collections.OrderedDict[tuple[int, int, int], _Bound] = collections.OrderedDict()
        self._largest: tuple[int, Any] = (0, None)
        #: largest number of executors that are bound at a time
        self.capacity = max(2, min(_MAX_GRAPHS, _MAX_WEIGHTS // max(1, nbytes)))

    def forward(self, inputs: Mapping[str, Array]) -> Any:
        """Return the first output, an NDArray, for inputs by name, without waiting for it.

        The output is valid until the next forward of any shape, since all executors share memory.
        """
        return self.prepare(inputs).forward(inputs)

    def prepare(self, inputs: Mapping[str, Array]) -> _Bound:
        """Return the executor for inputs of these shapes; binds it if necessary."""
        rows, length = inputs[TOKEN_IDS].shape
        symbol = self._symbol(rows * length, bool((inputs[VALID_LENGTH] < length).any()))
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
        inputs = dict(input_shapes(rows, length))
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
