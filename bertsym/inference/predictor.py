"""Forwards over many examples: any length, sorted by length, results in input order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.bert.config import BertConfig
from bertsym.bert.inputs import INPUT_NAMES, input_shapes
from bertsym.bundle import SYMBOL, Bundle
from bertsym.devices import contexts
from bertsym.runtime import mx
from bertsym.symbol.params import Array
from bertsym.text.batches import bucket_length, inference_batches
from bertsym.text.features import Features

BATCH_SIZE = 32


class Predictor:
    """The first output of an inference symbol for encoded texts, by BucketingModule.

    Every batch has `batch_size` rows (a short one is filled up, and the filling dropped), so that one graph
    a length is bound. `length` fixes the length for symbols that take only one.
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
        self._max_length, self._length = max_length, length
        self._batch_size = batch_size
        self._contexts = list(device or [mx.cpu()])
        self._module: Any = None
        self._arg_params: dict[str, Any] = {}

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str = "cpu", batch_size: int = BATCH_SIZE) -> Predictor:
        """A predictor with the bundle's symbol and parameters."""
        signature = bundle.signature
        predictor = cls(
            mx.sym.load(str(bundle.path(SYMBOL))),
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
            name: array if isinstance(array, mx.nd.NDArray) else mx.nd.array(array)
            for name, array in arg_params.items()
        }
        # Bound anew: after a forward, mxnet 1.9.1's fused FullyConnected keeps its first weight whatever
        # set_params says (the bias does change).
        self._module = None

    def __call__(self, features: Features) -> Array:
        """The output's rows in the order of `features`: (rows, ...) float32."""
        lengths = features.lengths
        batches = inference_batches(lengths, self._batch_size)
        # The longest first: the other lengths then share its memory.
        results: Array | None = None
        for rows in reversed(batches):
            length = self._length or bucket_length(int(lengths[rows].max()), self._max_length)
            filled = np.concatenate([rows, np.repeat(rows[-1:], self._batch_size - len(rows))])
            inputs = features.batch(filled, length, self._pad_id, self._config)
            output = self._forward(inputs)[: len(rows)]
            if results is None:
                results = np.empty((len(features), *output.shape[1:]), output.dtype)
            results[rows] = output
        assert results is not None, "no examples"
        return results

    def _forward(self, inputs: tuple[Array, Array, Array]) -> Array:
        shapes = input_shapes(*inputs[0].shape)
        length = inputs[0].shape[1]
        if self._module is None:
            self._module = mx.mod.BucketingModule(
                lambda _: (self._symbol, INPUT_NAMES, None), default_bucket_key=length, context=self._contexts
            )
            self._module.bind(shapes, for_training=False)
            self._module.set_params(self._arg_params, {})
        batch = mx.io.DataBatch(
            [mx.nd.array(array) for array in inputs], bucket_key=length, provide_data=shapes, provide_label=None
        )
        self._module.forward(batch, is_train=False)
        return np.asarray(self._module.get_outputs()[0].asnumpy())
