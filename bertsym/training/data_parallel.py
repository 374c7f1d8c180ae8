"""Data-parallel training steps: every batch is split into shards that are computed at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import TrainingSymbol
from bertsym.array import Array
from bertsym.distributed.workers import ALONE, Workers
from bertsym.encoders.inputs import TOKEN_IDS, TOKEN_TYPES, VALID_LENGTH, Limits, check_inputs
from bertsym.errors import ModelError
from bertsym.forking import renew_after_fork
from bertsym.mxnet_runtime import mx
from bertsym.training.checkpoints import check_float32
from bertsym.training.finetune_options import FinetuneOptions
from bertsym.training.flat_buffers import FlatArrays, split_into_blocks
from bertsym.training.optimizer import AdamW
from bertsym.training.shard_executor import ShardExecutor


class DataParallelExecutor:
    """Computes gradients of a training symbol and applies AdamW updates to its parameters.

    On a CPU each batch is split into `shards`; each shard has its own executor, and all share one copy of the
    parameters. Many MXNet operators use a single thread, so two executors with one thread each are faster than one
    executor with two. With several devices there is one shard per device, and each device has a copy of the parameters.

    Dropout masks depend on the seed, the pass number and the shard. With several `workers` each computes its own rows,
    and all apply the same update.
    """

    def __init__(
        self,
        training: TrainingSymbol,
        params: Mapping[str, Array],
        largest: Mapping[str, tuple[int, ...]],
        options: FinetuneOptions,
        *,
        contexts: Sequence[Any],
        shards: int = 1,
        limits: Limits | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """Bind the symbol.

        Args:
            params: Initial parameters; only those that the symbol has are used.
            largest: Shapes of inputs and labels in the largest batch. A batch may have any smaller shape.
            options: The seed, whether gradients accumulate, and the optimizer's settings.
            limits: Limits of a BERT's inputs, which are then checked before each forward pass.
        """
        self._contexts, self._num_shards = list(contexts), shards if len(contexts) == 1 else len(contexts)
        self._seed, self._accumulates = options.seed, options.accumulate > 1
        self._limits, self._workers = limits, workers
        rows = -(-next(iter(largest.values()))[0] // self._num_shards)
        shard_shapes = {name: (rows, *shape[1:]) for name, shape in largest.items()}
        arguments = training.symbol.list_arguments()
        argument_shapes, _, _ = training.symbol.infer_shape(**shard_shapes)
        shapes = {
            name: shape
            for name, shape in zip(arguments, argument_shapes)
            if name not in largest and name not in training.masks and name not in training.constants
        }
        self._constants = {name: params[name] for name in arguments if name in training.constants}
        # One block per engine worker: a single operator at a time can write to an array.
        layout = split_into_blocks(shapes, self._num_shards if len(contexts) == 1 else 1, training.multipliers)
        self._weights = [FlatArrays(layout, shapes, context) for context in contexts]
        for weights in self._weights:
            weights.set({name: params[name] for name in shapes})
        constants = [
            {name: mx.nd.array(array, context) for name, array in self._constants.items()} for context in contexts
        ]
        self._shards = [
            ShardExecutor(
                training,
                {**self._weights[i % len(contexts)].arrays, **constants[i % len(contexts)]},
                FlatArrays(layout, shapes, contexts[i % len(contexts)]),
                shard_shapes,
                "add" if self._accumulates else "write",
                contexts[i % len(contexts)],
            )
            for i in range(self._num_shards)
        ]
        self._optimizers = [
            AdamW(
                layout,
                weights,
                weight_decay=options.weight_decay,
                clip_norm=options.clip_norm,
                workers=workers,
            )
            for weights in self._weights
        ]
        self._with_gradients: list[ShardExecutor] = []  # shards whose gradients wait for the next update
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start the threads; a forked child has none."""
        self._pool = ThreadPoolExecutor(self._num_shards)

    def compute_gradients(self, arrays: Mapping[str, Any], pass_number: int) -> list[Any]:
        """Run forward and backward for inputs and labels by name, and return the outputs (rows, ...), NDArrays.

        `pass_number` selects the dropout masks. With several passes before an update, gradients are summed. Raises
        DataError for inputs that exceed the limits.
        """
        if self._limits is not None:
            token_types = _as_numpy(arrays[TOKEN_TYPES]) if TOKEN_TYPES in arrays else None
            check_inputs(_as_numpy(arrays[TOKEN_IDS]), token_types, _as_numpy(arrays[VALID_LENGTH]), self._limits)
        rows = len(next(iter(arrays.values())))
        ends = [rows * i // self._num_shards for i in range(self._num_shards + 1)]
        slices = [(shard, start, end) for shard, start, end in zip(self._shards, ends, ends[1:]) if end > start]
        shards = [shard for shard, _, _ in slices]
        bound = [shard.load({name: array[start:end] for name, array in arrays.items()}) for shard, start, end in slices]
        first = self._workers.rank * self._num_shards
        seeds = [(self._seed, pass_number, first + i) for i in range(len(shards))]
        list(self._pool.map(ShardExecutor.draw_masks, shards, bound, seeds))
        for each in bound:
            each.executor.forward(is_train=True)
        for each in bound:
            each.executor.backward()
        self._with_gradients = self._shards if self._accumulates else shards
        return [
            mx.nd.concat(*(output.as_in_context(self._contexts[0]) for output in outputs), dim=0)
            for outputs in zip(*(each.executor.outputs for each in bound))
        ]

    def update(self, count: float, learning_rate: float) -> Any:
        """Apply one AdamW update with the gradients since the last update, summed over all workers.

        They are divided by `count`, what the mean loss divides by: the rows, their weights, or the labelled tokens, of
        all workers.
        Returns the global gradient norm before clipping, an NDArray (1,). Raises WorkersLost before anything changes.
        """
        shards = self._with_gradients or self._shards
        if not self._with_gradients:  # this worker had no rows
            for shard in shards:
                shard.gradients.clear()
        total = shards[0].gradients
        for shard in shards[1:]:
            for flat, more in zip(total.flats, shard.gradients.flats):
                mx.nd.elemwise_add(flat, more.as_in_context(flat.context), out=flat)
        self._workers.sum_in_place(total.flats)
        norm = None
        for optimizer, shard in zip(self._optimizers, self._shards):
            gradients = total if len(self._contexts) == 1 else shard.gradients
            if gradients is not total:
                for flat, summed in zip(gradients.flats, total.flats):
                    summed.copyto(flat)
            norm = optimizer.update(gradients, count, learning_rate)
        self._with_gradients = []
        if self._accumulates:
            for shard in self._shards:
                shard.gradients.clear()
        return norm

    def params(self) -> dict[str, Array]:
        """Return copies of the parameters."""
        return {**{name: array.asnumpy() for name, array in self._weights[0].arrays.items()}, **self._constants}

    def optimizer_state(self) -> dict[str, Array]:
        """Return copies of weights and moments, for `restore`; call it between two updates."""
        return {name: array.asnumpy() for name, array in self._states(0).items()}

    def restore(self, states: Mapping[str, Array], updates: int) -> None:
        """Continue from an `optimizer_state` after `updates` updates; raises ModelError for any other arrays."""
        expected = {name: flat.shape for name, flat in self._states(0).items()}
        check_float32(states, expected)
        for name in expected:
            if name.startswith("variances") and (states[name] < 0).any():
                raise ModelError(f"{name} has negative elements")
        for device, optimizer in enumerate(self._optimizers):
            for name, flat in self._states(device).items():
                flat[:] = states[name]
            optimizer.count = updates

    def _states(self, device: int) -> dict[str, Any]:
        optimizer = self._optimizers[device]
        kinds = {"weights": self._weights[device].flats, "means": optimizer.means, "variances": optimizer.variances}
        return {f"{kind}{i}": flat for kind, flats in kinds.items() for i, flat in enumerate(flats)}


def _as_numpy(array: Any) -> Array:
    return np.asarray(array.asnumpy() if isinstance(array, mx.nd.NDArray) else array)
