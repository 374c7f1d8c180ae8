"""The report of an evaluation: how good one model is on one file, how sure that is, and which rows fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bertsym.bundle import Bundle
from bertsym.metrics.classification import LOWER_IS_BETTER
from bertsym.metrics.resampling import RESAMPLES, SEED, Interval
from bertsym.reports.assessment import Assessment
from bertsym.reports.blocks import Cell, Digest, Headline, Report, Section, Table
from bertsym.reports.data import LeftOutRows, conditions_table, data_section, truncation_fact, truncation_warnings
from bertsym.reports.model import model_section, repeat_fact, repeat_section
from bertsym.reports.training_settings import file_digest, seen_warnings, training_command
from bertsym.tasks.task import Examples, Task

#: metric -> its name for readers, where that is not its own with spaces
_METRIC_NAMES = {
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "matthews": "Matthews' correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mse": "mean squared error",
    "has_answer_exact_match": "exact match of questions with an answer",
    "has_answer_f1": "F1 of questions with an answer",
    "no_answer_exact_match": "exact match of questions without an answer",
    "no_answer_f1": "F1 of questions without an answer",
}
RESAMPLING = (
    "The intervals show the uncertainty from testing on these particular rows: of many random samples of as many rows, "
    "about 95 % would give an interval that contains the true value. Rows are taken as independent. Variation between "
    "training runs, such as another seed, is not covered."
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
    settings: Mapping[str, Cell] = field(default_factory=dict)  #: how the outputs were computed

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
        repeat_section(repeat_settings([found]), {"": training_command(found.bundle)}),
    ]
    name = found.bundle.prefix.name
    answer = headline(found, assessment, intervals, f"{name} reaches")
    warnings = [
        *seen_warnings(found.examples.name, found.examples.sha256, {name: found.bundle}),
        *truncation_warnings(found.examples, found.bundle.signature.max_length, "the model"),
    ]
    answer = dataclasses.replace(answer, warnings=warnings)
    return Report(f"bertsym evaluate: {name}", answer, sections)


def repeat_settings(models: Sequence[EvaluatedModel]) -> dict[str, Cell]:
    """Return what the numbers depend on beside the command: how they were computed, the bootstrap, and the files."""
    files: dict[str, Cell] = {f"{models[0].examples.name}, SHA-256": Digest(models[0].examples.sha256)}
    for role in ("train", "dev"):
        found = [file_digest(each.bundle, role) for each in models]
        for each, digest in zip(models, found):
            of = f" of {each.bundle.prefix.name}" if len(set(found)) > 1 else ""
            files[f"{role} file{of}, SHA-256"] = digest
    return {**models[0].settings, "bootstrap": f"{RESAMPLES:,} resamples, seed {SEED}", **files}


def headline(
    found: EvaluatedModel,
    assessment: Assessment,
    intervals: Mapping[str, Interval],
    subject: str,
    facts: Mapping[str, Cell] = MappingProxyType({}),
) -> Headline:
    """Return the first metric with its interval; `facts` come after those of the file, or in their place."""
    file, rows = found.examples.name, len(found.examples)
    name, first = next(iter(intervals.items()))
    sentence = f"{subject} {metric_name(name, found.task)} {first.format(first.value)} on {file}"
    if assessment.metrics[name].is_fraction:
        sentence += f": {round(first.value * rows):,} of {rows:,} rows are right"
    others = {metric_name(other, found.task): format_interval(each) for other, each in list(intervals.items())[1:]}
    left_out = f"{found.examples.left_out:,}" if found.examples.left_out else "none"
    return Headline(
        f"{sentence}.",
        f"{metric_name(name, found.task)} on {file}, {rows:,} rows",
        first.format(first.value),
        f"95 % interval {first.format(first.low)} to {first.format(first.high)} ({first.method})",
        {
            **others,
            **({"to compare with": assessment.baseline} if assessment.baseline else {}),
            "truncated": truncation_fact(found.examples),
            "rows left out": left_out,
            **facts,
            **repeat_fact(),
        },
    )


def error_sections(assessment: Assessment, found: EvaluatedModel, intervals: Mapping[str, Interval]) -> list[Section]:
    """Return the sections about metrics and errors."""
    rows: list[Sequence[Cell]] = [
        (metric_row_name(name, found.task), each.value, each.low, each.high, each.method)
        for name, each in intervals.items()
    ]
    rows += [
        (metric_row_name(name, found.task), value) for name, value in found.metrics.items() if name not in intervals
    ]
    padded = [(*row, *[None] * (5 - len(row))) for row in rows]
    columns = ("metric", "value", "95 % low", "95 % high", "method")
    first = [
        Table("Values with their intervals", columns, padded, note=RESAMPLING),
        conditions_table({"": (assessment, found.examples)}),
    ]
    return [Section("Metrics", first), *assessment.sections]


def metric_name(name: str, task: Task) -> str:
    """Return the name of a metric for readers, such as ``F1 (label 1)``."""
    if name == "f1":
        return f"F1 ({task.f1_of})" if task.f1_of else "F1"
    return _METRIC_NAMES.get(name, name.replace("_", " "))


def metric_row_name(name: str, task: Task) -> str:
    """Return the name of a metric for a table, with a remark where lower values are better."""
    return metric_name(name, task) + (" (lower is better)" if name in LOWER_IS_BETTER else "")


def format_interval(interval: Interval) -> str:
    """Format a metric as ``0.72 (0.61 to 0.82)``."""
    value, low, high = map(interval.format, (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"
