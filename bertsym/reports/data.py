"""The data of a report: labels, lengths, truncation, unknown tokens, rows that are left out, and where answers fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bertsym.errors import DataError
from bertsym.reports.assessment import Array, Assessment, histogram
from bertsym.reports.blocks import Block, Cell, Figure, Histogram, Section, Table, Text, data_text
from bertsym.tasks.task import Examples, Task

_MOST_REASONS = 50
_FEW_ROWS = 20  # in each part, below which a part says nothing


@dataclass
class LeftOutRows:
    """Why rows are left out, of the first ones."""

    reasons: list[str] = field(default_factory=list)

    def added_by(self, handler: Callable[[DataError], object]) -> Callable[[DataError], None]:
        """Return a handler of bad rows that calls another one first, which may raise, and then keeps the reason."""

        def handle(error: DataError) -> None:
            handler(error)
            if len(self.reasons) < _MOST_REASONS:
                self.reasons.append(str(error))

        return handle


def data_section(
    task: Task, files: Mapping[str, Examples], max_length: int, left_out: LeftOutRows, with_texts: bool
) -> Section:
    """Describe the files of a run by what they are: ``train``, ``dev``."""
    lengths = {name: each.features.lengths for name, each in files.items()}
    rows = [_row(name, each, lengths[name])[len(files) == 1 :] for name, each in files.items()]
    roles = [""] if len(files) > 1 else []
    columns = (
        *(*roles, "file", "rows", "truncated", "left out", "dropped by label"),
        *("[UNK] tokens", "median length", "longest", "SHA-256"),
    )
    titles = {name: f"{name}: {each.name}" if len(files) > 1 else each.name for name, each in files.items()}
    plots = histogram("tokens of an input", {titles[name]: each for name, each in lengths.items()})
    limited = Histogram(plots.x_label, plots.edges, plots.series, float(max_length), f"limit: {max_length} tokens")
    named = {titles[name]: each for name, each in files.items()}
    blocks: list[Block] = [
        Text(" ".join(_truncation(each, max_length) for each in files.values())),
        Table("Files", columns, rows),
        Figure("labels", "Labels", task.target_plot(named)),
        Figure("lengths", "Lengths", limited),
    ]
    if left_out.reasons and with_texts:
        total = sum(each.left_out for each in files.values())
        reasons = [[data_text(reason)] for reason in left_out.reasons]
        blocks.append(Table("Rows that are left out", ("reason",), reasons, total))
    return Section("Data", blocks)


def _row(name: str, examples: Examples, lengths: Array) -> Sequence[Cell]:
    return (
        *(name, examples.name, len(examples), examples.truncated, examples.left_out),
        ", ".join(f"{label}: {count:,}" for label, count in examples.dropped.items()) or None,
        f"{100 * examples.features.unknown_fraction:.2f} %",
        *(float(np.median(lengths)), int(lengths.max()), examples.sha256),
    )


def _truncation(examples: Examples, max_length: int) -> str:
    if not examples.truncated:
        return f"{examples.name}: no text was truncated."
    return (
        f"{examples.name}: {truncation_fact(examples)} texts were truncated to {max_length} tokens: the model did not "
        "see their ends."
    )


def truncation_fact(examples: Examples) -> str:
    """Format how many texts were truncated: ``none of 100``, ``12 of 100 (12 %)``."""
    if not examples.truncated:
        return f"none of {len(examples):,}"
    return f"{examples.truncated:,} of {len(examples):,} ({examples.truncated / len(examples):.0%})"


def conditions_table(assessment: Assessment, examples: Examples) -> Table:
    """Compare the answers for short and long, truncated and complete, known and unknown texts."""
    windows = [row.windows for row in examples.rows]
    lengths = np.array([sum(len(window.token_ids) for window in each) for each in windows])
    truncated = np.array([row.truncated for row in examples.rows])
    unknown = np.array([any(window.unknown for window in each) for each in windows])
    parts = {"all": np.full(len(examples), True)}
    edges = np.unique(np.quantile(lengths, (0, 0.25, 0.5, 0.75, 1)).astype(np.int64))
    for low, high in zip(edges, edges[1:]):
        first = low if low == edges[0] else low + 1
        name = f"{first} tokens" if first == high else f"{first} to {high} tokens"
        parts[name] = (lengths >= first) & (lengths <= high)
    for names, marks in (
        (("truncated", "not truncated"), truncated),
        (("with [UNK] tokens", "without [UNK] tokens"), unknown),
    ):
        if marks.any() and not marks.all():
            parts.update(zip(names, (marks, ~marks)))
    rows = [
        (name, int(chosen.sum()), abs(float(assessment.scores[chosen].mean())))
        for name, chosen in parts.items()
        if chosen.any()
    ]
    note = f"A part of fewer than {_FEW_ROWS} rows says little." if min(row[1] for row in rows) < _FEW_ROWS else ""
    return Table("Where answers fail", ("rows with", "rows", assessment.score_name), rows, note=note)
