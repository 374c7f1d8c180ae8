"""Training steps: batches, learning rate, loss, and the state that a checkpoint stores."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import build_training_symbol
from bertsym.array import Array
from bertsym.devices import contexts
from bertsym.distributed.workers import ALONE, Workers, WorkersLost
from bertsym.encoders.inputs import TOKEN_IDS
from bertsym.errors import ModelError
from bertsym.events import StepDone, now, since
from bertsym.forking import no_fork
from bertsym.mxnet_runtime import mx, share_threads
from bertsym.passes.embedding_rows import keep_used_rows
from bertsym.passes.input_guard import remove_input_guard
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import shapes_of
from bertsym.text.batches import training_batches
from bertsym.training.batch_source import BatchSource
from bertsym.training.data_parallel import DataParallelExecutor
from bertsym.training.finetune_options import FinetuneOptions
from bertsym.training.optimizer import warmup_linear

CPU_SHARDS = 2  #: independent of the number of processors, because the dropout masks depend on it


@dataclass(frozen=True)
class EpochSummary:
    """An epoch up to a step: the mean loss over its samples."""

    epoch: int
    epochs: int
    step: int
    loss: float
    learning_rate: float
    samples_per_second: float


@dataclass
class Position:
    """Progress of a run at the end of a step: everything besides arrays that later steps depend on."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  #: number of batches done in this epoch
    samples: int = 0  #: number of samples done in this epoch
    count: float = 0.0  #: samples, their weights, or labelled tokens, over which the loss of this epoch is a mean
    loss: float = 0.0  #: sum over them
    decay: float = 1.0  #: accumulated weight decay of a parameter without gradients
    draws: int = 0  #: number of forward passes, which selects the dropout masks


@dataclass(frozen=True)
class _Pass:
    """A forward and backward pass: the labels of its rows, and its outputs."""

    labels: Mapping[str, Array]
    outputs: list[Any]


@dataclass(frozen=True)
class _Step:
    """A step that is being computed."""

    number: int  #: in the epoch, from 1
    rows: int
    rate: float
    count: float  #: what the mean loss divides by: the rows, their weights, or the labelled tokens, of all workers
    passes: list[_Pass]  #: of this worker
    loss: float | None  #: summed over all workers; None for a single worker, which reads the outputs of `passes` later
    norm: Any
    draws: int  #: after this step


