"""What a run prints while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from bertsym.events import (
    BestKept,
    DevEvaluated,
    Event,
    FileTokenised,
    Note,
    Resumed,
    RowsDone,
    RunEnded,
    RunFailed,
    SeedStarted,
    StepDone,
    StoppedEarly,
)
from bertsym.metrics.classification import LOWER_IS_BETTER, format_metrics
from bertsym.monitoring.step_groups import StepGroups
from bertsym.terminal import escaped

_LINE_INTERVAL = 10.0  # seconds between two plain lines of an activity that counts rows


class TextDisplay:
    """A listener that prints progress bars on a terminal, plain lines elsewhere; one line per evaluation on both.

    Errors while writing, such as a closed pipe or a full disk, are ignored, because they must not stop the run. If it
    is `quiet`, the numbers of rows of the files are not printed.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream, self._quiet = stream or sys.stderr, quiet
        self._is_terminal = self._stream.isatty()
        self._bar: Any = None
        self._row_bar: Any = None
        self._steps = StepGroups()
        self._first: StepDone | None = None  # the first step of this process, and of this seed
        self._last: tuple[StepDone, str] | None = None  # the last step of the run, and the time that is left
        self._later_seeds = 0
        self._best: tuple[str, float] | None = None  # name and best value of the first metric
        self._last_line = 0.0  # time of the last plain line about rows

    def __call__(self, event: Event) -> None:
        """Print what an event says."""
        with contextlib.suppress(OSError):
            if not isinstance(event, RowsDone):
                self._close_row_bar()
            if isinstance(event, StepDone):
                self._step(event)
            elif isinstance(event, RowsDone):
                self._rows(event)
            elif isinstance(event, DevEvaluated):
                self._evaluated(event)
            elif isinstance(event, SeedStarted):
                self._first, self._last, self._best = None, None, None
                self._later_seeds = event.seeds - event.number
                self._print(event)
            elif isinstance(event, FileTokenised):
                if not self._quiet:
                    self._print(event)
            elif isinstance(event, (Note, Resumed, StoppedEarly)):
                self._print(event)
            elif isinstance(event, BestKept):
                self._last = None
            elif isinstance(event, (RunEnded, RunFailed)):
                self._close_bar()

    def _print(self, line: object) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(escaped(str(line)), file=self._stream, flush=True)

    def _step(self, step: StepDone) -> None:
        left = self._time_left(step)
        self._last = step, left
        if self._is_terminal:
            self._advance_bar(step, left)
        elif group := self._steps.completed_by(step):
            place = f"epoch {group.epoch} of {group.epochs}  step {group.step_in_epoch}/{group.steps_in_epoch}"
            self._print(f"{place}  {self._describe(group)}{left}")

    def _time_left(self, step: StepDone) -> str:
        """Format the time that the remaining steps of the run take, with evaluations as frequent as before."""
        if self._first is None or step.step <= self._first.step:  # also the first step of another run
            self._first = step
            return ""
        seconds = (step.span.end - self._first.span.end) / (step.step - self._first.step)
        steps = step.total_steps - step.step + self._later_seeds * step.total_steps
        return f"  {timedelta(seconds=round(seconds * steps))} left"

    def _advance_bar(self, step: StepDone, left: str) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=step.steps_in_epoch,
                initial=step.step_in_epoch - 1,
                desc=f"epoch {step.epoch} of {step.epochs}",
                unit="step",
                leave=False,
                file=self._stream,
            )
        self._bar.set_postfix_str(f"{self._describe(step)}{left}", refresh=False)
        self._bar.update()
        if step.step_in_epoch == step.steps_in_epoch:
            self._close_bar()

    def _describe(self, step: StepDone) -> str:
        return (
            f"loss {step.loss:.4f}  lr {step.learning_rate:.2e}  gradient norm {step.gradient_norm:.2f}  "
            f"{step.samples_per_second:.1f} samples/s{self._describe_best()}"
        )

    def _describe_best(self) -> str:
        return f"  best dev {self._best[0]} {self._best[1]:.4f}" if self._best else ""

    def _rows(self, rows: RowsDone) -> None:
        """Advance a bar on a terminal, or print a line from time to time; during a training also its state."""
        epoch = f"epoch {self._last[0].epoch} of {self._last[0].epochs}  " if self._last else ""
        if self._is_terminal:
            if self._row_bar is None:
                from tqdm import tqdm

                self._row_bar = tqdm(
                    total=rows.total,
                    desc=escaped(f"{epoch}{rows.activity}{f' {Path(rows.file).name}' if rows.file else ''}"),
                    unit=" rows",
                    postfix=self._state(),
                    leave=False,
                    file=self._stream,
                )
            self._row_bar.update(rows.rows - self._row_bar.n)
            if rows.rows == rows.total:
                self._close_row_bar()
        elif rows.span.end - max(rows.span.start, self._last_line) >= _LINE_INTERVAL:
            self._print(f"{epoch}{rows}")
            self._last_line = rows.span.end

    def _state(self) -> str | None:
        """Describe the last step of a training, for a bar that counts rows; None if there was no step."""
        if self._last is None:
            return None
        step, left = self._last
        return f"step {step.step}  loss {step.loss:.4f}{self._describe_best()}{left}"

    def _evaluated(self, event: DevEvaluated) -> None:
        name, value = next(iter(event.metrics.items()))
        choose = min if name in LOWER_IS_BETTER else max
        self._best = name, choose(value, self._best[1] if self._best else value)
        self._print(
            f"epoch {event.epoch} of {event.epochs}, step {event.step}: train loss {event.loss:.4f}  "
            f"{event.samples_per_second:.1f} samples/s  dev: {format_metrics(event.metrics)}"
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _close_row_bar(self) -> None:
        if self._row_bar is not None:
            self._row_bar.close()
            self._row_bar = None
