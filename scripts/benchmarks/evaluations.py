"""The dev metrics of runs with several seeds, and how long a script will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np

from bertsym.events import DevEvaluated, Event, StepDone

_MEASURED = 10  # steps from which the duration is estimated


class Evaluations:
    """A listener that collects the evaluations of each run, and prints the expected duration once it is measured."""

    def __init__(self, runs: int = 0, factor: float = 1.0) -> None:
        """`runs` is the number of runs, 0 to print nothing; `factor` the duration relative to that of all steps."""
        self.runs: list[list[DevEvaluated]] = []
        self._count, self._factor, self._started = runs, factor, 0.0

    def __call__(self, event: Event) -> None:
        """Collect an evaluation, that of the first epoch begins a run; or time a step."""
        if isinstance(event, DevEvaluated):
            self.runs += [[]] if event.epoch == 1 else []
            self.runs[-1].append(event)
        elif isinstance(event, StepDone) and self._count and not self.runs:
            self._time(event)

    def _time(self, event: StepDone) -> None:
        """Estimate the duration from the first steps but one, which loads the graph."""
        if event.step == 1:
            self._started = time.monotonic()
        elif event.step == 1 + _MEASURED:
            steps = event.total_steps * self._count
            seconds = (time.monotonic() - self._started) / _MEASURED * steps * self._factor
            print(f"expected duration: {seconds / 60:.1f} min", file=sys.stderr, flush=True)

    def last(self, metric: str) -> list[float]:
        """Return a metric of each run after its last epoch."""
        return [run[-1].metrics[metric] for run in self.runs]

    def best(self, metric: str, decides: str) -> list[float]:
        """Return a metric of each run in the epoch in which another one was highest, ties to the lower loss."""
        found = [max(run, key=lambda each: (each.metrics[decides], -each.metrics["loss"])) for run in self.runs]
        return [each.metrics[metric] for each in found]


def seed_options(seeds: Sequence[int]) -> dict[str, object]:
    """Return the options of finetune for one seed or several."""
    return {"seeds": tuple(seeds)} if len(seeds) > 1 else {"seed": seeds[0]}


def over_seeds(values: Sequence[float]) -> str:
    """Return the mean and, of several values, the standard deviation."""
    mean = f"{np.mean(values):.3f}"
    return f"{mean} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else mean
