"""An evaluation during training, and how two of them compare."""

from __future__ import annotations

from dataclasses import dataclass

from bertsym.metrics.classification import LOWER_IS_BETTER


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
