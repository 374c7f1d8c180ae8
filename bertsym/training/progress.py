"""Who is told how the training goes: a terminal, a plain log, a file of JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from bertsym.errors import UsageError
from bertsym.inference.metrics import format_metrics
from bertsym.training.loop import StepReport

_GROUPS_PER_EPOCH = 10


@dataclass(frozen=True)
class EpochReport:
    """One epoch: mean training loss, and the dev metrics with the deciding one first."""

    epoch: int
    step: int
    loss: float
    learning_rate: float
    samples_per_second: float
    metrics: dict[str, float]

    @property
    def rank(self) -> tuple[float, float]:
        """Better epochs compare greater: by the first metric, then by the lower dev loss."""
        return next(iter(self.metrics.values())), -self.metrics["loss"]


class Progress(Protocol):
    """A listener."""

    def note(self, text: str) -> None:
        """Something worth knowing, one line."""

    def step(self, report: StepReport) -> None:
        """A step was made."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch was made and evaluated."""


class SilentProgress:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Ignored."""

    def step(self, report: StepReport) -> None:
        """Ignored."""

    def epoch(self, report: EpochReport) -> None:
        """Ignored."""


class TextProgress:
    """A bar on a terminal, plain lines elsewhere; one line an epoch on both."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._bar: Any = None

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def step(self, report: StepReport) -> None:
        """Move the bar, or print a line for a group of steps."""
        values = f"loss {report.loss:.4f}  lr {report.learning_rate:.2e}"
        if self._is_terminal:
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(
                    total=report.steps_in_epoch,
                    desc=f"epoch {report.epoch}",
                    unit="step",
                    leave=False,
                    file=self._stream,
                )
            self._bar.set_postfix_str(f"{values}  {report.samples_per_second:.1f} samples/s", refresh=False)
            self._bar.update()
            if report.step_in_epoch == report.steps_in_epoch:
                self._bar.close()
                self._bar = None
        elif is_reported(report):
            self.note(
                f"epoch {report.epoch}  step {report.step_in_epoch}/{report.steps_in_epoch}  {values}  "
                f"{report.samples_per_second:.1f} samples/s"
            )

    def epoch(self, report: EpochReport) -> None:
        """Print the epoch's line."""
        self.note(
            f"epoch {report.epoch}: train loss {report.loss:.4f}  {report.samples_per_second:.1f} samples/s  "
            f"dev: {format_metrics(report.metrics)}"
        )


class JsonProgress:
    """One JSON object a line: ``event`` is ``step`` (the last one of a group) or ``epoch`` (with the dev metrics).

    The file is made, and an old one overwritten, when there is something to write. Raises UsageError at once
    when its folder doesn't exist.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._stream: TextIO | None = None
        if not self._path.parent.is_dir():
            raise UsageError(f"{path}: can't write a log, there is no folder {self._path.parent}")

    def close(self) -> None:
        """Close the file, if anything was written."""
        if self._stream:
            self._stream.close()

    def note(self, text: str) -> None:
        """Ignored."""

    def step(self, report: StepReport) -> None:
        """Write the step that ends a group."""
        if is_reported(report):
            self._write("step", report)

    def epoch(self, report: EpochReport) -> None:
        """Write the epoch with its dev metrics."""
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
        if self._stream is None:
            try:
                self._stream = self._path.open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(f"{self._path}: can't write the log: {error.strerror}") from None
        print(json.dumps(record), file=self._stream, flush=True)


class ProgressGroup:
    """Several listeners as one."""

    def __init__(self, listeners: Sequence[Progress]) -> None:
        self._listeners = listeners

    def note(self, text: str) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.note(text)

    def step(self, report: StepReport) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.step(report)

    def epoch(self, report: EpochReport) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.epoch(report)


def is_reported(report: StepReport) -> bool:
    """Whether this step ends a group: a tenth of its epoch, but at least 10 steps."""
    group = max(10, report.steps_in_epoch // _GROUPS_PER_EPOCH)
    return report.step_in_epoch % group == 0
