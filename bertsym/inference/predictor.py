"""Forwards over many examples: any length, sorted by length, results in input order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import fast_symbol
from bertsym.bert.config import BertConfig
from bertsym.bert.inputs import INPUT_NAMES, input_shapes
from bertsym.bundle import SYMBOL, Bundle
from bertsym.devices import contexts
from bertsym.errors import DataError, ModelError
from bertsym.runtime import mx, mxnet_errors, quiet_stderr
from bertsym.symbol.params import Array
from bertsym.text.batches import bucket_length, inference_batches
from bertsym.text.features import Features

BATCH_SIZE = 32


class Predictor:
    """The first output of an inference symbol for encoded texts, by BucketingModule.

    Every batch has `batch_size` rows, or for few rows the next power of two; a short one is filled up, and the
    filling dropped, so that the number of graphs stays small. `length` fixes the length for symbols that take
    only one.
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
        self._fast_symbol: Any = None
        self._max_length, self._length = max_length, length
        self._batch_size = batch_size
        self._contexts = list(device or [mx.cpu()])
        self._module: Any = None
        self._arg_params: dict[str, Any] = {}

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str = "cpu", batch_size: int = BATCH_SIZE) -> Predictor:
        """A predictor with the bundle's symbol and parameters."""
        signature = bundle.signature
        with quiet_stderr():
            symbol = mx.sym.load(str(bundle.path(SYMBOL)))
        predictor = cls(
            symbol,
            bundle.config,
            bundle.vocabulary().index("[PAD]"),
            signature.max_length,
            signature.length,
            contexts(device),
            batch_size,
        )
        predictor.set_params(bundle.params())
        return predictor

    def set_params(self, arg_params: Mapping[str, Any]) -> None:
        """Use these parameters from now on; all of the symbol's and no others."""
        self._arg_params = {
            name: array if isinstance(array, mx.nd.NDArray) else mx.nd.array(array, dtype=array.dtype)
            for name, array in arg_params.items()
        }
        if self._fast_symbol is None:
            self._fast_symbol = fast_symbol(self._symbol, {name: array.shape for name, array in arg_params.items()})
        # Bound anew: after a forward, mxnet 1.9.1's fused FullyConnected keeps its first weight whatever
        # set_params says (the bias does change).
        self._module = None

    def __call__(self, features: Features, on_rows: Callable[[int], object] = lambda count: None) -> Array:
        """The output's rows in the order of `features`: (rows, ...) float32; `on_rows` hears how many are done.

        Raises DataError for no rows, and ModelError when an output is not finite.
        """
        if not len(features):
            raise DataError("no rows")
        lengths = features.lengths
        batch_size = min(self._batch_size, 1 << (len(features) - 1).bit_length())
        outputs = []
        batches = inference_batches(lengths, batch_size)
        for rows in batches:
            length = self._length or bucket_length(int(lengths[rows].max()), self._max_length)
            filled = np.concatenate([rows, np.repeat(rows[-1:], batch_size - len(rows))])
            with mxnet_errors(self._symbol.list_outputs()[0]):
                output = self._forward(features.batch(filled, length, self._pad_id, self._config))
            if not np.isfinite(output).all():
                raise ModelError(f"an output of {self._symbol.list_outputs()[0]} is not finite")
            outputs.append(output[: len(rows)])
            on_rows(len(rows))
        results = np.empty((len(features), *outputs[0].shape[1:]), outputs[0].dtype)
        results[np.concatenate(batches)] = np.concatenate(outputs)
        return results

    def _forward(self, inputs: tuple[Array, Array, Array]) -> Array:
        if self._module is None:
            # The largest shape first: the others share its memory.
            largest = (self._batch_size, self._length or self._max_length)
            self._module = mx.mod.BucketingModule(
                lambda _: (self._fast_symbol, INPUT_NAMES, None), default_bucket_key=largest, context=self._contexts
            )
            self._module.bind(input_shapes(*largest), for_training=False)
            self._module.set_params(self._arg_params, {})
        batch = mx.io.DataBatch(
            [mx.nd.array(array) for array in inputs],
            bucket_key=inputs[0].shape,
            provide_data=input_shapes(*inputs[0].shape),
            provide_label=None,
        )
        self._module.forward(batch, is_train=False)
        return np.asarray(self._module.get_outputs()[0].asnumpy())
