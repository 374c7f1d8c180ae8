"""The epochs of a run: train, keep a checkpoint, evaluate, choose the best; from the start or from a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bertsym.errors import ModelError, TrainingStopped
from bertsym.symbol.params import Array
from bertsym.training.checkpoints import Checkpoint, Checkpoints
from bertsym.training.loop import Position, Trainer
from bertsym.training.progress import EpochReport, Progress
from bertsym.training.stopping import StopRequest, deferred_signals

Params = Mapping[str, Array]


@dataclass
class Fit:
    """A run: its epochs so far, and the trained parameters of the best one.

    `evaluate` gives the dev metrics of trained parameters. A checkpoint is written after every epoch, before its
    evaluation, and after every `checkpoint_steps` steps.
    """

    trainer: Trainer
    evaluate: Callable[[Params], dict[str, float]]
    checkpoints: Checkpoints
    checkpoint_steps: int | None
    progress: Progress
    reports: list[EpochReport] = dataclasses.field(default_factory=list)
    best: Params = dataclasses.field(default_factory=dict)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Be where the run of the checkpoint was; raises ModelError for a damaged one."""
        state = checkpoint.state
        try:
            position = Position(**{field.name: state[field.name] for field in dataclasses.fields(Position)})
            self.reports = [EpochReport(**report) for report in state["epochs"]]
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"checkpoint of step {state.get('step')}: damaged ({type(error).__name__}: {error})"
            ) from None
        self.trainer.restore(position, checkpoint.arrays)
        self.best = checkpoint.best
        self.progress.note(f"going on after {self._where()}")

    def run(self) -> None:
        """All epochs that are left. Raises ModelError when it diverges, TrainingStopped after a signal."""
        options = self.trainer.options
        with deferred_signals() as request:
            while len(self.reports) < options.epochs and not self._has_lost_patience():
                self._train_epoch(len(self.reports) + 1, request)
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
            raise ModelError(f"{error}; {self.checkpoints.kept}") from None
        trained = trainer.arg_params()
        report = EpochReport(**vars(summary), metrics=self.evaluate(trained))
        if all(report.rank > earlier.rank for earlier in self.reports):
            self.best = trained
        self.reports.append(report)
        self.progress.epoch(report)
        self._stop_if_asked(request)

    def _save(self, request: StopRequest) -> None:
        position, arrays = self.trainer.state()
        epochs = [dataclasses.asdict(report) for report in self.reports]
        state = {**dataclasses.asdict(position), "epochs": epochs}
        self.checkpoints.save(position.step, Checkpoint(state, arrays, self.best))
        self._stop_if_asked(request)

    def _stop_if_asked(self, request: StopRequest) -> None:
        if request.signal is not None:
            raise TrainingStopped(
                f"stopped by {request.signal.name} after {self._where()}; {self.checkpoints.kept}",
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
