"""Two models on the same rows: the differences of their metrics, and which of them answers each row right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.metrics.classification import LOWER_IS_BETTER
from bertsym.metrics.resampling import Interval, paired_difference
from bertsym.reports.assessment import Assessment
from bertsym.reports.evaluation import EvaluatedModel, metric_name
from bertsym.reports.training_settings import seen_warnings

FEW_ROWS = 30  #: fewer rows do not distinguish two models
_RIGHT = 1 - 1e-9  # score of a correct answer
_MOST_DECIMALS = 10


@dataclass(frozen=True)
class Difference:
    """A metric of two models on the same rows."""

    metric: str
    title: str  #: the metric for readers, such as ``F1 (label 1)``
    first: float
    second: float
    interval: Interval  #: of the second minus the first
    rows: int

    @property
    def can_be_chance(self) -> bool:
        """Whether other rows could have given no difference, or the opposite one."""
        return self.interval.contains_zero or self.rows < FEW_ROWS

    def verdict(self, first: str, second: str) -> str:
        """Say in a sentence whether the second model is better, and how sure that is."""
        if self.first == self.second:
            value = self.interval.format(self.first)
            return f"{second} and {first} have the same {self.title} on these {self.rows:,} rows, {value}."
        digits = self.interval.decimals
        while digits < _MOST_DECIMALS and f"{self.first:.{digits}f}" == f"{self.second:.{digits}f}":
            digits += 1
        numbers = f"{self.title} {self.second:.{digits}f} against {self.first:.{digits}f}"
        is_higher = self.interval.value > 0
        direction = "higher" if is_higher else "lower"
        scored = f"{second} scores {direction} than {first} on these {self.rows:,} rows ({numbers})"
        if self.rows < FEW_ROWS:
            return f"{scored}, but {self.rows} rows are too few to distinguish the models."
        if self.can_be_chance:
            return f"{scored}, but the difference could be due to chance."
        judged = "better" if is_higher != (self.metric in LOWER_IS_BETTER) else "worse"
        numbers += f" on {self.rows:,} rows"
        return f"{second} is {judged} than {first}: {numbers}. The difference is unlikely to be chance."


@dataclass(frozen=True)
class Comparison:
    """Two models on the same examples, with the differences of their metrics."""

    first: EvaluatedModel
    second: EvaluatedModel
    names: tuple[str, str]
    assessments: tuple[Assessment, Assessment]
    differences: list[Difference]
    agreeing: Array  #: whether both give the same answer to each example, (N,) bool

    @property
    def agreement(self) -> float:
        """Fraction of the examples with the same answer."""
        return float(self.agreeing.mean())

    @property
    def warnings(self) -> list[str]:
        """Why the metrics may be optimistic: the file was used in the training of a model."""
        models = zip(self.names, (self.first.bundle, self.second.bundle))
        return seen_warnings(self.first.examples.name, self.first.examples.sha256, dict(models))

    @property
    def verdict(self) -> str:
        """The sentence about the first metric."""
        return self.differences[0].verdict(*self.names)

    @property
    def have_right_answers(self) -> bool:
        """Whether an answer is right or wrong, rather than near a score."""
        return not any((each.scores < 0).any() for each in self.assessments)

    @property
    def right(self) -> tuple[Array, Array]:
        """Whether the answer of each model to each row is right, (N,) bool."""
        one, two = (each.scores >= _RIGHT for each in self.assessments)
        return one, two

    def counts(self) -> dict[str, int]:
        """Return how many rows both models answer right, only one of them, and none."""
        one, two = self.right
        first, second = self.names
        return {
            "both right": int((one & two).sum()),
            f"only {first} right": int((one & ~two).sum()),
            f"only {second} right": int((two & ~one).sum()),
            "both wrong": int((~one & ~two).sum()),
        }


def compare_evaluated(
    first: EvaluatedModel, second: EvaluatedModel, names: tuple[str, str], with_texts: bool
) -> Comparison:
    """Compare two models on the same examples, in the same order."""
    assessments = first.assess(with_texts), second.assess(with_texts)
    common = [name for name in assessments[0].metrics if name in assessments[1].metrics]
    differences = []
    for name in common:
        one, two = assessments[0].metrics[name], assessments[1].metrics[name]
        difference = paired_difference(one, two)
        title = metric_name(name, first.task)
        differences.append(Difference(name, title, one.value, two.value, difference, len(first.examples)))
    answers = (each.task.predictions(each.outputs, each.examples.rows) for each in (first, second))
    agreeing = np.array([bool(one.agrees(two)) for one, two in zip(*answers)])
    return Comparison(first, second, names, assessments, differences, agreeing)
