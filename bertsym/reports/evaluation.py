"""The report of an evaluation: how good one model is on one file, how sure that is, and which rows fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bertsym.bundle import Bundle
from bertsym.metrics.resampling import Interval
from bertsym.reports.assessment import Assessment
from bertsym.reports.blocks import Cell, Headline, Report, Section, Table
from bertsym.reports.data import LeftOutRows, conditions_table, data_section, truncation_fact
from bertsym.reports.model import model_section, repeat_fact, repeat_section
from bertsym.tasks.task import Examples, Task

RESAMPLING = (
    "The intervals measure how much the choice of the rows decides: of 100 files of as many random rows, about 95 have "
    "an interval with the metric of all data. They say nothing about what another training would change."
)


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with its outputs for a labelled file."""

    bundle: Bundle
    task: Task
    examples: Examples
    outputs: Sequence[Any]  #: what ``Task.keep`` returned for each window
    metrics: dict[str, float]
    left_out: LeftOutRows = field(default_factory=LeftOutRows)

    def assess(self, with_texts: bool) -> Assessment:
        """Compare the outputs with the labels."""
        rows = self.task.example_rows(self.examples, with_texts)
        return self.task.assess(self.outputs, self.examples, rows)


def evaluation_report(found: EvaluatedModel, with_texts: bool) -> Report:
    """Build the report of an evaluation."""
    assessment = found.assess(with_texts)
    intervals = {name: rows.interval() for name, rows in assessment.metrics.items()}
    sections = [
        *error_sections(assessment, found, intervals),
        data_section(found.task, {"": found.examples}, found.bundle.signature.max_length, found.left_out, with_texts),
        model_section(found.bundle),
        repeat_section(),
    ]
    name = found.bundle.prefix.name
    return Report(f"bertsym evaluate: {name}", headline(found, assessment, intervals, f"{name} reaches"), sections)


def headline(
    found: EvaluatedModel,
    assessment: Assessment,
    intervals: Mapping[str, Interval],
    subject: str,
    facts: Mapping[str, Cell] = MappingProxyType({}),
) -> Headline:
    """Return the first metric with its interval; `facts` come before those of the file."""
    file, rows = found.examples.name, len(found.examples)
    name, first = next(iter(intervals.items()))
    sentence = f"{subject} {metric_name(name)} {first.value:.4f} on {file}"
    if assessment.metrics[name].is_fraction:
        sentence += f": {round(first.value * rows):,} of {rows:,} rows are right"
    others = {metric_name(other): format_interval(each) for other, each in list(intervals.items())[1:]}
    left_out = f"{found.examples.left_out:,}" if found.examples.left_out else "none"
    return Headline(
        f"{sentence}.",
        f"{metric_name(name)} on {file}, {rows:,} rows",
        f"{first.value:.4f}",
        f"95 % interval {first.low:.4f} to {first.high:.4f} ({first.method})",
        {
            **others,
            **({"to compare with": assessment.baseline} if assessment.baseline else {}),
            **facts,
            "truncated": truncation_fact(found.examples),
            "rows left out": left_out,
            **repeat_fact(),
        },
    )


def error_sections(assessment: Assessment, found: EvaluatedModel, intervals: Mapping[str, Interval]) -> list[Section]:
    """Return the sections about metrics and errors."""
    rows: list[Sequence[Cell]] = [
        (metric_name(name), each.value, each.low, each.high, each.method) for name, each in intervals.items()
    ]
    rows += [(metric_name(name), value) for name, value in found.metrics.items() if name not in intervals]
    padded = [(*row, *[None] * (5 - len(row))) for row in rows]
    columns = ("metric", "value", "from", "to", "95 % interval by")
    first = [
        Table("Metrics", columns, padded, note=RESAMPLING),
        conditions_table(assessment, found.examples),
    ]
    return [Section("Metrics", first), *assessment.sections]


def metric_name(name: str) -> str:
    """Return the name of a metric for readers."""
    return {"f1": "F1", "micro_f1": "micro F1", "macro_f1": "macro F1", "matthews": "Matthews' correlation"}.get(
        name, name.replace("_", " ")
    )


def format_interval(interval: Interval) -> str:
    """Format a metric as ``0.7216 (0.6123 to 0.8150)``."""
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"
