"""Forwards over many examples: any length, sorted by length, results in input order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import to_symbol
from bertsym.acceleration.inference import FastInference, InferenceSymbols
from bertsym.bundle import Bundle
from bertsym.devices import contexts
from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.errors import DataError, ModelError
from bertsym.forking import ForkSafeLock, no_fork
from bertsym.inference.executors import Executors, Weights
from bertsym.runtime import engine_workers, mx, mxnet_errors, share_threads
from bertsym.symbol.params import Array, shapes_of
from bertsym.text.batches import cached_rows, few_length, inference_batches, inference_length
from bertsym.text.features import Features

BATCH_SIZE = 32
_FEW = 8  # rows that one executor with all threads computes sooner than several with one each


class Predictor:
    """The first output of an inference symbol for encoded texts.

    On a CPU many rows are computed by several executors at a time, each with its share of the threads, since many of
    MXNet's operators use only one; few rows by one with all threads. On GPUs each has one. A batch has `batch_size`
    rows, on a CPU fewer if they are long. A batch with fewer rows is filled up to a power of two, and the filling
    dropped, so that the number of graphs stays small. `length` fixes the length for symbols that take only one.
    """

    def __init__(
        self,
        symbol: Any,
        config: BertConfig,
        pad_id: int,
        max_length: int,
        length: int | None = None,
        device: Sequence[Any] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._symbol, self._config, self._pad_id = symbol, config, pad_id
        self._output_name: str = symbol.list_outputs()[0]
        self._max_length, self._length = max_length, length
        self._batch_size = batch_size
        self._contexts = list(device or [mx.cpu()])
        self._fast: FastInference | None = None
        self._executors: list[Executors] = []
        self._lock = ForkSafeLock()

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str = "cpu", batch_size: int = BATCH_SIZE) -> Predictor:
        """A predictor with the bundle's symbol and parameters."""
        signature = bundle.signature
        with mxnet_errors(str(bundle.prefix)):
            symbol = to_symbol(bundle.graph())
        predictor = cls(
            symbol,
            bundle.config,
            signature.pad_id,
            signature.max_length,
            signature.length,
            contexts(device),
            batch_size,
        )
        predictor.set_params(bundle.params())
        return predictor

    def set_params(self, arg_params: Mapping[str, Array]) -> None:
        """Use these parameters from now on; raises ModelError when one of the symbol's is missing."""
        names = [name for name in self._symbol.list_arguments() if name not in INPUT_NAMES]
        missing = [name for name in names if name not in arg_params]
        if missing:
            raise ModelError(f"parameters are missing: {', '.join(missing[:5])}")
        arg_params = {name: arg_params[name] for name in names}  # read once, where they are in a file
        with self._lock, no_fork():
            # Bound again: mxnet 1.9.1's fused operators keep their first weight.
            if self._on_cpu:
                if self._fast is None:
                    self._fast = FastInference(self._symbol, shapes_of(arg_params))
                symbols, arrays = self._fast.symbols, self._fast.parameters(arg_params)
                # oneDNN keeps weights of products in a layout of its own, but no tables.
                nbytes = sum(array.nbytes for name, array in arg_params.items() if name not in self._fast.tables)
                weights = Weights(arrays, self._contexts[0])
                places = [(self._contexts[0], weights)] * engine_workers()
            else:
                symbols, nbytes = InferenceSymbols(*[self._symbol] * 3), 0
                places = [(device, Weights(arg_params, device)) for device in self._contexts]
            self._executors = [Executors(device, symbols, weights, nbytes) for device, weights in places]

    @property
    def _on_cpu(self) -> bool:
        return all(device.device_type == "cpu" for device in self._contexts)

    def __call__(self, features: Features, on_rows: Callable[[int], object] = lambda count: None) -> Array:
        """The output's rows in the order of `features`: (rows, ...) float32; `on_rows` is called with the number done.

        Raises DataError for no rows, and ModelError when an output is not finite.
        """
        if not len(features):
            raise DataError("no rows")
        with self._lock:
            return self._outputs(features, on_rows)

    def _outputs(self, features: Features, on_rows: Callable[[int], object]) -> Array:
        lengths = features.lengths
        executors = self._executors if len(features) >= _FEW else self._executors[:1]
        share = -(-len(features) // len(executors))
        batch_size = self._filled(share)

        def length_of(longest: int) -> int:
            if len(features) < _FEW and self._on_cpu:
                return self._length or few_length(longest, self._max_length, executors[0].capacity)
            return self._length or inference_length(longest, self._max_length)

        def rows_of(longest: int) -> int:
            return min(batch_size, cached_rows(length_of(longest))) if self._on_cpu else batch_size

        # The longest first, whose memory the others share.
        batches = inference_batches(lengths, rows_of)
        executors = executors[: len(batches)]
        if self._on_cpu:
            share_threads(len(executors))
        results = []
        at_once = len(executors) * executors[0].capacity
        for start in range(0, len(batches), at_once):
            results += self._computed(features, batches[start : start + at_once], executors, length_of, on_rows)
        order, values = (np.concatenate(parts) for parts in zip(*results))
        ordered: Array = np.empty_like(values)
        ordered[order] = values
        return ordered

    def _computed(
        self,
        features: Features,
        batches: list[Array],
        executors: list[Executors],
        length_of: Callable[[int], int],
        on_rows: Callable[[int], object],
    ) -> list[tuple[Array, Array]]:
        """Rows and their values, of no more batches than the executors can hold graphs of."""
        work = [
            (rows, self._inputs(features, rows, length_of), executors[i % len(executors)])
            for i, rows in enumerate(batches)
        ]
        # Bound before any of them runs: what is bound beside a forward makes MXNet run one after the other.
        for _, inputs, executor in work:
            with mxnet_errors(self._output_name):
                executor.prepare(inputs)
        running: deque[tuple[Array, Any]] = deque()
        results: list[tuple[Array, Array]] = []

        def finish() -> None:
            rows, output = running.popleft()
            with mxnet_errors(self._output_name):
                results.append((rows, self._finished(output, len(rows))))
            on_rows(len(rows))

        for rows, inputs, executor in work:
            if len(running) == len(executors):
                finish()
            with mxnet_errors(self._output_name):
                running.append((rows, executor.forward(inputs)))
        while running:
            finish()
        return results

    def _filled(self, rows: int) -> int:
        """The rows of a batch for so many: a power of two, up to the batch size."""
        return min(self._batch_size, 1 << (rows - 1).bit_length())

    def _inputs(self, features: Features, rows: Array, length_of: Callable[[int], int]) -> tuple[Array, Array, Array]:
        """data0, data1 and data2 of some rows, the longest first, the last one repeated as the class says."""
        length = length_of(len(features.examples[rows[0]].token_ids))
        filled = np.concatenate([rows, np.repeat(rows[-1:], self._filled(len(rows)) - len(rows))])
        return features.batch(filled, length, self._pad_id, self._config)

    def _finished(self, output: Any, rows: int) -> Array:
        """The first rows of an output, when it is computed."""
        values = np.asarray(output.asnumpy())[:rows]
        if not np.isfinite(values).all():
            raise ModelError(f"an output of {self._output_name} is not finite")
        return values
