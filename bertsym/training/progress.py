"""Who is told how the training goes: a terminal, a plain log, a file of JSON lines."""

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
from bertsym.inference.metrics import format_metrics

if TYPE_CHECKING:
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


class _Group:
    """Steps that are reported as one: a tenth of an epoch, but at least 10 steps."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def completed_by(self, report: StepReport) -> StepReport | None:
        """The group's report, its loss the mean over the steps, when this step is its last one."""
        self._losses.append(report.loss)
        size = max(10, report.steps_in_epoch // _GROUPS_PER_EPOCH)
        if report.step_in_epoch % size and report.step_in_epoch < report.steps_in_epoch:
            return None
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        return dataclasses.replace(report, loss=mean)


class TextProgress:
    """A bar on a terminal, plain lines elsewhere; one line an epoch on both.

    Where nobody reads any more, or there is no room, nothing is said: that is no reason to lose the training.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._bar: Any = None
        self._group = _Group()

    def note(self, text: str) -> None:
        """Print a line."""
        with contextlib.suppress(OSError):
            print(text, file=self._stream, flush=True)

    def step(self, report: StepReport) -> None:
        """Move the bar, or print a line for a group of steps."""
        if self._is_terminal:
            with contextlib.suppress(OSError):
                self._move_bar(report)
        elif group := self._group.completed_by(report):
            self.note(f"epoch {group.epoch}  step {group.step_in_epoch}/{group.steps_in_epoch}  {_describe(group)}")

    def _move_bar(self, report: StepReport) -> None:
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
        """Print the epoch's line."""
        self.note(
            f"epoch {report.epoch}: train loss {report.loss:.4f}  {report.samples_per_second:.1f} samples/s  "
            f"dev: {format_metrics(report.metrics)}"
        )


def _describe(report: StepReport) -> str:
    speed = f"{report.samples_per_second:.1f} samples/s"
    return f"loss {report.loss:.4f}  lr {report.learning_rate:.2e}  {speed}"


class JsonProgress:
    """One JSON object a line: ``event`` is ``step`` (a group of steps with its mean loss) or ``epoch``.

    The file is made when there is something to write; an old one is overwritten with `force` only, and gets more lines
    when it is to `append`. Raises UsageError at once when it can't be written. When it can't be written later, `lost`
    is told so, and the rest is not logged.
    """

    def __init__(
        self,
        path: str | Path,
        force: bool = False,
        append: bool = False,
        lost: Callable[[str], object] = lambda why: None,
    ) -> None:
        self._path, self._append = Path(path), append
        self._lost: Callable[[str], object] | None = lost  # None: it was told
        self._stream: TextIO | None = None
        self._group = _Group()
        if not self._path.parent.is_dir():
            raise UsageError(f"{path}: can't write a log, there is no folder {self._path.parent}")
        if self._path.is_dir() or not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise UsageError(f"{path}: can't write a log there")
        if self._path.exists() and not (force or append):
            raise UsageError(f"{path} exists: choose another log, or overwrite with --force")

    def close(self) -> None:
        """Close the file, if anything was written."""
        if self._stream:
            with contextlib.suppress(OSError):
                self._stream.close()

    def note(self, text: str) -> None:
        """Ignored."""

    def step(self, report: StepReport) -> None:
        """Write a group of steps when it is complete."""
        if group := self._group.completed_by(report):
            self._write("step", group)

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
        if self._lost is None:
            return
        try:
            if self._stream is None:
                self._stream = self._path.open("a" if self._append else "w", encoding="utf-8")
            print(json.dumps(record), file=self._stream, flush=True)
        except OSError as error:
            self._lost(f"{self._path}: can't write the log: {error.strerror}; going on without it")
            self._lost = None


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
