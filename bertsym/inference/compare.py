"""Comparison of two models on a labelled file: is one better, and can the difference be chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.errors import DataError, UsageError
from bertsym.events import EventStream, Listener
from bertsym.inference.evaluate import EvaluateOptions, compute_outputs
from bertsym.inference.task_bundle import TaskBundle
from bertsym.reports.comparison import comparison_report
from bertsym.reports.options import ReportOptions
from bertsym.reports.paired import Comparison, Difference, compare_evaluated
from bertsym.reports.writing import check_report, write_report
from bertsym.text.table_format import TableFormat


@dataclass(frozen=True)
class CompareResult:
    """The metrics of two models on the same rows, with paired intervals of their differences."""

    names: tuple[str, str]  #: how the models are called: the names of their bundles, or their prefixes
    metrics: tuple[dict[str, float], dict[str, float]]
    differences: list[Difference]  #: the second model minus the first
    verdict: str  #: whether the second model is better by the first metric, and whether that can be chance
    counts: dict[str, int]  #: rows that both models answer right, only one of them, and none
    agreement: float  #: fraction of the rows with the same answer
    rows: int
    file: str
    warnings: list[str]  #: why the metrics may be optimistic, such as that a model was trained on the file

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        differences = {
            each.metric: {
                "first": each.first,
                "second": each.second,
                "difference": each.interval.value,
                "low": each.interval.low,
                "high": each.interval.high,
                "method": each.interval.method,
                "can_be_chance": each.can_be_chance,
            }
            for each in self.differences
        }
        values = {name: getattr(self, name) for name in ("verdict", "counts", "agreement", "rows", "file", "warnings")}
        return {"models": list(self.names), "metrics": list(self.metrics), "differences": differences, **values}


def compare(
    first: str | Path,
    second: str | Path,
    table: str | Path | None,
    options: EvaluateOptions = EvaluateOptions(),
    *,
    table_format: TableFormat = TableFormat(),
    report: ReportOptions | None = None,
    on_event: Listener = lambda event: None,
) -> CompareResult:
    """Compare two trained bundles on a labelled file, which each reads with its own tokenizer and maximum length.

    Args:
        first: prefix of a bundle.
        second: prefix of another bundle for the same kind of task, with the same class names.
        table: the labelled file; None: that of a split of a data set.
        options: task or data set, device, batch size, and what happens at an unreadable row.
        table_format: format and columns; by default those of the training table of each model.
        report: folder of a report about the differences; None: no report is written.
        on_event: called with every event: progress, warnings about the table, the metrics of each model.

    Raises:
        UsageError, DataError, ModelError: an argument, the table or a bundle is invalid, or the models do not have the
            same task, labels or rows.
        InstallationError: a report is to be written, and matplotlib is missing.
    """
    check_report(report)
    opened = [TaskBundle.open(model, "compare") for model in (first, second)]
    one, two = (each.task for each in opened)
    if one.name != two.name:
        raise UsageError(f"{first} is a model for {one.name}, {second} for {two.name}: compare models for one task")
    if sorted(one.class_names) != sorted(two.class_names):
        different = sorted({*one.class_names} ^ {*two.class_names})
        raise UsageError(f"{first} and {second} have different labels: only one of them has {different[0]!r}")
    keeps_texts = report is not None and report.texts
    events = EventStream(on_event)
    evaluated = [
        compute_outputs(each, table, options, table_format, events, keeps_texts=keeps_texts) for each in opened
    ]
    lines = [[row.line for row in each.examples.rows] for each in evaluated]
    if lines[0] != lines[1] or evaluated[0].examples.sha256 != evaluated[1].examples.sha256:
        raise DataError(f"{evaluated[0].examples.name}: the models do not read the same rows of it")
    found = compare_evaluated(evaluated[0], evaluated[1], _names(first, second), keeps_texts)
    if report is not None:
        write_report(comparison_report(found, _title(found), report.texts), report)
    return CompareResult(
        found.names,
        (dict(found.first.metrics), dict(found.second.metrics)),
        found.differences,
        found.verdict,
        found.counts(),
        found.agreement,
        len(found.agreeing),
        found.first.examples.name,
        found.warnings,
    )


def _names(first: str | Path, second: str | Path) -> tuple[str, str]:
    """Return short names of two models: the ends of their paths from where these are different."""
    one, two = Path(first).parts, Path(second).parts
    for count in range(1, max(len(one), len(two)) + 1):
        names = "/".join(one[-count:]), "/".join(two[-count:])
        if names[0] != names[1]:
            return names
    return f"{one[-1]} (first)", f"{two[-1]} (second)"


def _title(found: Comparison) -> str:
    return f"bertsym compare: {found.names[0]} and {found.names[1]}"
