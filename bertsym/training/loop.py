"""The training loop over a Module of parts."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import build_training_symbol
from bertsym.devices import contexts
from bertsym.distributed.workers import ALONE, Workers, WorkersLost
from bertsym.encoders.catalogue import LABEL_NAME
from bertsym.errors import ModelError
from bertsym.forking import no_fork
from bertsym.inference.metrics import cross_entropy
from bertsym.passes.embedding_rows import keep_used_rows
from bertsym.passes.input_guard import remove_input_guard
from bertsym.runtime import mx, share_threads
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array, shapes_of
from bertsym.text.batches import training_batches
from bertsym.training.batch_source import BatchSource
from bertsym.training.module import PartsModule
from bertsym.training.options import FinetuneOptions
from bertsym.training.schedule import warmup_linear

CPU_PARTS = 2  #: whatever the number of processors is: the random numbers depend on it


@dataclass(frozen=True)
class StepReport:
    """One step: numbers from 1, the batch's mean loss, and how fast the epoch has been so far."""

    epoch: int
    step: int
    step_in_epoch: int
    steps_in_epoch: int
    loss: float
    learning_rate: float
    samples_per_second: float


@dataclass(frozen=True)
class EpochSummary:
    """One epoch of training: the mean loss over its samples."""

    epoch: int
    step: int
    loss: float
    learning_rate: float
    samples_per_second: float