class Trainer:
    """Trains a symbol that ends in the loss of a task on the windows of `source`, alone or with other `workers`.

    `params` are the initial values of all parameters. `loss` is that of the task, ``Task.loss``. All randomness depends
    on the seed and the step.
    """

    def __init__(
        self,
        symbol: Any,
        params: Mapping[str, Array],
        source: BatchSource,
        loss: Callable[[Sequence[Array], Mapping[str, Array]], float],
        options: FinetuneOptions,
        workers: Workers = ALONE,
    ) -> None:
        self._source, self._loss, self.options, self._workers = source, loss, options, workers
        self.steps_per_epoch = len(self._batches(1))
        self.total_steps = self.steps_per_epoch * options.epochs
        self._position = Position()
        self._gradient_norm = math.nan
        self._speed = 0.0  # samples per second since the last pause
        devices = contexts(options.device)
        on_cpu = devices[0].device_type == "cpu"
        #: executors that compute on the CPU at the same time; 0 if each device computes a shard
        self._cpu_shards = (CPU_SHARDS if source.token_ids is not None else 1) if on_cpu else 0
        graph = SymbolGraph.parse(symbol.tojson())
        remove_input_guard(graph)  # the inputs are checked before each pass
        params, limits = dict(params), source.limits
        self._used_rows = None
        if source.token_ids is not None:
            self._used_rows = keep_used_rows(graph, TOKEN_IDS, source.token_ids, params)
        if self._used_rows is not None:
            params[self._used_rows.name] = self._used_rows.initial
            if limits is not None:
                limits = dataclasses.replace(limits, vocab_size=len(self._used_rows.initial))
        training = build_training_symbol(graph, shapes_of(params), cpu=on_cpu)
        #: factor of the learning rate of the rows of the token embedding that the data does not use
        self._table_rate = 1.0 if self._used_rows is None else training.multipliers.get(self._used_rows.name, 1.0)
        self._executor = DataParallelExecutor(
            training,
            params,
            self._largest_shapes(),
            options,
            contexts=devices,
            shards=self._cpu_shards or len(devices),
            limits=limits,
            workers=workers,
        )

    @property
    def steps_done(self) -> int:
        """Number of completed steps."""
        return self._position.step

    def _batches(self, epoch: int) -> list[Array]:
        options = self.options
        return training_batches(self._source.lengths, options.batch_size, options.seed, epoch)

    def _longest_rows(self) -> Array:
        """Return the rows of the largest batch that one pass can have."""
        longest = np.argsort(self._source.lengths, kind="stable")[::-1]
        rows = max(1, len(self._workers.shard(longest[: self.options.batch_size])))
        return longest[: -(-rows // self.options.accumulate)]

    def _largest_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the inputs and labels of the largest batch."""
        batch = self._source.batch(self._longest_rows())
        return {name: array.shape for name, array in {**batch.inputs, **batch.labels}.items()}

    def _start_pass(self, rows: Array, number: int) -> _Pass:
        batch = self._source.batch(rows)
        if self._used_rows is not None:
            batch.inputs[TOKEN_IDS] = self._used_rows.remap(batch.inputs[TOKEN_IDS])
        if self._cpu_shards:
            share_threads(self._cpu_shards)  # again after a fork, because sums depend on the number of threads
        return _Pass(batch.labels, self._executor.compute_gradients({**batch.inputs, **batch.labels}, number))

    def train_epoch(
        self, on_step: Callable[[StepDone], object], pause: Callable[[int], bool] = lambda step: False
    ) -> None:
        """Train the next epoch, or the remaining steps of one after a pause.

        `pause` is called with the number of each step but the epoch's last; if it returns true, training stops after
        that step. Raises ModelError if the loss or the gradients are not finite. Raises WorkersLost, after which
        `state` is that of the last complete step.
        """
        position, options = self._position, self.options
        epoch = position.step // self.steps_per_epoch + 1
        if epoch != position.epoch:
            position.epoch, position.batch, position.samples = epoch, 0, 0
            position.count, position.loss = 0.0, 0.0
        started, before = time.perf_counter(), position.samples
        last = now()  # end of the last step
        batches = self._batches(epoch)

        def finish(step: _Step) -> None:
            with no_fork():
                loss = self._finite_loss(step)
            position.decay = self._decay_after(position.decay, position.step)
            position.step += 1
            position.batch = step.number
            position.samples += step.rows
            position.count += step.count
            position.loss += loss * step.count
            position.draws = step.draws
            self._speed = (position.samples - before) / (time.perf_counter() - started)
            nonlocal last
            span = since(last)
            last = span.end
            on_step(
                StepDone(
                    span,
                    epoch=epoch,
                    epochs=options.epochs,
                    step=position.step,
                    step_in_epoch=step.number,
                    steps_in_epoch=len(batches),
                    loss=loss,
                    learning_rate=step.rate,
                    gradient_norm=self._gradient_norm,
                    samples_per_second=self._speed,
                )
            )

        running: _Step | None = None
        for number, rows in enumerate(batches[position.batch :], position.batch + 1):
            done = position.step + (running is not None)
            try:
                with no_fork():
                    step = self._start_step(
                        number, rows, self._rate(done), running.draws if running else position.draws
                    )
            except WorkersLost:
                if running is not None:
                    finish(running)
                raise
            if running is not None:
                finish(running)  # while the next step is computed
            running = step
            if number < len(batches) and pause(done + 1):
                break
        if running is not None:
            finish(running)

    def summary(self) -> EpochSummary:
        """Describe the epoch of the last step, up to that step."""
        position = self._position
        rate, loss = self._rate(position.step - 1), position.loss / position.count
        return EpochSummary(position.epoch, self.options.epochs, position.step, loss, rate, self._speed)

    def _count(self, rows: Array) -> float:
        """Return what the mean loss of a batch divides by; 1 for a batch without a labelled token."""
        return float(self._source.targets.count(rows) or 1)

    def _rate(self, step: int) -> float:
        return warmup_linear(step, self.total_steps, self.options.peak_learning_rate, self.options.warmup)

    def _start_step(self, number: int, rows: Array, rate: float, draws: int) -> _Step:
        """Start a step without waiting for its results."""
        if not self._cpu_shards:
            # For the Dropout operator on a GPU, which draws its own masks.
            seed = np.random.SeedSequence((self.options.seed, draws)).generate_state(1)[0]
            mx.random.seed(int(seed) & 0x7FFFFFFF)
        own = self._workers.shard(rows)
        done: list[_Pass] = []
        # Every worker counts the same passes, since the dropout masks depend on their number.
        passes = min(self.options.accumulate, -(-len(rows) // self._workers.count))
        for pass_number, some in enumerate(np.array_split(own, passes), draws):
            if len(some):
                done.append(self._start_pass(some, pass_number))
        # With several workers the update waits for the outputs anyway.
        loss = self._workers.sum_number(self._summed_loss(done)) if self._workers.count > 1 else None
        count = self._count(rows)
        norm = self._executor.update(count, rate)
        return _Step(number, len(rows), rate, count, done, loss, norm, draws + passes)

    def _finite_loss(self, step: _Step) -> float:
        """Wait for a step and return its mean loss; raises ModelError if loss or gradients are not finite."""
        total = self._summed_loss(step.passes) if step.loss is None else step.loss
        loss, norm = total / step.count, float(step.norm.asscalar())
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise ModelError(
                f"training diverged at step {self._position.step + 1} (epoch {self._position.epoch}): loss {loss}, "
                f"gradient norm {norm}, learning rate {step.rate:.2e}; try a lower learning rate"
            )
        self._gradient_norm = norm
        return loss

    def _summed_loss(self, passes: Sequence[_Pass]) -> float:
        return sum(self._loss([output.asnumpy() for output in each.outputs], each.labels) for each in passes)

    def state(self) -> tuple[Position, dict[str, Array]]:
        """Return a copy of the position and the arrays for `restore`, between two calls of `train_epoch`.

        Raises ModelError if an array is not finite, since a run could not continue from it.
        """
        arrays, position = self._executor.optimizer_state(), self._position
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise ModelError(
                f"training diverged at step {position.step} (epoch {position.epoch}): {', '.join(bad)} not finite, "
                f"gradient norm {self._gradient_norm}; try a lower learning rate"
            )
        return dataclasses.replace(position), arrays

    def restore(self, position: Position, arrays: Mapping[str, Array]) -> None:
        """Continue from the `state` of a Trainer with equal arguments; raises ModelError for any other state."""
        if not self._is_reachable(position):
            raise ModelError("its position does not belong to this run")
        self._position = position
        self._executor.restore(arrays, position.step)

    def _is_reachable(self, position: Position) -> bool:
        numbers = (position.step, position.epoch, position.batch, position.samples, position.draws)
        if not all(type(number) is int and number >= 0 for number in numbers):
            return False
        sums = (position.count, position.loss, position.decay)
        if not all(type(number) is float and math.isfinite(number) for number in sums):
            return False
        done = self._batches(position.epoch)[: position.batch]
        step = max(0, position.epoch - 1) * self.steps_per_epoch + position.batch
        return (
            position.step == step <= self.total_steps
            and (position.epoch > 0 or step == 0)
            and position.batch <= self.steps_per_epoch
            and position.samples == sum(map(len, done))
            and position.count == sum(map(self._count, done), 0.0)
            # The number of passes per step depends on the number of workers, which may have changed.
            and position.step <= position.draws <= position.step * self.options.accumulate
            and position.decay == functools.reduce(self._decay_after, range(position.step), 1.0)
        )

    def _decay_after(self, decay: float, step: int) -> float:
        """Return the accumulated decay of a parameter without gradients after one more step."""
        return decay * (1 - self._rate(step) * self._table_rate * self.options.weight_decay)

    def params(self) -> dict[str, Array]:
        """Return copies of the current parameters."""
        params = self._executor.params()
        if self._used_rows is not None:
            params[self._used_rows.name] = self._used_rows.restore(params[self._used_rows.name], self._position.decay)
        return params
