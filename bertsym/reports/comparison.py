"""The report of two models on one file: is one better, can the difference be chance, on which rows do they disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.metrics.classification import LOWER_IS_BETTER, format_metrics
from bertsym.metrics.resampling import Interval, paired_difference
from bertsym.reports.assessment import Array, Assessment
from bertsym.reports.blocks import (
    MOST_ROWS,
    Block,
    Cell,
    Facts,
    Figure,
    Headline,
    Intervals,
    Report,
    Section,
    Table,
    data_text,
)
from bertsym.reports.data import data_section, truncation_fact
from bertsym.reports.evaluation import RESAMPLING, EvaluatedModel, metric_name
from bertsym.reports.model import model_section, repeat_fact, repeat_section

FEW_ROWS = 30  #: fewer rows do not distinguish two models


@dataclass(frozen=True)
class Difference:
    """A metric of two models on the same rows."""

    metric: str
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
        name, value = metric_name(self.metric), self.interval.value
        numbers = f"{name} {self.second:.4f} against {self.first:.4f}"
        if self.first == self.second:
            return f"{second} and {first} have the same {name} on these rows, {self.first:.4f}."
        is_better = (value > 0) != (self.metric in LOWER_IS_BETTER)
        judged = f"{second} is {'better' if is_better else 'worse'} than {first}"
        if self.rows < FEW_ROWS:
            return f"{judged} on these rows ({numbers}), but {self.rows} rows are too few to distinguish the models."
        if self.can_be_chance:
            return f"{judged} on these rows ({numbers}), but the difference can be chance."
        return f"{judged}: {numbers}. The difference is unlikely to be chance."


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
    def verdict(self) -> str:
        """The sentence about the first metric."""
        return self.differences[0].verdict(*self.names)

    def counts(self) -> dict[str, int]:
        """Return how many examples both models answer right, only one of them, and none."""
        one, two = (each.scores >= _RIGHT for each in self.assessments)
        first, second = self.names
        return {
            "both are right": int((one & two).sum()),
            f"only {first} is right": int((one & ~two).sum()),
            f"only {second} is right": int((two & ~one).sum()),
            "both are wrong": int((~one & ~two).sum()),
        }


_RIGHT = 1 - 1e-9  # score of a correct answer


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
        differences.append(Difference(name, one.value, two.value, difference, len(first.examples)))
    answers = (each.task.predictions(each.outputs, each.examples.rows) for each in (first, second))
    agreeing = np.array([bool(one.agrees(two)) for one, two in zip(*answers)])
    return Comparison(first, second, names, assessments, differences, agreeing)


def comparison_report(
    found: Comparison,
    title: str,
    with_texts: bool,
    extra: Sequence[Section] = (),
    facts: Mapping[str, Cell] | None = None,
) -> Report:
    """Build the report of two models; `extra` sections come after the differences, `facts` are on the first screen."""
    first = found.differences[0]
    interval = first.interval
    one, two = found.names
    examples = found.first.examples
    what = "Chance can explain it" if first.can_be_chance else "Chance hardly explains it"
    if first.first == first.second:
        what = "No difference"
    headline = Headline(
        found.verdict,
        f"{metric_name(first.metric)} of {two} minus that of {one}, on {examples.name}, {len(examples):,} rows",
        f"{interval.value:+.4f}",
        f"95 % interval {interval.low:+.4f} to {interval.high:+.4f} ({interval.method}). {what}.",
        {
            **found.counts(),
            "the same answer": f"{int(found.agreeing.sum()):,} of {len(examples):,} rows",
            **(facts or {}),
            "truncated": truncation_fact(examples),
            **repeat_fact(),
        },
    )
    signature = found.first.bundle.signature
    sections = [
        Section("Differences", list(_differences(found))),
        *extra,
        Section("Disagreements", [_disagreements(found, with_texts)]),
        data_section(found.first.task, {"": examples}, signature.max_length, found.first.left_out, with_texts),
        *(
            model_section(each.bundle, f"Model {name}", f"head-{number}")
            for number, (name, each) in enumerate(zip(found.names, (found.first, found.second)), 1)
        ),
        repeat_section(),
    ]
    return Report(title, headline, sections)


def _differences(found: Comparison) -> Iterator[Block]:
    one, two = found.names
    rows = [
        (
            *(metric_name(each.metric), each.first, each.second),
            *(each.interval.value, each.interval.low, each.interval.high),
            "no difference" if each.first == each.second else "yes" if each.can_be_chance else "hardly",
        )
        for each in found.differences
    ]
    columns = ("metric", one, two, "difference", "from", "to", "can be chance")
    method = found.differences[0].interval.method
    note = f"The difference is {two} minus {one}; 95 % intervals by {method}. {RESAMPLING}"
    yield Table("Metrics", columns, rows, note=note)
    intervals = [each.interval for each in found.differences]
    plot = Intervals(
        f"{two} minus {one}",
        [metric_name(each.metric) for each in found.differences],
        [each.value for each in intervals],
        [each.low for each in intervals],
        [each.high for each in intervals],
    )
    caption = "An interval that contains 0, the dashed line, can be chance."
    yield Figure("differences", "Differences with their intervals", plot, caption)
    models = zip(found.names, (found.first, found.second))
    yield Facts({name: f"{each.bundle.prefix}: {format_metrics(each.metrics)}" for name, each in models}, "All metrics")


def _disagreements(found: Comparison, with_texts: bool) -> Table:
    """List the examples with different answers, the largest difference of the scores first."""
    one, two = (each.scores for each in found.assessments)
    rows = np.flatnonzero(~found.agreeing)
    rows = rows[np.argsort(-np.abs(two - one)[rows], kind="stable")]
    examples, task = found.first.examples, found.first.task
    table = task.example_rows(examples, with_texts)
    shown = [int(row) for row in rows[:MOST_ROWS]]
    answers = [_answers(each, shown) for each in (found.first, found.second)]
    cells = []
    for place, row in enumerate(shown):
        better = found.names[int(two[row] > one[row])] if one[row] != two[row] else "neither"
        texts: list[Cell] = []
        if with_texts or task.class_names:
            correct = task.target_text(examples.rows[row])
            texts = [data_text(correct), *(data_text(each[place]) for each in answers)]
        cells.append((*table.cells(row), *texts, better))
    shows_answers = with_texts or bool(task.class_names)
    columns = (*table.columns, *(("correct", *found.names) if shows_answers else ()), "better")
    return Table("Rows with different answers", columns, cells, len(rows), examples=True)


def _answers(found: EvaluatedModel, rows: Sequence[int]) -> list[str]:
    """Return the answers to some examples as text."""
    if not rows:
        return []
    windows = [len(row.windows) for row in found.examples.rows]
    ends = np.cumsum(windows)
    outputs = [found.outputs[place] for row in rows for place in range(ends[row] - windows[row], ends[row])]
    examples = [found.examples.rows[row] for row in rows]
    return [each.cells()[0] for each in found.task.predictions(outputs, examples)]
