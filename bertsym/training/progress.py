"""Progress reports of a training run: on a terminal, as plain lines, as JSON Lines in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from bertsym.errors import UsageError
from bertsym.metrics.classification import LOWER_IS_BETTER, format_metrics

if TYPE_CHECKING:
    from bertsym.training.trainer import StepReport

_GROUPS_PER_EPOCH = 10


@dataclass(frozen=True)
class EvaluationReport:
    """An evaluation on the dev table after a step: mean training loss of the epoch so far, and dev metrics."""

    epoch: int
    epochs: int  #: of the run, unless it stops early
    step: int
    loss: float
    learning_rate: float
    samples_per_second: float
    metrics: dict[str, float]

    def rank(self, metric: str | None = None) -> tuple[float, float]:
        """Return a sort key: better evaluations compare greater, by `metric` or else the first, then by lower loss."""
        name = metric or next(iter(self.metrics))
        return self.metrics[name] * (-1 if name in LOWER_IS_BETTER else 1), -self.metrics["loss"]


class Progress(Protocol):
    """Receives the reports of a run."""

    def note(self, text: str) -> None:
        """Handle a one-line message."""

    def step(self, report: StepReport) -> None:
        """Handle the end of a step."""

    def evaluated(self, rows: int, total: int) -> None:
        """Handle the progress of an evaluation: the number of dev rows that are done, and of all."""

    def evaluation(self, report: EvaluationReport) -> None:
        """Handle the end of an evaluation."""


class SilentProgress:
    """Discards all reports."""

    def note(self, text: str) -> None:
        """Discard the report."""

    def step(self, report: StepReport) -> None:
        """Discard the report."""

    def evaluated(self, rows: int, total: int) -> None:
        """Discard the report."""

    def evaluation(self, report: EvaluationReport) -> None:
        """Discard the report."""


class _StepGroup:
    """Steps that are reported together: a tenth of an epoch, but at least 10 steps."""

    def __init__(self) -> None:
        self._reports: list[StepReport] = []

    def completed_by(self, report: StepReport) -> StepReport | None:
        """Return the group's report, with its mean loss and gradient norm, if this step is its last; None otherwise."""
        self._reports.append(report)
        size = max(10, report.steps_in_epoch // _GROUPS_PER_EPOCH)
        if report.step_in_epoch % size and report.step_in_epoch < report.steps_in_epoch:
            return None
        count = len(self._reports)
        loss = sum(each.loss for each in self._reports) / count
        norm = sum(each.gradient_norm for each in self._reports) / count
        self._reports.clear()
        return dataclasses.replace(report, loss=loss, gradient_norm=norm)


class TextProgress:
    """Progress bars on a terminal, plain lines elsewhere; one line per evaluation on both.

    Errors while writing, such as a closed pipe or a full disk, are ignored, because they must not stop the training.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._bar: Any = None
        self._dev_bar: Any = None
        self._group = _StepGroup()
        self._first: tuple[int, float] | None = None  # number and time of the first step of this process

    def note(self, text: str) -> None:
        """Print the message."""
        with contextlib.suppress(OSError):
            print(text, file=self._stream, flush=True)

    def step(self, report: StepReport) -> None:
        """Advance the bar, or print a line for a group of steps."""
        left = self._time_left(report)
        if self._is_terminal:
            with contextlib.suppress(OSError):
                self._advance_bar(report, left)
        elif group := self._group.completed_by(report):
            place = f"epoch {group.epoch} of {group.epochs}  step {group.step_in_epoch}/{group.steps_in_epoch}"
            self.note(f"{place}  {_describe(group)}{left}")

    def _time_left(self, report: StepReport) -> str:
        """Format the time that the remaining steps of the run take, with evaluations as frequent as before."""
        if self._first is None or report.step <= self._first[0]:  # also the first step with another seed
            self._first = report.step, time.monotonic()
            return ""
        first, started = self._first
        seconds = (time.monotonic() - started) / (report.step - first) * (report.total_steps - report.step)
        return f"  {timedelta(seconds=round(seconds))} left"

    def _advance_bar(self, report: StepReport, left: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=report.steps_in_epoch,
                initial=report.step_in_epoch - 1,
                desc=f"epoch {report.epoch} of {report.epochs}",
                unit="step",
                leave=False,
                file=self._stream,
            )
        self._bar.set_postfix_str(f"{_describe(report)}{left}", refresh=False)
        self._bar.update()
        if report.step_in_epoch == report.steps_in_epoch:
            self._bar.close()
            self._bar = None

    def evaluated(self, rows: int, total: int) -> None:
        """Advance a bar on a terminal."""
        if not self._is_terminal:
            return
        with contextlib.suppress(OSError):
            if self._dev_bar is None:
                from tqdm import tqdm

                self._dev_bar = tqdm(total=total, desc="dev", unit="row", leave=False, file=self._stream)
            self._dev_bar.update(rows - self._dev_bar.n)
            if rows == total:
                self._dev_bar.close()
                self._dev_bar = None

    def evaluation(self, report: EvaluationReport) -> None:
        """Print one line for the evaluation."""
        self.note(
            f"epoch {report.epoch} of {report.epochs}, step {report.step}: train loss {report.loss:.4f}  "
            f"{report.samples_per_second:.1f} samples/s  dev: {format_metrics(report.metrics)}"
        )


def _describe(report: StepReport) -> str:
    speed = f"{report.samples_per_second:.1f} samples/s"
    return f"loss {report.loss:.4f}  lr {report.learning_rate:.2e}  gradient norm {report.gradient_norm:.2f}  {speed}"


class JsonProgress:
    """One JSON object per line: ``event`` is ``step`` (a group of steps, with mean loss and norm) or ``evaluation``.

    The file is created by the first report. An existing file is overwritten with `force`, or extended with `append`.
    Raises UsageError if the file cannot be written. If a later write fails, `on_failure` is called with a message, and
    the remaining reports are not logged.
    """

    def __init__(
        self,
        path: str | Path,
        force: bool = False,
        append: bool = False,
        on_failure: Callable[[str], object] = lambda message: None,
    ) -> None:
        self._path, self._append = Path(path), append
        self._on_failure, self._has_failed = on_failure, False
        self._stream: TextIO | None = None
        self._group = _StepGroup()
        if not self._path.parent.is_dir():
            raise UsageError(f"{path}: cannot write a log: the folder {self._path.parent} does not exist")
        if self._path.is_dir() or not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise UsageError(f"{path}: cannot write a log: not a writable file")
        if self._path.exists() and not (force or append):
            raise UsageError(f"{path} exists: choose another log file, or overwrite it with --force")

    def close(self) -> None:
        """Close the file, if anything was written."""
        if self._stream:
            with contextlib.suppress(OSError):
                self._stream.close()

    def note(self, text: str) -> None:
        """Discard the report."""

    def step(self, report: StepReport) -> None:
        """Write one line for each complete group of steps."""
        if group := self._group.completed_by(report):
            self._write("step", group, {"gradient_norm": group.gradient_norm})

    def evaluated(self, rows: int, total: int) -> None:
        """Discard the report."""

    def evaluation(self, report: EvaluationReport) -> None:
        """Write one line for the evaluation, with the dev metrics."""
        self._write("evaluation", report, {f"dev_{name}": value for name, value in report.metrics.items()})

    def _write(self, event: str, report: StepReport | EvaluationReport, more: dict[str, float]) -> None:
        record = {
            "event": event,
            "epoch": report.epoch,
            "step": report.step,
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "samples_per_second": report.samples_per_second,
            **more,
        }
        if self._has_failed:
            return
        try:
            if self._stream is None:
                self._stream = self._path.open("a" if self._append else "w", encoding="utf-8", newline="\n")
            print(json.dumps(record), file=self._stream, flush=True)
        except OSError as error:
            self._has_failed = True
            self._on_failure(f"{self._path}: cannot write the log: {error.strerror}; training continues without it")


class ProgressGroup:
    """Forwards all reports to several receivers."""

    def __init__(self, receivers: Sequence[Progress]) -> None:
        self._receivers = receivers

    def note(self, text: str) -> None:
        """Forward the report."""
        for receiver in self._receivers:
            receiver.note(text)

    def step(self, report: StepReport) -> None:
        """Forward the report."""
        for receiver in self._receivers:
            receiver.step(report)

    def evaluated(self, rows: int, total: int) -> None:
        """Forward the report."""
        for receiver in self._receivers:
            receiver.evaluated(rows, total)

    def evaluation(self, report: EvaluationReport) -> None:
        """Forward the report."""
        for receiver in self._receivers:
            receiver.evaluation(report)
