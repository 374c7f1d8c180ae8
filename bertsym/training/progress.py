"""Progress reports of a training run: on a terminal, as plain lines, as JSON Lines in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from bertsym.errors import UsageError
from bertsym.metrics.classification import format_metrics

if TYPE_CHECKING:
    from bertsym.training.trainer import StepReport

_GROUPS_PER_EPOCH = 10


@dataclass(frozen=True)
class EpochReport:
    """One epoch: mean training loss, and dev metrics; the first metric decides which epoch is kept."""

    epoch: int
    step: int
    loss: float
    learning_rate: float
    samples_per_second: float
    metrics: dict[str, float]

    @property
    def rank(self) -> tuple[float, float]:
        """Sort key: better epochs compare greater, by the first metric, then by lower dev loss."""
        return next(iter(self.metrics.values())), -self.metrics["loss"]


class Progress(Protocol):
    """Receives the reports of a run."""

    def note(self, text: str) -> None:
        """Handle a one-line message."""

    def step(self, report: StepReport) -> None:
        """Handle the end of a step."""

    def epoch(self, report: EpochReport) -> None:
        """Handle the end of an epoch and its evaluation."""


class SilentProgress:
    """Discards all reports."""

    def note(self, text: str) -> None:
        """Discard the report."""

    def step(self, report: StepReport) -> None:
        """Discard the report."""

    def epoch(self, report: EpochReport) -> None:
        """Discard the report."""


class _StepGroup:
    """Steps that are reported together: a tenth of an epoch, but at least 10 steps."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def completed_by(self, report: StepReport) -> StepReport | None:
        """Return the group's report with its mean loss if this step is its last; None otherwise."""
        self._losses.append(report.loss)
        size = max(10, report.steps_in_epoch // _GROUPS_PER_EPOCH)
        if report.step_in_epoch % size and report.step_in_epoch < report.steps_in_epoch:
            return None
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        return dataclasses.replace(report, loss=mean)


class TextProgress:
    """A progress bar on a terminal, plain lines elsewhere; one line per epoch on both.

    Errors while writing, such as a closed pipe or a full disk, are ignored, because they must not stop the training.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._bar: Any = None
        self._group = _StepGroup()

    def note(self, text: str) -> None:
        """Print the message."""
        with contextlib.suppress(OSError):
            print(text, file=self._stream, flush=True)

    def step(self, report: StepReport) -> None:
        """Advance the bar, or print a line for a group of steps."""
        if self._is_terminal:
            with contextlib.suppress(OSError):
                self._advance_bar(report)
        elif group := self._group.completed_by(report):
            self.note(f"epoch {group.epoch}  step {group.step_in_epoch}/{group.steps_in_epoch}  {_describe(group)}")

    def _advance_bar(self, report: StepReport) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=report.steps_in_epoch,
                initial=report.step_in_epoch - 1,
                desc=f"epoch {report.epoch}",
                unit="step",
                leave=False,
                file=self._stream,
            )
        self._bar.set_postfix_str(_describe(report), refresh=False)
        self._bar.update()
        if report.step_in_epoch == report.steps_in_epoch:
            self._bar.close()
            self._bar = None

    def epoch(self, report: EpochReport) -> None:
        """Print one line for the epoch."""
        self.note(
            f"epoch {report.epoch}: train loss {report.loss:.4f}  {report.samples_per_second:.1f} samples/s  "
            f"dev: {format_metrics(report.metrics)}"
        )


def _describe(report: StepReport) -> str:
    speed = f"{report.samples_per_second:.1f} samples/s"
    return f"loss {report.loss:.4f}  lr {report.learning_rate:.2e}  {speed}"


class JsonProgress:
    """One JSON object per line: ``event`` is ``step`` (a group of steps with its mean loss) or ``epoch``.

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
            self._write("step", group)

    def epoch(self, report: EpochReport) -> None:
        """Write one line for the epoch, with its dev metrics."""
        self._write("epoch", report, {f"dev_{name}": value for name, value in report.metrics.items()})

    def _write(self, event: str, report: StepReport | EpochReport, more: dict[str, float] | None = None) -> None:
        record = {
            "event": event,
            "epoch": report.epoch,
            "step": report.step,
            "loss": report.loss,
            "learning_rate": report.learning_rate,
            "samples_per_second": report.samples_per_second,
            **(more or {}),
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

    def epoch(self, report: EpochReport) -> None:
        """Forward the report."""
        for receiver in self._receivers:
            receiver.epoch(report)
