"""Batched forward passes over many examples, sorted by length, with results in input order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import to_symbol
from bertsym.acceleration.inference_symbols import FastInference, InferenceSymbols
from bertsym.array import Array
from bertsym.bundle import Bundle
from bertsym.devices import contexts
from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES, TOKEN_IDS
from bertsym.errors import DataError, ModelError
from bertsym.forking import ForkSafeLock, no_fork
from bertsym.inference.executors import Executors, Weights
from bertsym.inference.row_predictor import RowPredictor, T
from bertsym.mxnet_runtime import engine_workers, mx, mxnet_errors, share_threads
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import shapes_of
from bertsym.text.batches import cached_rows, few_length, inference_batches, inference_length
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded

BATCH_SIZE = 32
_FEW = 8  # rows that one executor with all threads computes faster than several with one thread each


class MXNetPredictor(RowPredictor):
    """Computes the first output of an inference symbol for encoded texts.

    On a CPU several executors compute many rows at a time, each with its share of the threads, because many MXNet
    operators use a single thread; few rows are computed by one executor with all threads. Each GPU has one executor. A
    batch has at most `batch_size` rows, on a CPU fewer if they are long. `length` is the sequence length of symbols
    that accept only one.
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
        arguments = symbol.list_arguments()
        self._input_names = [name for name in INPUT_NAMES if name in arguments]
        self._max_length, self._length = max_length, length
        self._batch_size = batch_size
        self._contexts = list(device or [mx.cpu()])
        self._fast: FastInference | None = None
        self._executors: list[Executors] = []
        self._lock = ForkSafeLock()

    @classmethod
    def from_bundle(
        cls, bundle: Bundle, device: str = "cpu", batch_size: int = BATCH_SIZE, graph: SymbolGraph | None = None
    ) -> MXNetPredictor:
        """Return a predictor with the bundle's parameters and symbol, or a `graph` for any length instead of it."""
        signature = bundle.signature
        with mxnet_errors(str(bundle.prefix)):
            symbol = to_symbol(bundle.graph() if graph is None else graph)
        predictor = cls(
            symbol,
            bundle.config,
            signature.pad_id,
            signature.max_length,
            signature.length if graph is None else None,
            contexts(device),
            batch_size,
        )
        predictor.set_params(bundle.params())
        return predictor

    def set_params(self, arg_params: Mapping[str, Array]) -> None:
        """Set the parameters; raises ModelError if one of the symbol's parameters is missing."""
        names = [name for name in self._symbol.list_arguments() if name not in self._input_names]
        missing = [name for name in names if name not in arg_params]
        if missing:
            raise ModelError(f"missing parameters: {', '.join(missing[:5])}")
        arg_params = {name: arg_params[name] for name in names}  # read once if they are in a file
        with self._lock, no_fork():
            # New executors, because mxnet 1.9.1's fused operators keep their first weight.
            if self._on_cpu:
                if self._fast is None:
                    self._fast = FastInference(self._symbol, shapes_of(arg_params))
                symbols, arrays = self._fast.symbols, self._fast.parameters(arg_params)
                # oneDNN copies the weights of products into its own layout, but not embedding tables.
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

    def each(
        self,
        features: Features,
        keep: Callable[[Array, Encoded], T],
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> list[T]:
        """Return what `keep` returns for each example, as `RowPredictor.each` describes."""
        if not len(features):
            raise DataError("no rows: give at least one text")
        found: dict[int, T] = {}

        def finish(rows: Array, values: Array) -> None:
            for row, value in zip(rows.tolist(), values):
                found[row] = keep(value, features.examples[row])
            on_rows(len(rows))

        with self._lock:
            self._compute_all(features, finish)
        return [found[row] for row in range(len(features))]

    def _compute_all(self, features: Features, finish: Callable[[Array, Array], None]) -> None:
        """Compute all batches; `finish` is called with the rows and the outputs of each."""
        few = len(features) < _FEW
        executors = self._executors[:1] if few else self._executors

        def length_of(longest: int) -> int:
            if few and self._on_cpu:
                return self._length or few_length(longest, self._max_length, executors[0].capacity)
            return self._length or inference_length(longest, self._max_length)

        def rows_of(longest: int) -> int:
            return min(self._batch_size, cached_rows(length_of(longest))) if self._on_cpu else self._batch_size

        lengths = np.full(len(features), self._length) if self._length else features.lengths
        batches = inference_batches(lengths, rows_of, len(executors))
        executors = executors[: len(batches)]
        if self._on_cpu:
            share_threads(len(executors))
        at_once = len(executors) * executors[0].capacity
        for start in range(0, len(batches), at_once):
            self._compute(features, batches[start : start + at_once], executors, length_of, finish)

    def _compute(
        self,
        features: Features,
        batches: list[Array],
        executors: list[Executors],
        length_of: Callable[[int], int],
        finish: Callable[[Array, Array], None],
    ) -> None:
        """Compute some batches, at most as many as the executors can bind."""
        work = [
            (rows, self._inputs(features, rows, length_of), executors[i % len(executors)])
            for i, rows in enumerate(batches)
        ]
        # All are bound before one runs: MXNet serializes executors that are bound while a forward runs. The largest is
        # bound first: the others share its memory.
        for _, inputs, executor in sorted(work, key=lambda each: -each[1][TOKEN_IDS].size):
            with mxnet_errors(self._output_name):
                executor.prepare(inputs)
        running: deque[tuple[Array, Any]] = deque()

        def finish_first() -> None:
            rows, output = running.popleft()
            with mxnet_errors(self._output_name):
                values = self._wait_for(output, len(rows))
            finish(rows, values)

        for rows, inputs, executor in work:
            if len(running) == len(executors):
                finish_first()
            with mxnet_errors(self._output_name):
                running.append((rows, executor.forward(inputs)))
        while running:
            finish_first()

    def _inputs(self, features: Features, rows: Array, length_of: Callable[[int], int]) -> dict[str, Array]:
        """Return the inputs for rows sorted by descending length.

        A few rows are padded to a power of two by repeating the last row, so that few executors are bound.
        """
        length = length_of(len(features.examples[rows[0]].token_ids))
        if len(features) < _FEW:
            size = min(self._batch_size, 1 << (len(rows) - 1).bit_length())
            rows = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))])
        return features.batch(rows, length, self._pad_id, self._config, self._input_names)

    def _wait_for(self, output: Any, rows: int) -> Array:
        """Wait for an output and return its first rows."""
        values = np.asarray(output.asnumpy())[:rows]
        if not np.isfinite(values).all():
            raise ModelError(f"an output of {self._output_name} is not finite: check the model with bertsym verify")
        return values
