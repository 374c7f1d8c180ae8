"""A Module of MXNet whose batches are computed in parts, at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import TrainingSymbol
from bertsym.distributed.workers import ALONE, Workers
from bertsym.encoders.inputs import Limits, check_inputs
from bertsym.errors import ModelError
from bertsym.forking import renew_after_fork
from bertsym.runtime import mx
from bertsym.symbol.params import Array
from bertsym.training.batch_shard import Part
from bertsym.training.checkpoints import check_float32
from bertsym.training.flat_buffers import FlatArrays, blocks
from bertsym.training.optimizer import AdamW

_Descriptions = Sequence[tuple[str, tuple[int, ...]]]


class PartsModule(mx.mod.BaseModule):  # type: ignore[misc]
    """Trains a symbol on batches of any shape, by AdamW.

    On a CPU the rows of a batch are computed in `parts`, each by an executor of its own, and all read the same
    parameters: many of MXNet's operators run on one thread, so that two executors of one thread are quicker than one
    of two. Otherwise each device computes a part, with parameters of its own. With `accumulate`, gradients add up
    until the next `update`.

    Random numbers depend on (`seed`, `draws`) and on the part. `limits` are those of a BERT, whose three inputs these
    are: they are checked before each forward. Of several `workers` each computes its own rows, and all make the same
    updates.
    """

    def __init__(
        self,
        training: TrainingSymbol,
        data_names: Sequence[str],
        label_names: Sequence[str],
        contexts: Sequence[Any],
        *,
        parts: int = 1,
        accumulate: bool = False,
        seed: int = 0,
        workers: Workers = ALONE,
        limits: Limits | None = None,
    ) -> None:
        super().__init__()
        self._workers = workers
        self._training, self._symbol = training, training.symbol
        self._data_names, self._label_names = list(data_names), list(label_names)
        self._contexts, self._num_parts = list(contexts), parts if len(contexts) == 1 else len(contexts)
        self._accumulate, self._seed, self._limits = accumulate, seed, limits
        self.draws = 0  #: forward passes of training so far
        self.learning_rate = 0.0  #: of the next update
        self.gradient_norm: Any = None  #: of the last update: global, before clipping; NDArray (1,)
        self._parts: list[Part] = []
        self._used: list[Part] = []  # in the last forward
        self._rows = 0  # whose gradients wait for the next update
        self._optimizers: list[AdamW] = []  # of each device
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start the threads; a forked child has none."""
        self._pool = ThreadPoolExecutor(self._num_parts)

    @property
    def data_names(self) -> list[str]:
        """Names of the inputs."""
        return self._data_names

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return list(self._symbol.list_outputs())

    @property
    def data_shapes(self) -> _Descriptions:
        """Those of the largest batch."""
        return self._data_shapes

    @property
    def label_shapes(self) -> _Descriptions:
        """Those of the largest batch."""
        return self._label_shapes

    def bind(self, data_shapes: _Descriptions, label_shapes: _Descriptions, **_: Any) -> None:
        """Make room for the largest batch; a forward may have any smaller one."""
        self._data_shapes, self._label_shapes = list(data_shapes), list(label_shapes)
        rows = -(-data_shapes[0][1][0] // self._num_parts)
        largest = {name: (rows, *shape[1:]) for name, shape in (*data_shapes, *label_shapes)}
        shapes, _, _ = self._symbol.infer_shape(**largest)
        given = {*self._data_names, *self._label_names, *self._training.masks}
        self._shapes = {name: shape for name, shape in zip(self._symbol.list_arguments(), shapes) if name not in given}
        # A block for each engine worker: what lies in one array is changed by one operator at a time.
        self._layout = blocks(self._shapes, self._num_parts if len(self._contexts) == 1 else 1)
        self._weights = [FlatArrays(self._layout, self._shapes, context) for context in self._contexts]
        self._parts = [
            Part(
                self._training,
                self._weights[i % len(self._contexts)],
                FlatArrays(self._layout, self._shapes, self._contexts[i % len(self._contexts)]),
                largest,
                "add" if self._accumulate else "write",
                self._contexts[i % len(self._contexts)],
            )
            for i in range(self._num_parts)
        ]
        self.binded = self.for_training = True

    def init_params(self, arg_params: Mapping[str, Array], **_: Any) -> None:
        """Set all parameters."""
        for weights in self._weights:
            weights.set({name: arg_params[name] for name in self._shapes})
        self.params_initialized = True

    def get_params(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Copies of the parameters; there are no auxiliary states."""
        return {name: array.copy() for name, array in self._weights[0].arrays.items()}, {}

    def init_optimizer(self, **options: Any) -> None:
        """Start AdamW; the options are those of `AdamW`."""
        self._optimizers = [AdamW(self._layout, weights, workers=self._workers, **options) for weights in self._weights]
        self.optimizer_initialized = True

    def optimizer_state(self) -> dict[str, Array]:
        """Copies of what `restore` needs besides the numbers of updates and draws; between two updates."""
        return {name: array.asnumpy() for name, array in self._states(0).items()}

    def restore(self, states: Mapping[str, Array], updates: int, draws: int) -> None:
        """Resume from the arrays that `optimizer_state` returned; raises ModelError for any others."""
        expected = {name: flat.shape for name, flat in self._states(0).items()}
        check_float32(states, expected)
        for name in expected:
            if name.startswith("variances") and (states[name] < 0).any():
                raise ModelError(f"{name} has negative elements")
        for device, optimizer in enumerate(self._optimizers):
            for name, flat in self._states(device).items():
                flat[:] = states[name]
            optimizer.count = updates
        self.draws = draws

    def _states(self, device: int) -> dict[str, Any]:
        optimizer = self._optimizers[device]
        kinds = {"weights": self._weights[device].flats, "means": optimizer.means, "variances": optimizer.variances}
        return {f"{kind}{i}": flat for kind, flats in kinds.items() for i, flat in enumerate(flats)}

    def forward(self, data_batch: Any, is_train: bool | None = True) -> None:
        """Compute a batch, whose arrays are of MXNet or of numpy; raises DataError for inputs beyond the limits."""
        if self._limits is not None:
            token_ids, token_types, valid_length = map(_as_numpy, data_batch.data)
            check_inputs(token_ids, token_types, valid_length, self._limits)
        arrays = dict(zip([*self._data_names, *self._label_names], [*data_batch.data, *data_batch.label]))
        rows = len(data_batch.data[0])
        ends = [rows * i // self._num_parts for i in range(self._num_parts + 1)]
        shares = [(part, start, end) for part, start, end in zip(self._parts, ends, ends[1:]) if end > start]
        self._used = [part for part, _, _ in shares]
        for part, start, end in shares:
            part.load({name: array[start:end] for name, array in arrays.items()})
        first = self._workers.rank * self._num_parts
        seeds = [(self._seed, self.draws, first + i) if is_train else None for i in range(len(shares))]
        list(self._pool.map(Part.draw, self._used, seeds))
        if is_train:
            self.draws += 1
            self._rows += rows
        for part in self._used:
            part.executor.forward(is_train=bool(is_train))

    def backward(self, out_grads: None = None) -> None:
        """Compute the gradients of the last forward."""
        for part in self._used:
            part.executor.backward()

    def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """Copies of the outputs of the last forward, (rows, ...)."""
        outputs = zip(*(part.executor.outputs for part in self._used))
        return [mx.nd.concat(*(one.as_in_context(self._contexts[0]) for one in parts), dim=0) for parts in outputs]

    def update(self, rows: int | None = None) -> None:
        """Change the parameters by the gradients since the last update, which are sums over the rows.

        `rows` are those of all workers. Raises WorkersLost, before anything has changed.
        """
        gradients = [part.gradients for part in (self._parts if self._accumulate or not self._rows else self._used)]
        if not self._rows:
            for gradient in gradients:
                gradient.clear()
        total = gradients[0]
        for other in gradients[1:]:
            for flat, more in zip(total.flats, other.flats):
                mx.nd.elemwise_add(flat, more.as_in_context(flat.context), out=flat)
        self._workers.add(total.flats)
        for optimizer, part in zip(self._optimizers, self._parts):
            on_device = total if len(self._contexts) == 1 else part.gradients
            if on_device is not total:
                for flat, summed in zip(on_device.flats, total.flats):
                    summed.copyto(flat)
            self.gradient_norm = optimizer.update(on_device, rows or self._rows, self.learning_rate)
        self._rows = 0
        if self._accumulate:
            for part in self._parts:
                part.gradients.clear()


def _as_numpy(array: Any) -> Array:
    return np.asarray(array.asnumpy() if isinstance(array, mx.nd.NDArray) else array)
