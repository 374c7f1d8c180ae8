"""The training loop over MXNet's BucketingModule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.bert.catalogue import LABEL_NAME
from bertsym.devices import contexts
from bertsym.errors import ModelError
from bertsym.inference.metrics import cross_entropy
from bertsym.runtime import mx
from bertsym.symbol.params import Array
from bertsym.text.batches import training_batches
from bertsym.training.batch_source import BatchSource
from bertsym.training.optimizer import AdamW, exempt_from_decay, global_norm, reduce_over_devices
from bertsym.training.options import FinetuneOptions
from bertsym.training.schedule import warmup_linear


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


class Trainer:
    """Trains a symbol that ends in SoftmaxOutput ``softmax`` on the rows of a source.

    `arg_params` are the initial values of all parameters. Everything random depends on (seed, epoch).
    """

    def __init__(
        self, symbol: Any, arg_params: Mapping[str, Array], source: BatchSource, options: FinetuneOptions
    ) -> None:
        self._source, self.options = source, options
        self._contexts = contexts(options.device)
        self._batches_per_epoch = len(self._batches(1))
        self.total_steps = self._batches_per_epoch * options.epochs
        self._step = 0
        self._symbol = symbol
        self._module = self._bind()
        self._module.init_params(
            arg_params={name: mx.nd.array(array) for name, array in arg_params.items()}, aux_params={}
        )
        self._optimizer = AdamW(
            learning_rate=options.peak_learning_rate,
            wd=options.weight_decay,
            rescale_grad=1 / self._module._curr_module._exec_group.batch_size,
        )
        # Without a kvstore each device updates its own copy, with the same summed gradients.
        self._module.init_optimizer(kvstore=None, optimizer=self._optimizer)
        exempt_from_decay(self._optimizer)

    def _batches(self, epoch: int) -> list[Array]:
        options = self.options
        return training_batches(
            self._source.lengths, options.batch_size, options.seed, epoch, min_rows=len(self._contexts)
        )

    def _bind(self) -> Any:
        """A BucketingModule bound to the largest batch, whose memory the others share."""
        longest = np.argsort(self._source.lengths, kind="stable")[::-1]
        batch = self._data_batch(longest[: self.options.batch_size])
        module = mx.mod.BucketingModule(
            lambda _: (self._symbol, self._source.input_names, (LABEL_NAME,)),
            default_bucket_key=batch.bucket_key,
            context=self._contexts,
        )
        module.bind(batch.provide_data, batch.provide_label)
        return module

    def _data_batch(self, rows: Array) -> Any:
        inputs = self._source.inputs(rows)
        classes = self._source.classes[rows].astype(np.float32)
        return mx.io.DataBatch(
            [mx.nd.array(array) for array in inputs],
            [mx.nd.array(classes)],
            # One graph a shape: the short batch of an epoch has its own.
            bucket_key=inputs[0].shape,
            provide_data=[(name, array.shape) for name, array in zip(self._source.input_names, inputs)],
            provide_label=[(LABEL_NAME, classes.shape)],
        )

    def epoch(self, epoch: int, on_step: Callable[[StepReport], None]) -> EpochSummary:
        """Train one epoch, numbered from 1. Raises ModelError when loss or gradients are not finite."""
        seed = np.random.SeedSequence((self.options.seed, epoch)).generate_state(1)[0]
        mx.random.seed(int(seed) & 0x7FFFFFFF)
        started, samples, total_loss, rate = time.perf_counter(), 0, 0.0, 0.0
        batches = self._batches(epoch)
        for number, rows in enumerate(batches, 1):
            rate = warmup_linear(self._step, self.total_steps, self.options.peak_learning_rate, self.options.warmup)
            loss = self._train_step(rows, rate, epoch)
            self._step += 1
            samples += len(rows)
            total_loss += loss * len(rows)
            speed = samples / (time.perf_counter() - started)
            on_step(StepReport(epoch, self._step, number, len(batches), loss, rate, speed))
        return EpochSummary(epoch, self._step, total_loss / samples, rate, samples / (time.perf_counter() - started))

    def _train_step(self, rows: Array, rate: float, epoch: int) -> float:
        module = self._module
        module.forward(self._data_batch(rows), is_train=True)
        module.backward()
        gradients = module._curr_module._exec_group.grad_arrays
        reduce_over_devices(gradients)
        # SoftmaxOutput gives the sum over the batch.
        norm = global_norm(per_device[0] for per_device in gradients) / len(rows)
        loss = cross_entropy(module.get_outputs()[0].asnumpy(), self._source.classes[rows])
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise ModelError(
                f"training diverged at step {self._step + 1} (epoch {epoch}): loss {loss}, gradient norm {norm}, "
                f"learning rate {rate:.2e}; try a lower learning rate"
            )
        limit = self.options.clip_norm
        self._optimizer.rescale_grad = (limit / norm if 0 < limit < norm else 1.0) / len(rows)
        self._optimizer.lr = rate
        module.update()
        return loss

    def arg_params(self) -> dict[str, Array]:
        """A copy of the parameters as they are now."""
        arg_params, _ = self._module.get_params()
        return {name: array.asnumpy() for name, array in arg_params.items()}
