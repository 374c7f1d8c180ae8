"""The report of two models on one file: is one better, can the difference be chance, on which rows do they disagree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from bertsym.reports.blocks import (
    Block,
    Cell,
    Figure,
    Headline,
    Intervals,
    Report,
    Section,
    SignedNumber,
    Table,
    percentage,
)
from bertsym.reports.data import conditions_table, data_section, truncation_fact, truncation_text, truncation_warnings
from bertsym.reports.disagreements import both_wrong, disagreements
from bertsym.reports.evaluation import RESAMPLING, metric_row_name, repeat_settings
from bertsym.reports.model import models_section, repeat_fact, repeat_section
from bertsym.reports.paired import Comparison
from bertsym.reports.training_settings import training_command, training_differences


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
    contained = "The interval contains 0." if interval.contains_zero else "The interval does not contain 0."
    count = int(found.agreeing.sum())
    headline = Headline(
        found.verdict,
        f"{first.title} of {two} minus that of {one}, on {examples.name}, {len(examples):,} rows",
        interval.format(interval.value, "+"),
        f"95 % interval {interval.format(interval.low, '+')} to {interval.format(interval.high, '+')} "
        f"({interval.method}). {contained}",
        {
            **found.counts(),
            "same answer": f"{count:,} of {len(examples):,} rows ({percentage(count, len(examples))})",
            **_rows_needed(found),
            **(facts or {}),
            **dict(_truncation(found)),
            **repeat_fact(),
        },
        [*found.warnings, *_truncation_warnings(found)],
    )
    bundles = {name: each.bundle for name, each in zip(found.names, (found.first, found.second))}
    sections = [
        Section("Metrics", list(_differences(found))),
        Section("What differs", training_differences(bundles)),
        *extra,
        Section("Results", list(_results(found))),
        Section("Disagreements", [disagreements(found, with_texts)]),
        *([Section("Both wrong", [both_wrong(found, with_texts)])] if found.have_right_answers else []),
        _data(found, with_texts),
        models_section(bundles),
        repeat_section(
            repeat_settings([found.first, found.second]),
            {name: training_command(bundle) for name, bundle in bundles.items()},
        ),
    ]
    return Report(title, headline, sections)


def _rows_needed(found: Comparison) -> dict[str, Cell]:
    """Return how many rows an interval without 0 takes, if the difference stays: its width falls by the square root."""
    interval, rows = found.differences[0].interval, len(found.first.examples)
    if not interval.contains_zero or interval.value == 0:
        return {}
    needed = rows * max(1.0, ((interval.high - interval.low) / 2 / interval.value) ** 2)
    shown = f"{needed:.1e}" if needed >= 1e7 else f"{float(f'{needed:.2g}'):,.0f}"
    return {"rows needed": f"about {shown}, for an interval without 0 around the same difference"}


def _truncation(found: Comparison) -> Iterator[tuple[str, Cell]]:
    """Yield how many rows were truncated, once if the models have the same limit."""
    limits = _limits(found)
    facts = [truncation_fact(each.examples) for each in (found.first, found.second)]
    if facts[0] == facts[1] and (limits[0] == limits[1] or not found.first.examples.truncated):
        yield f"truncated to {limits[0]} tokens" if limits[0] == limits[1] else "truncated", facts[0]
        return
    for name, limit, fact in zip(found.names, limits, facts):
        yield f"truncated to {limit} tokens for {name}", fact


def _truncation_warnings(found: Comparison) -> list[str]:
    limits = _limits(found)
    if _truncate_equally(found):
        return truncation_warnings(found.first.examples, limits[0], "the models")
    return [
        text
        for name, each, limit in zip(found.names, (found.first, found.second), limits)
        for text in truncation_warnings(each.examples, limit, name)
    ]


def _limits(found: Comparison) -> list[int]:
    """Return the numbers of tokens to which the models cut a row."""
    return [each.bundle.signature.max_length for each in (found.first, found.second)]


def _truncate_equally(found: Comparison) -> bool:
    """Whether the models have the same limit, and cut as many rows."""
    first, second = _limits(found)
    return first == second and found.first.examples.truncated == found.second.examples.truncated


def _data(found: Comparison, with_texts: bool) -> Section:
    """Describe the file as the first model reads it, and the truncation by the second model if it is different."""
    first, second, limits = found.first, found.second, _limits(found)
    is_same = _truncate_equally(found)
    reader = "the models" if is_same else found.names[0]
    section = data_section(first.task, {"": first.examples}, limits[0], first.left_out, with_texts, reader)
    if is_same:
        return section
    return Section(section.title, [truncation_text(second.examples, limits[1], found.names[1]), *section.blocks])


def _differences(found: Comparison) -> Iterator[Block]:
    one, two = found.names
    task = found.first.task
    rows: list[tuple[Cell, ...]] = [
        (
            *(metric_row_name(each.metric, task), each.first, each.second, SignedNumber(each.interval.value)),
            *(SignedNumber(each.interval.low), SignedNumber(each.interval.high)),
            each.interval.contains_zero,
        )
        for each in found.differences
    ]
    known = {each.metric for each in found.differences}
    for name, value in found.first.metrics.items():
        other = found.second.metrics.get(name)
        if name not in known and other is not None:
            rows.append((metric_row_name(name, task), value, other, SignedNumber(other - value), None, None, None))
    columns = ("metric", one, two, "difference", "95 % low", "95 % high", "contains 0")
    method = found.differences[0].interval.method
    note = f"The difference is {two} minus {one}; 95 % intervals by {method}. {RESAMPLING}"
    yield Table("Values with the intervals of their differences", columns, rows, note=note)
    intervals = [each.interval for each in found.differences]
    plot = Intervals(
        f"{two} minus {one}",
        [each.title for each in found.differences],
        [each.value for each in intervals],
        [each.low for each in intervals],
        [each.high for each in intervals],
    )
    caption = "An interval that crosses the dashed line at 0 does not rule out chance."
    yield Figure("differences", "Differences with their 95 % intervals", plot, caption)


def _results(found: Comparison) -> Iterator[Block]:
    """Yield the results by label and by condition, and the confusion matrices."""
    tables, matrices = [], []
    for number, (name, assessment) in enumerate(zip(found.names, found.assessments), 1):
        blocks = [block for section in assessment.sections for block in section.blocks]
        tables += [each for each in blocks if isinstance(each, Table) and "recall" in each.columns]
        matrices += [
            dataclasses.replace(each, name=f"confusion-{number}", title=f"Confusion matrix of {name}")
            for each in blocks
            if isinstance(each, Figure) and each.name == "confusion"
        ]
    if len(tables) == 2:
        yield _results_by_label(found.names, tables)
    yield from matrices
    models = (found.first, found.second)
    yield conditions_table(
        {name: (each, model.examples) for name, each, model in zip(found.names, found.assessments, models)}
    )


def _results_by_label(names: tuple[str, str], tables: Sequence[Table]) -> Table:
    """Put the tables of the labels of two models side by side."""
    columns = tables[0].columns
    shown = [columns.index(name) for name in ("predicted", "precision", "recall", "F1")]
    known = {row[0]: row for row in tables[1].rows}
    rows = [
        (*row[:2], *(cell for i in shown for cell in (row[i], known[row[0]][i])))
        for row in tables[0].rows
        if row[0] in known
    ]
    heads = (f"{columns[i]}, {name}" for i in shown for name in names)
    unlisted = (tables[0].total or 0) - len(tables[0].rows)
    return Table(f"Results by {columns[0]}", (*columns[:2], *heads), rows, len(rows) + max(0, unlisted))