@dataclass
class Position:
    """Where a run is, at the end of a step: what the next steps depend on besides the arrays."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  #: of the epoch; so many are done
    samples: int = 0  #: of the epoch
    loss: float = 0.0  #: the epoch's, summed over its samples
    decay: float = 1.0  #: of a parameter without gradients
    draws: int = 0  #: of random numbers, by the module


@dataclass(frozen=True)
class _Step:
    """A step that is being computed."""

    number: int  #: in the epoch, from 1
    rows: int
    rate: float
    outputs: list[tuple[Array, Any]]  #: this worker's rows and their probabilities
    loss: float | None  #: summed over the rows of all workers; None where it is this one's, which is yet to be read
    norm: Any


class Trainer:
    """Trains a symbol that ends in SoftmaxOutput ``softmax`` on the rows of a source, alone or with other `workers`.

    `arg_params` are the initial values of all parameters. Everything random depends on the seed and the step.
    """

    def __init__(
        self,
        symbol: Any,
        arg_params: Mapping[str, Array],
        source: BatchSource,
        options: FinetuneOptions,
        workers: Workers = ALONE,
    ) -> None:
        self._source, self.options, self._workers = source, options, workers
        self._batches_per_epoch = len(self._batches(1))
        self.total_steps = self._batches_per_epoch * options.epochs
        self.position = Position()
        devices = contexts(options.device)
        graph = SymbolGraph.parse(symbol.tojson())
        remove_input_guard(graph)  # the source checks its inputs
        params = dict(arg_params)
        self._words = None
        if source.token_ids is not None:
            self._words = keep_used_rows(graph, source.input_names[0], source.token_ids, params)
        if self._words is not None:
            params[self._words.name] = self._words.initial
        limits = source.limits
        if limits is not None and self._words is not None:
            limits = dataclasses.replace(limits, vocab_size=len(self._words.initial))
        on_cpu = devices[0].device_type == "cpu"
        #: executors that compute on the CPU at the same time; none where each device computes a part
        self._cpu_parts = (CPU_PARTS if source.token_ids is not None else 1) if on_cpu else 0
        training = build_training_symbol(graph, shapes_of(params), cpu=on_cpu)
        self._module = PartsModule(
            training,
            source.input_names,
            [LABEL_NAME],
            devices,
            parts=self._cpu_parts or len(devices),
            accumulate=options.accumulate > 1,
            seed=options.seed,
            workers=workers,
            limits=limits,
        )
        largest = self._data_batch(self._longest_rows())
        self._module.bind(largest.provide_data, largest.provide_label)
        self._module.init_params(params)
        self._norm = math.nan  # of the last step's gradients
        self._module.init_optimizer(weight_decay=options.weight_decay, clip_norm=options.clip_norm)

    def _batches(self, epoch: int) -> list[Array]:
        options = self.options
        return training_batches(self._source.lengths, options.batch_size, options.seed, epoch)

    def _longest_rows(self) -> Array:
        longest = np.argsort(self._source.lengths, kind="stable")[::-1]
        rows = max(1, len(self._workers.share(longest[: self.options.batch_size])))
        return longest[: -(-rows // self.options.accumulate)]

    def _data_batch(self, rows: Array) -> Any:
        inputs = self._source.inputs(rows)
        if self._words is not None:
            inputs[0] = self._words.remap(inputs[0])
        classes = self._source.classes[rows].astype(np.float32)
        return mx.io.DataBatch(
            inputs,
            [classes],
            provide_data=[(name, array.shape) for name, array in zip(self._source.input_names, inputs)],
            provide_label=[(LABEL_NAME, classes.shape)],
        )

    def epoch(
        self, epoch: int, on_step: Callable[[StepReport], None], pause: Callable[[int], bool] = lambda step: False
    ) -> EpochSummary | None:
        """Train one epoch, numbered from 1, or the rest of it where an earlier call was to pause.

        `pause` is asked after each step but the last; when it says so, the epoch stops there: None. Raises ModelError
        when loss or gradients are not finite, and WorkersLost where `state` is that of the last step that was made.
        """
        if self._cpu_parts:
            share_threads(self._cpu_parts)
        position = self.position
        if epoch != position.epoch:
            position.epoch, position.batch, position.samples, position.loss = epoch, 0, 0, 0.0
        started, before = time.perf_counter(), position.samples
        batches = self._batches(epoch)

        def speed() -> float:
            return (position.samples - before) / (time.perf_counter() - started)

        def finish(step: _Step) -> None:
            with no_fork():
                loss = self._loss(step, epoch)
            position.step += 1
            position.batch = step.number
            position.samples += step.rows
            position.loss += loss * step.rows
            on_step(StepReport(epoch, position.step, step.number, len(batches), loss, step.rate, speed()))

        running: _Step | None = None
        for number, rows in enumerate(batches[position.batch :], position.batch + 1):
            done = position.step + (running is not None)
            draws = self._module.draws
            try:
                with no_fork():
                    step = self._begin(number, rows, self._rate(done))
            except WorkersLost:
                # As after the last step that all have made.
                if running is not None:
                    finish(running)
                self._module.draws = draws
                raise
            if running is not None:
                finish(running)  # while the next one is computed
            running = step
            if number < len(batches) and pause(done + 1):
                finish(running)
                return None
        if running is not None:
            finish(running)
        rate = self._rate(position.step - 1)
        return EpochSummary(epoch, position.step, position.loss / position.samples, rate, speed())

    def _rate(self, step: int) -> float:
        return warmup_linear(step, self.total_steps, self.options.peak_learning_rate, self.options.warmup)

    def _begin(self, number: int, rows: Array, rate: float) -> _Step:
        """Start a step; nothing waits for what it computes."""
        module, outputs = self._module, []
        if not self._cpu_parts:
            # For Dropout on devices that draw by themselves.
            seed = np.random.SeedSequence((self.options.seed, module.draws)).generate_state(1)[0]
            mx.random.seed(int(seed) & 0x7FFFFFFF)
        own = self._workers.share(rows)
        # As many passes for all workers, whose random numbers go by them.
        for some in np.array_split(own, min(self.options.accumulate, -(-len(rows) // self._workers.count))):
            if not len(some):
                module.draws += 1
                continue
            module.forward(self._data_batch(some))
            module.backward()
            outputs.append((some, module.get_outputs()[0]))
        # With others, an update waits for the outputs anyway.
        loss = self._workers.total(self._summed_loss(outputs)) if self._workers.count > 1 else None
        module.learning_rate = rate
        module.update(len(rows))
        self.position.decay *= 1 - rate * self.options.weight_decay
        return _Step(number, len(rows), rate, outputs, loss, module.gradient_norm)

    def _loss(self, step: _Step, epoch: int) -> float:
        total = self._summed_loss(step.outputs) if step.loss is None else step.loss
        loss, norm = total / step.rows, float(step.norm.asscalar())
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise ModelError(
                f"training diverged at step {self.position.step + 1} (epoch {epoch}): loss {loss}, "
                f"gradient norm {norm}, learning rate {step.rate:.2e}; try a lower learning rate"
            )
        self._norm = norm
        return loss

    def _summed_loss(self, outputs: list[tuple[Array, Any]]) -> float:
        losses = [
            len(rows) * cross_entropy(probabilities.asnumpy(), self._source.classes[rows])
            for rows, probabilities in outputs
        ]
        return sum(losses)

    def state(self) -> tuple[Position, dict[str, Array]]:
        """Where the run is and copies of its arrays, between two calls of `epoch`, for `restore`.

        Raises ModelError when they are not finite: nobody would want to go on from there.
        """
        arrays, position = self._module.optimizer_state(), self.position
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise ModelError(
                f"training diverged at step {position.step} (epoch {position.epoch}): {', '.join(bad)} not finite, "
                f"gradient norm {self._norm}; try a lower learning rate"
            )
        return dataclasses.replace(position, draws=self._module.draws), arrays

    def restore(self, position: Position, arrays: Mapping[str, Array]) -> None:
        """Resume from the `state` of a Trainer with the same arguments; raises ModelError for any other state."""
        if not self._can_be_at(position):
            raise ModelError("its position is not one of this run")
        self.position = position
        self._module.restore(arrays, position.step, position.draws)

    def _can_be_at(self, position: Position) -> bool:
        numbers = (position.step, position.epoch, position.batch, position.samples, position.draws)
        if not all(type(number) is int and number >= 0 for number in numbers):
            return False
        if not all(type(number) is float and math.isfinite(number) for number in (position.loss, position.decay)):
            return False
        step = max(0, position.epoch - 1) * self._batches_per_epoch + position.batch
        return (
            position.step == step <= self.total_steps
            and position.batch <= self._batches_per_epoch
            and position.samples == sum(map(len, self._batches(position.epoch)[: position.batch]))
            # A worker draws once for each of its passes, and the number of workers may have changed.
            and position.step <= position.draws <= position.step * self.options.accumulate
            and position.decay == functools.reduce(self._decayed, range(position.step), 1.0)
        )

    def _decayed(self, decay: float, step: int) -> float:
        """The decay of a parameter without gradients after one more step."""
        return decay * (1 - self._rate(step) * self.options.weight_decay)

    def arg_params(self) -> dict[str, Array]:
        """A copy of the parameters as they are now."""
        params = {name: array.asnumpy() for name, array in self._module.get_params()[0].items()}
        if self._words is not None:
            params[self._words.name] = self._words.restore(params[self._words.name], self.position.decay)
        return params
