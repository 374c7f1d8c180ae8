"""The same run with several seeds: how much its metrics vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SeedRuns:
    """The dev metrics that each seed reached."""

    metrics: Mapping[int, Mapping[str, float]]  #: seed -> metrics of the parameters that its run kept
    kept: int  #: the seed whose parameters are written

    @property
    def means(self) -> dict[str, float]:
        """The mean of each metric over the seeds."""
        return {name: float(np.mean(self._values(name))) for name in self._names}

    @property
    def deviations(self) -> dict[str, float]:
        """The standard deviation of each metric over the seeds, of a sample (divided by the number of seeds - 1)."""
        return {name: float(np.std(self._values(name), ddof=1)) for name in self._names}

    @property
    def _names(self) -> list[str]:
        return list(next(iter(self.metrics.values())))

    def _values(self, name: str) -> list[float]:
        return [metrics[name] for metrics in self.metrics.values()]

    def __str__(self) -> str:
        means, deviations = self.means, self.deviations
        found = "  ".join(f"{name} {means[name]:.4f} ± {deviations[name]:.4f}" for name in self._names)
        seeds = ", ".join(map(str, self.metrics))
        return f"mean and standard deviation of {len(self.metrics)} seeds ({seeds}): {found}"

    def to_json(self) -> dict[str, Any]:
        """Return the metrics, their means and deviations, and the kept seed, for a manifest."""
        return {
            "kept": self.kept,
            "means": self.means,
            "deviations": self.deviations,
            "runs": [{"seed": seed, "metrics": dict(metrics)} for seed, metrics in self.metrics.items()],
        }
