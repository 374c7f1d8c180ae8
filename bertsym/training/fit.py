"""The epochs of a run: train, keep a checkpoint, evaluate, choose the best; from the start or from a checkpoint."""

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
from bertsym.training.loop import Position, Trainer
from bertsym.training.progress import EpochReport, Progress
from bertsym.training.stopping import StopRequest, deferred_signals

Params = Mapping[str, Array]


@dataclass
class Fit:
    """A run: its epochs so far, and the trained parameters of the best one.

    `evaluate` gives the dev metrics of trained parameters. A checkpoint is written after every epoch, before its
    evaluation, and after every `checkpoint_steps` steps. Of several `workers` the first one writes and evaluates.
    """

    trainer: Trainer
    evaluate: Callable[[Params], dict[str, float]]
    checkpoints: Checkpoints | None
    checkpoint_steps: int | None
    progress: Progress
    workers: Workers = ALONE
    reports: list[EpochReport] = dataclasses.field(default_factory=list)
    best: Params = dataclasses.field(default_factory=dict)
    _digest: str = dataclasses.field(default="", init=False)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Be where the run of the checkpoint was; raises ModelError for a damaged one."""
        try:
            position = self._take(JsonValue(checkpoint.state, "state.json"))
            self.trainer.restore(position, checkpoint.arrays)
            check_float32(checkpoint.best, shapes_of(self.trainer.arg_params()) if self.reports else {})
        except ModelError as error:
            raise ModelError(f"checkpoint of step {checkpoint.state.get('step')}: damaged ({error})") from None
        self.best = checkpoint.best
        self.progress.note(f"going on after {self._where()}")

    def _take(self, state: JsonValue) -> Position:
        """The position; the reports of the epochs are taken. Raises ModelError for values that are not of this run."""
        values = {field.name: _number(state[field.name], field) for field in dataclasses.fields(Position)}
        position = Position(**values)
        self.reports = [_report(report) for report in state["epochs"].elements()]
        epochs = [*(report.epoch for report in self.reports), position.epoch]
        steps_per_epoch = self.trainer.total_steps // self.trainer.options.epochs
        if epochs != list(range(1, len(epochs) + 1)) or any(
            report.step != report.epoch * steps_per_epoch for report in self.reports
        ):
            raise ModelError("its epochs are not those of this run")
        return position

    def run(self) -> None:
        """All epochs that are left.

        Raises ModelError when it diverges, TrainingStopped after a signal, WorkersLost when another worker is lost.
        """
        options = self.trainer.options
        with deferred_signals() as request:
            self._begin_where_the_first_does()
            while len(self.reports) < options.epochs and not self._has_lost_patience():
                try:
                    self._train_epoch(len(self.reports) + 1, request)
                except WorkersLost as lost:
                    self._save(request)
                    raise WorkersLost(f"{lost}; after {self._where()}{self._kept()}") from None
        if self._digest:
            self.progress.note(
                f"the parameters of all {self.workers.count} workers are the same: sha256 {self._digest}"
            )
        self.workers.leave()
        if len(self.reports) < options.epochs:
            self.progress.note(f"stopped early: no better dev metric for {options.patience} epochs")

    def _train_epoch(self, epoch: int, request: StopRequest) -> None:
        trainer = self.trainer

        def pause(step: int) -> bool:
            return request.signal is not None or (
                self.checkpoint_steps is not None and step % self.checkpoint_steps == 0
            )

        try:
            while (summary := trainer.epoch(epoch, self.progress.step, pause)) is None:
                self._save(request)
            self._save(request)
        except ModelError as error:
            raise ModelError(f"{error}{self._kept()}") from None
        trained = trainer.arg_params()
        self._digest = self.workers.agree(f"parameters after epoch {epoch}", trained.values())
        metrics = self.evaluate(trained) if self.workers.rank == 0 else {}
        metrics = json.loads(self.workers.hear_first(json.dumps(metrics)))
        report = EpochReport(**vars(summary), metrics=metrics)
        if all(report.rank > earlier.rank for earlier in self.reports):
            self.best = trained
        self.reports.append(report)
        self.progress.epoch(report)
        self._stop_if_asked(request)

    def _begin_where_the_first_does(self) -> None:
        if self.workers.count > 1:
            position, arrays = self.trainer.state()
            state = json.loads(self.workers.hear_first(json.dumps(self._state(position))))
            if state["step"]:
                position = self._take(JsonValue(state, "state of the first worker"))
                self.trainer.restore(position, self.workers.take_first(arrays))

    def _state(self, position: Position) -> dict[str, Any]:
        return {**dataclasses.asdict(position), "epochs": [dataclasses.asdict(report) for report in self.reports]}

    def _save(self, request: StopRequest) -> None:
        position, arrays = self.trainer.state()
        if self.checkpoints is not None:
            self.checkpoints.save(position.step, Checkpoint(self._state(position), arrays, self.best))
        self._stop_if_asked(request)

    def _kept(self) -> str:
        return f"; {self.checkpoints.kept}" if self.checkpoints is not None else ""

    def _stop_if_asked(self, request: StopRequest) -> None:
        if request.signal is not None:
            raise TrainingStopped(
                f"stopped by {request.signal.name} after {self._where()}{self._kept()}",
                request.signal,
            )

    def _has_lost_patience(self) -> bool:
        patience = self.trainer.options.patience
        if patience is None or not self.reports:
            return False
        best = max(self.reports, key=lambda report: report.rank)
        return len(self.reports) - best.epoch >= patience

    def _where(self) -> str:
        return f"step {self.trainer.position.step} of {self.trainer.total_steps}"


def _number(value: JsonValue, field: dataclasses.Field[Any]) -> Any:
    """The value of a field of a Position or EpochReport, an integer from 0 or a float."""
    return value.integer(0) if field.type == "int" else float(value.number())


def _report(value: JsonValue) -> EpochReport:
    numbers = [field for field in dataclasses.fields(EpochReport) if field.name != "metrics"]
    metrics = {name: float(metric.number()) for name, metric in value["metrics"].items()}
    if "loss" not in metrics:
        raise value.fault("the metrics have no loss")
    return EpochReport(**{field.name: _number(value[field.name], field) for field in numbers}, metrics=metrics)
