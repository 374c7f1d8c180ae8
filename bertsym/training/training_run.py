"""The epochs of a run: train, write checkpoints, evaluate, keep the best; from the start or from a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.distributed.workers import ALONE, Workers, WorkersLost
from bertsym.errors import ModelError, TrainingStopped
from bertsym.json_reader import JsonValue
from bertsym.symbol.params import Array, shapes_of
from bertsym.training.checkpoints import Checkpoint, Checkpoints, check_float32
from bertsym.training.progress import EpochReport, Progress
from bertsym.training.stopping import StopRequest, deferred_signals
from bertsym.training.trainer import Position, Trainer

Params = Mapping[str, Array]


@dataclass(frozen=True)
class TrainingResult:
    """The epochs of a run, and the trained parameters of the best one."""

    epochs: list[EpochReport]
    params: Params

    @property
    def best(self) -> EpochReport:
        """The epoch that the parameters are from."""
        return max(self.epochs, key=lambda report: report.rank)


class TrainingRun:
    """Trains epoch after epoch, until all are done, patience runs out, or a signal arrives.

    `evaluate` returns the dev metrics of trained parameters. A checkpoint is written after every epoch, before its
    evaluation, and after every `checkpoint_steps` steps. Only the first of several `workers` writes and evaluates.
    """

    def __init__(
        self,
        trainer: Trainer,
        evaluate: Callable[[Params], dict[str, float]],
        progress: Progress,
        workers: Workers = ALONE,
        checkpoints: Checkpoints | None = None,
        checkpoint_steps: int | None = None,
    ) -> None:
        self._trainer, self._evaluate, self._progress, self._workers = trainer, evaluate, progress, workers
        self._checkpoints, self._checkpoint_steps = checkpoints, checkpoint_steps
        self._epochs: list[EpochReport] = []
        self._best: Params = {}

    def run(self, checkpoint: Checkpoint | None = None) -> TrainingResult:
        """Train all epochs, or those that remain after `checkpoint`.

        Raises ModelError for a damaged checkpoint and if training diverges, TrainingStopped after a signal, WorkersLost
        if another worker is lost.
        """
        if checkpoint is not None:
            self._resume(checkpoint)
        options, digest = self._trainer.options, ""
        with deferred_signals() as request:
            self._synchronize()
            while len(self._epochs) < options.epochs and not self._is_out_of_patience():
                try:
                    digest = self._train_epoch(len(self._epochs) + 1, request)
                except WorkersLost as lost:
                    self._save(request)
                    raise WorkersLost(f"{lost}; {self._where()}{self._kept()}") from None
        if digest:
            self._progress.note(f"all {self._workers.count} workers have identical parameters: sha256 {digest}")
        self._workers.leave()
        if len(self._epochs) < options.epochs:
            self._progress.note(f"stopped early: no better dev metric for {options.patience} epochs")
        return TrainingResult(self._epochs, self._best)

    def _train_epoch(self, epoch: int, request: StopRequest) -> str:
        """Train and evaluate one epoch; returns the parameters' digest, which is empty for a single worker."""
        trainer = self._trainer

        def pause(step: int) -> bool:
            return request.signal is not None or (
                self._checkpoint_steps is not None and step % self._checkpoint_steps == 0
            )

        try:
            while (summary := trainer.train_epoch(epoch, self._progress.step, pause)) is None:
                self._save(request)
            self._save(request)
        except ModelError as error:
            raise ModelError(f"{error}{self._kept()}") from None
        trained = trainer.params()
        digest = self._workers.require_equal(f"parameters after epoch {epoch}", trained.values())
        metrics = self._evaluate(trained) if self._workers.rank == 0 else {}
        metrics = json.loads(self._workers.broadcast_text(json.dumps(metrics)))
        report = EpochReport(**vars(summary), metrics=metrics)
        if all(report.rank > earlier.rank for earlier in self._epochs):
            self._best = trained
        self._epochs.append(report)
        self._progress.epoch(report)
        self._stop_if_requested(request)
        return digest

    def _resume(self, checkpoint: Checkpoint) -> None:
        try:
            position = self._restore_epochs(JsonValue(checkpoint.state, "state.json"))
            self._trainer.restore(position, checkpoint.arrays)
            check_float32(checkpoint.best, shapes_of(self._trainer.params()) if self._epochs else {})
        except ModelError as error:
            raise ModelError(f"checkpoint of step {checkpoint.state.get('step')}: damaged ({error})") from None
        self._best = checkpoint.best
        self._progress.note(f"resuming {self._where()}")

    def _synchronize(self) -> None:
        """Bring all workers to the first one's state, which may be that of a checkpoint."""
        if self._workers.count > 1:
            position, arrays = self._trainer.state()
            state = json.loads(self._workers.broadcast_text(json.dumps(self._state(position))))
            if state["step"]:
                position = self._restore_epochs(JsonValue(state, "state of the first worker"))
                self._trainer.restore(position, self._workers.broadcast_arrays(arrays))

    def _restore_epochs(self, state: JsonValue) -> Position:
        """Restore the reports of earlier epochs and return the position; raises ModelError for an impossible state."""
        values = {field.name: _read_number(state[field.name], field) for field in dataclasses.fields(Position)}
        position = Position(**values)
        self._epochs = [_read_report(report) for report in state["epochs"].elements()]
        epochs = [*(report.epoch for report in self._epochs), position.epoch]
        steps_per_epoch = self._trainer.total_steps // self._trainer.options.epochs
        if epochs != list(range(1, len(epochs) + 1)) or any(
            report.step != report.epoch * steps_per_epoch for report in self._epochs
        ):
            raise ModelError("its epochs do not belong to this run")
        return position

    def _state(self, position: Position) -> dict[str, Any]:
        return {**dataclasses.asdict(position), "epochs": [dataclasses.asdict(report) for report in self._epochs]}

    def _save(self, request: StopRequest) -> None:
        position, arrays = self._trainer.state()
        if self._checkpoints is not None:
            self._checkpoints.save(position.step, Checkpoint(self._state(position), arrays, self._best))
        self._stop_if_requested(request)

    def _stop_if_requested(self, request: StopRequest) -> None:
        if request.signal is not None:
            raise TrainingStopped(f"stopped by {request.signal.name} {self._where()}{self._kept()}", request.signal)

    def _is_out_of_patience(self) -> bool:
        patience = self._trainer.options.patience
        if patience is None or not self._epochs:
            return False
        best = max(self._epochs, key=lambda report: report.rank)
        return len(self._epochs) - best.epoch >= patience

    def _where(self) -> str:
        return f"after step {self._trainer.steps_done} of {self._trainer.total_steps}"

    def _kept(self) -> str:
        return f"; {self._checkpoints.describe_newest()}" if self._checkpoints is not None else ""


def _read_number(value: JsonValue, field: dataclasses.Field[Any]) -> Any:
    """Return the value of a field of Position or EpochReport: an integer from 0, or a float."""
    return value.integer(0) if field.type == "int" else float(value.number())


def _read_report(value: JsonValue) -> EpochReport:
    numbers = [field for field in dataclasses.fields(EpochReport) if field.name != "metrics"]
    metrics = {name: float(metric.number()) for name, metric in value["metrics"].items()}
    if "loss" not in metrics:
        raise value.fault("the metrics have no loss")
    return EpochReport(**{field.name: _read_number(value[field.name], field) for field in numbers}, metrics=metrics)
