"""One executor at a time out of many, one for each shape, all on the same memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import TrainingSymbol
from bertsym.acceleration.mask_sampling import sample_dropout_mask
from bertsym.acceleration.ndarray_views import memory_of
from bertsym.runtime import mx
from bertsym.symbol.params import Array
from bertsym.training.flat_buffers import FlatArrays

_Shape = tuple[int, ...]
_MOST_GRAPHS = 64  # bound at a time: they share the memory of their tensors, but each has operators of its own


class Part:
    """What computes a part of each batch, on one device.

    `largest` are the shapes of its inputs and labels in the largest batch, whose memory the others share.
    """

    def __init__(
        self,
        training: TrainingSymbol,
        weights: FlatArrays,
        gradients: FlatArrays,
        largest: Mapping[str, _Shape],
        grad_req: str,
        context: Any,
    ) -> None:
        self.gradients = gradients
        self._symbol, self._masks, self._weights = training.symbol, training.masks, weights
        self._grad_req, self._context = grad_req, context
        self._names = self._symbol.list_arguments()
        self._given = list(largest)
        self._inputs = {name: mx.nd.zeros(math.prod(shape), ctx=context) for name, shape in largest.items()}
        sizes = sum(math.prod(shape) for name, shape in self._argument_shapes(largest).items() if name in self._masks)
        # The operators read what numpy writes.
        self._mask_array: Any = mx.nd.empty(sizes) if sizes else None
        self._mask_view = memory_of(self._mask_array) if sizes else np.empty(0, np.float32)
        self._bound: OrderedDict[tuple[_Shape, ...], tuple[Any, list[tuple[float, Array]]]] = OrderedDict()
        self._largest: Any = None
        self.executor, self._drawn = bound = self._bind(largest)
        self._largest = self.executor
        self._before = self.executor  # of the last forward
        self._bound[tuple(largest.values())] = bound

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Take an executor for these inputs and labels, of MXNet or numpy, and copy them in."""
        shapes = {name: arrays[name].shape for name in self._given}
        key = tuple(shapes.values())
        self._before = self.executor
        bound = self._bound.pop(key, None) or self._bind(shapes)
        self._bound[key] = self.executor, self._drawn = bound
        if len(self._bound) > _MOST_GRAPHS:
            self._bound.popitem(last=False)
        for name in self._given:
            self.executor.arg_dict[name][:] = arrays[name]

    def draw(self, seed: tuple[int, ...] | None) -> None:
        """Draw the masks of dropout; without a seed nothing is dropped."""
        self.wait()
        generator = np.random.Generator(np.random.SFC64(seed))
        for p, mask in self._drawn:
            if seed is None:
                mask.fill(1)
            else:
                sample_dropout_mask(generator, p, mask)

    def wait(self) -> None:
        """Wait until nothing reads the masks any more: neither backward nor a forward alone."""
        for array in (*self.gradients.flats, *self._before.outputs):
            array.wait_to_read()

    def _argument_shapes(self, given: Mapping[str, _Shape]) -> dict[str, _Shape]:
        shapes, _, _ = self._symbol.infer_shape(**given)
        return dict(zip(self._names, shapes))

    def _bind(self, given: Mapping[str, _Shape]) -> tuple[Any, list[tuple[float, Array]]]:
        """An executor for these shapes, and its masks with their probabilities."""
        start, drawn, arguments = 0, [], {}
        for name, shape in self._argument_shapes(given).items():
            size = math.prod(shape)
            if name in self._masks:
                arguments[name] = self._mask_array[start : start + size].reshape(shape)
                drawn.append((self._masks[name], self._mask_view[start : start + size].reshape(shape)))
                start += size
            elif name in self._inputs:
                arguments[name] = self._inputs[name][:size].reshape(shape)
            else:
                arguments[name] = self._weights.arrays[name]
        # What is bound beside a forward makes MXNet run one after the other.
        mx.nd.waitall()
        executor = self._symbol.bind(
            self._context,
            arguments,
            args_grad=self.gradients.arrays,
            grad_req={name: self._grad_req if name in self.gradients.arrays else "null" for name in self._names},
            shared_exec=self._largest,
        )
        return executor, drawn
