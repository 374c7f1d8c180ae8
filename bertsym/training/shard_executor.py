"""Executors of one shard: bound per shape, in bounded number, and sharing their memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import TrainingSymbol
from bertsym.acceleration.mask_sampling import sample_dropout_mask
from bertsym.acceleration.ndarray_views import memory_of
from bertsym.array import Array
from bertsym.mxnet_runtime import mx
from bertsym.training.flat_buffers import FlatArrays

_Shape = tuple[int, ...]
_MAX_EXECUTORS = 64  # bound at a time: they share the memory of their tensors, but each has operators of its own


@dataclass(frozen=True)
class BoundShard:
    """An executor for the shapes of one shard, with the dropout probability and the elements of each mask."""

    executor: Any
    masks: list[tuple[float, Array]]


class ShardExecutor:
    """Binds executors for one shard of each batch on one device, one per shape.

    `weights` are the parameters by name, those with `gradients` and constants. `largest` are the shapes of inputs and
    labels in the largest shard, whose memory all executors share.
    """

    def __init__(
        self,
        training: TrainingSymbol,
        weights: Mapping[str, Any],
        gradients: FlatArrays,
        largest: Mapping[str, _Shape],
        grad_req: str,
        context: Any,
    ) -> None:
        self.gradients = gradients
        self._symbol, self._masks, self._weights = training.symbol, training.masks, weights
        self._grad_req, self._context = grad_req, context
        self._arguments = self._symbol.list_arguments()
        self._input_names = list(largest)
        self._inputs = {name: mx.nd.zeros(math.prod(shape), ctx=context) for name, shape in largest.items()}
        size = sum(math.prod(shape) for name, shape in self._argument_shapes(largest).items() if name in self._masks)
        # The operators read the same memory that numpy writes.
        self._mask_array: Any = mx.nd.empty(size) if size else None
        self._mask_view = memory_of(self._mask_array) if size else np.empty(0, np.float32)
        self._bound: OrderedDict[tuple[_Shape, ...], BoundShard] = OrderedDict()
        self._largest: Any = None
        bound = self._bind(largest)
        self._largest = self._last = bound.executor  # the executor that read the masks last
        self._bound[tuple(largest.values())] = bound

    def load(self, arrays: Mapping[str, Any]) -> BoundShard:
        """Copy these inputs and labels, MXNet or numpy arrays by name, to the executor for their shapes; return it."""
        shapes = {name: arrays[name].shape for name in self._input_names}
        key = tuple(shapes.values())
        self._bound[key] = bound = self._bound.pop(key, None) or self._bind(shapes)
        if len(self._bound) > _MAX_EXECUTORS:
            self._bound.popitem(last=False)
        for name in self._input_names:
            bound.executor.arg_dict[name][:] = arrays[name]
        return bound

    def draw_masks(self, bound: BoundShard, seed: tuple[int, ...]) -> None:
        """Draw the dropout masks once the previous forward and backward no longer read them."""
        for array in (*self.gradients.flats, *self._last.outputs):
            array.wait_to_read()
        self._last = bound.executor
        generator = np.random.Generator(np.random.SFC64(seed))
        for p, mask in bound.masks:
            sample_dropout_mask(generator, p, mask)

    def _argument_shapes(self, given: Mapping[str, _Shape]) -> dict[str, _Shape]:
        shapes, _, _ = self._symbol.infer_shape(**given)
        return dict(zip(self._arguments, shapes))

    def _bind(self, given: Mapping[str, _Shape]) -> BoundShard:
        start, masks, arguments = 0, [], {}
        for name, shape in self._argument_shapes(given).items():
            size = math.prod(shape)
            if name in self._masks:
                arguments[name] = self._mask_array[start : start + size].reshape(shape)
                masks.append((self._masks[name], self._mask_view[start : start + size].reshape(shape)))
                start += size
            elif name in self._inputs:
                arguments[name] = self._inputs[name][:size].reshape(shape)
            else:
                arguments[name] = self._weights[name]
        # Executors that are bound while a forward runs are serialized by MXNet from then on.
        mx.nd.waitall()
        executor = self._symbol.bind(
            self._context,
            arguments,
            args_grad=self.gradients.arrays,
            grad_req={name: self._grad_req if name in self.gradients.arrays else "null" for name in self._arguments},
            shared_exec=self._largest,
        )
        return BoundShard(executor, masks)
