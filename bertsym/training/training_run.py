"""A run: train, write checkpoints, evaluate, keep the best parameters; from the start or from a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.array import Array
from bertsym.distributed.workers import ALONE, Workers, WorkersLost
from bertsym.errors import ModelError, TrainingStopped
from bertsym.events import (
    CheckpointWritten,
    DevEvaluated,
    EpochDone,
    EventStream,
    Resumed,
    StoppedEarly,
    instant,
    now,
    since,
)
from bertsym.json_reader import JsonValue
from bertsym.symbol.params import shapes_of
from bertsym.tasks.task import Examples
from bertsym.training.checkpoints import Checkpoint, Checkpoints, check_float32
from bertsym.training.evaluation_report import EvaluationReport
from bertsym.training.stopping import StopRequest, deferred_signals
from bertsym.training.trainer import Position, Trainer

Params = Mapping[str, Array]


@dataclass(frozen=True)
class TrainingResult:
    """The evaluations of a run, the best of them, and the parameters that it evaluated."""

    evaluations: list[EvaluationReport]
    best: EvaluationReport
    params: Params


class TrainingRun:
    """Trains until all epochs are done, patience runs out, or a signal arrives, and evaluates on the way.

    `evaluate` returns the metrics of trained parameters on the examples `dev`; it is called after every epoch, and
    after every `eval_steps` steps. A checkpoint is written after every epoch, before its evaluation, and after every
    `checkpoint_steps` steps. Only the first of several `workers` writes and evaluates.
    """

    def __init__(
        self,
        trainer: Trainer,
        evaluate: Callable[[Params], dict[str, float]],
        dev: Examples,
        events: EventStream,
        workers: Workers = ALONE,
        checkpoints: Checkpoints | None = None,
        checkpoint_steps: int | None = None,
    ) -> None:
        self._trainer, self._evaluate, self._dev, self._events = trainer, evaluate, dev, events
        self._workers = workers
        self._checkpoints, self._checkpoint_steps = checkpoints, checkpoint_steps
        self._evaluations: list[EvaluationReport] = []
        self._best: Params = {}
        self._epoch_start = now()

    def run(self, checkpoint: Checkpoint | None = None) -> TrainingResult:
        """Train all epochs, or those that remain after `checkpoint`.

        Raises ModelError for a damaged checkpoint and if training diverges, TrainingStopped after a signal, WorkersLost
        if another worker is lost.
        """
        if checkpoint is not None:
            self._resume(checkpoint)
        trainer, digest = self._trainer, ""
        with deferred_signals() as request:
            self._synchronize()
            while not self._is_finished():
                try:
                    if not self._must_evaluate():
                        self._train(request)
                    if self._must_evaluate():
                        digest = self._evaluate_step()
                        self._stop_if_requested(request)
                except WorkersLost as lost:
                    self._save(request)
                    raise WorkersLost(f"{lost}; {self._where()}{self._kept()}") from None
        if digest:
            self._events.note(f"all {self._workers.count} workers have identical parameters: sha256 {digest}")
        self._workers.leave()
        if trainer.steps_done < trainer.total_steps:
            metric = trainer.options.metric or next(iter(self._evaluations[0].metrics))
            assert trainer.options.patience is not None
            self._events(
                StoppedEarly(instant(), trainer.steps_done, trainer.total_steps, metric, trainer.options.patience)
            )
        return TrainingResult(self._evaluations, self._best_evaluation(), self._best)

    def _train(self, request: StopRequest) -> None:
        """Train to the end of the epoch, or to a step after which a checkpoint, an evaluation or a signal is due."""

        def saves(step: int) -> bool:
            return request.signal is not None or _is_multiple(step, self._checkpoint_steps)

        trainer = self._trainer
        if trainer.steps_done % trainer.steps_per_epoch == 0:
            self._epoch_start = now()
        try:
            trainer.train_epoch(self._events, lambda step: saves(step) or self._evaluates(step))
            is_epoch_end = trainer.steps_done % trainer.steps_per_epoch == 0
            if is_epoch_end:
                self._events(EpochDone(since(self._epoch_start), **vars(trainer.summary())))
            if saves(trainer.steps_done) or is_epoch_end:
                self._save(request)
        except ModelError as error:
            raise ModelError(f"{error}{self._kept()}") from None

    def _evaluates(self, step: int) -> bool:
        """Whether the parameters after a step are evaluated."""
        trainer = self._trainer
        return step > 0 and (step % trainer.steps_per_epoch == 0 or _is_multiple(step, trainer.options.eval_steps))

    def _must_evaluate(self) -> bool:
        step = self._trainer.steps_done
        return self._evaluates(step) and step not in [report.step for report in self._evaluations[-1:]]

    def _is_finished(self) -> bool:
        trainer = self._trainer
        is_trained = trainer.steps_done == trainer.total_steps and not self._must_evaluate()
        return is_trained or self._is_out_of_patience()

    def _evaluate_step(self) -> str:
        """Evaluate the current parameters; returns their digest, which is empty for a single worker."""
        started, summary, trained = now(), self._trainer.summary(), self._trainer.params()
        digest = self._workers.require_equal(f"parameters after step {summary.step}", trained.values())
        metrics = self._evaluate(trained) if self._workers.rank == 0 else {}
        metrics = json.loads(self._workers.broadcast_text(json.dumps(metrics)))
        report = EvaluationReport(**vars(summary), metrics=metrics)
        self._evaluations.append(report)
        if self._best_evaluation() is report:
            self._best = trained
        self._events(DevEvaluated(since(started), self._dev.name, len(self._dev), **vars(report)))
        return digest

    def _best_evaluation(self) -> EvaluationReport:
        """Return the best evaluation; the first of equal ones."""
        return max(self._evaluations, key=lambda report: report.rank(self._trainer.options.metric))

    def _resume(self, checkpoint: Checkpoint) -> None:
        try:
            position = self._restore_position(JsonValue(checkpoint.state, "state.json"))
            self._trainer.restore(position, checkpoint.arrays)
            check_float32(checkpoint.best, shapes_of(self._trainer.params()) if self._evaluations else {})
        except ModelError as error:
            raise ModelError(f"checkpoint of step {checkpoint.state.get('step')}: damaged ({error})") from None
        self._best = checkpoint.best
        self._epoch_start = now()
        self._events(Resumed(instant(), self._trainer.steps_done, self._trainer.total_steps))

    def _synchronize(self) -> None:
        """Bring all workers to the first one's state, which may be that of a checkpoint."""
        if self._workers.count > 1:
            position, arrays = self._trainer.state()
            state = json.loads(self._workers.broadcast_text(json.dumps(self._state(position))))
            if state["step"]:
                position = self._restore_position(JsonValue(state, "state of the first worker"))
                self._trainer.restore(position, self._workers.broadcast_arrays(arrays))

    def _restore_position(self, state: JsonValue) -> Position:
        """Restore the earlier evaluations and return the position; raises ModelError for an impossible state."""
        values = {field.name: _read_number(state[field.name], field) for field in dataclasses.fields(Position)}
        position = Position(**values)
        if position.step > self._trainer.total_steps:
            raise ModelError("its position does not belong to this run")
        self._evaluations = [_read_report(report) for report in state["evaluations"].elements()]
        done = [step for step in range(1, position.step + 1) if self._evaluates(step)]
        # The last one may still be missing.
        if [report.step for report in self._evaluations] not in (done, [step for step in done if step < position.step]):
            raise ModelError("its evaluations do not belong to this run")
        for report in self._evaluations:
            epoch, epochs = -(-report.step // self._trainer.steps_per_epoch), self._trainer.options.epochs
            if (report.epoch, report.epochs) != (epoch, epochs):
                raise ModelError("its evaluations do not belong to this run")
        return position

    def _state(self, position: Position) -> dict[str, Any]:
        reports = [dataclasses.asdict(report) for report in self._evaluations]
        return {**dataclasses.asdict(position), "evaluations": reports}

    def _save(self, request: StopRequest) -> None:
        position, arrays = self._trainer.state()
        if self._checkpoints is not None:
            started = now()
            path = self._checkpoints.save(position.step, Checkpoint(self._state(position), arrays, self._best))
            if path is not None:
                self._events(CheckpointWritten(since(started), position.step, str(path)))
        self._stop_if_requested(request)

    def _stop_if_requested(self, request: StopRequest) -> None:
        if request.signal is not None:
            raise TrainingStopped(f"stopped by {request.signal.name} {self._where()}{self._kept()}", request.signal)

    def _is_out_of_patience(self) -> bool:
        patience = self._trainer.options.patience
        if patience is None or not self._evaluations:
            return False
        return len(self._evaluations) - 1 - self._evaluations.index(self._best_evaluation()) >= patience

    def _where(self) -> str:
        return f"after step {self._trainer.steps_done} of {self._trainer.total_steps}"

    def _kept(self) -> str:
        return f"; {self._checkpoints.describe_newest()}" if self._checkpoints is not None else ""


def _is_multiple(step: int, interval: int | None) -> bool:
    return interval is not None and step % interval == 0


def _read_number(value: JsonValue, field: dataclasses.Field[Any]) -> Any:
    """Return the value of a field of Position or EvaluationReport: an integer from 0, or a float."""
    return value.integer(0) if field.type == "int" else float(value.number())


def _read_report(value: JsonValue) -> EvaluationReport:
    numbers = [field for field in dataclasses.fields(EvaluationReport) if field.name != "metrics"]
    metrics = {name: float(metric.number()) for name, metric in value["metrics"].items()}
    if "loss" not in metrics:
        raise value.fault("the metrics have no loss")
    return EvaluationReport(
        **{field.name: _read_number(value[field.name], field) for field in numbers}, metrics=metrics
    )
