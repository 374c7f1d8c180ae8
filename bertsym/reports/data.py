"""The data of a report: labels, lengths, truncation, unknown tokens, rows that are left out, and where answers fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bertsym.array import Array
from bertsym.errors import DataError
from bertsym.reports.assessment import Assessment, histogram
from bertsym.reports.blocks import (
    Bars,
    Block,
    Cell,
    Digest,
    Figure,
    Section,
    Table,
    Text,
    data_text,
    percentage,
)
from bertsym.tasks.task import Examples, Task

_MOST_REASONS = 50
_FEW_ROWS = 20  # in each part, below which a part says nothing
_MANY_TRUNCATED = 0.05  # fraction of truncated rows above which a report warns


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
    task: Task,
    files: Mapping[str, Examples],
    max_length: int,
    left_out: LeftOutRows,
    with_texts: bool,
    reader: str = "the model",
) -> Section:
    """Describe the files of a run by what they are, ``train`` or ``dev``; `reader` is who reads them."""
    lengths = {name: each.features.lengths for name, each in files.items()}
    rows = [_row(name, each, lengths[name])[len(files) == 1 :] for name, each in files.items()]
    roles = [""] if len(files) > 1 else []
    columns = (
        *(*roles, "file", "rows", "truncated", "rows left out (unreadable)", "rows dropped by label"),
        *("[UNK] tokens", "median tokens read", "most tokens read", "SHA-256"),
    )
    titles = {name: f"{name}: {each.name}" if len(files) > 1 else each.name for name, each in files.items()}
    has_windows = any(len(each.features) != len(each) for each in files.values())
    unit = "window" if has_windows else "row"
    plots = histogram(f"tokens per {unit}, after truncation", {titles[name]: each for name, each in lengths.items()})
    limited = dataclasses.replace(
        plots, y_label=f"% of {unit}s", limit=float(max_length), limit_label=f"input limit: {max_length} tokens"
    )
    named = {titles[name]: each for name, each in files.items()}
    blocks: list[Block] = [
        *(truncation_text(each, max_length, reader) for each in files.values()),
        Table("Files", columns, rows),
        _targets(task, named),
        Figure("lengths", "Lengths", limited),
    ]
    if left_out.reasons and with_texts:
        total = sum(each.left_out for each in files.values())
        reasons = [[data_text(reason)] for reason in left_out.reasons]
        blocks.append(Table("Rows left out", ("reason",), reasons, total))
    return Section("Data", blocks)


def _row(name: str, examples: Examples, lengths: Array) -> Sequence[Cell]:
    return (
        *(name, examples.name, len(examples), examples.truncated, examples.left_out),
        ", ".join(f"{label}: {count:,}" for label, count in examples.dropped.items()) or 0,
        f"{100 * examples.features.unknown_fraction:.2f} %",
        *(float(np.median(lengths)), int(lengths.max()), Digest(examples.sha256)),
    )


def _targets(task: Task, files: Mapping[str, Examples]) -> Block:
    """Describe the labels of the files: two labels in sentences, others in a figure."""
    plot = task.target_plot(files)
    if not isinstance(plot, Bars):
        return Figure("labels", plot.x_label.capitalize(), plot)
    if len(plot.labels) > 2:
        return Figure("labels", "Labels", plot)
    unit = plot.y_label.removeprefix("% of ")
    parts = (
        f"{name}: "
        + ", ".join(f"{share:.0f} % of {unit} have the label {label}" for label, share in zip(plot.labels, shares))
        for name, shares in plot.series.items()
    )
    return Text(". ".join(parts) + ".")


def truncation_text(examples: Examples, max_length: int, reader: str) -> Text:
    """Say how many rows of a file were truncated, as a warning if these are many."""
    is_warning = examples.truncated > _MANY_TRUNCATED * len(examples)
    if not examples.truncated:
        return Text(f"{examples.name}: no row was truncated.")
    what = f"{truncation_fact(examples)} were truncated to {max_length} tokens; {reader} did not see the rest. "
    what += "finetune --max-length sets the limit."
    return Text(f"{examples.name}: {what}", is_warning)


def truncation_warnings(examples: Examples, max_length: int, reader: str) -> list[str]:
    """Return the sentence of `truncation_text` if it is a warning."""
    text = truncation_text(examples, max_length, reader)
    return [text.text] if text.is_warning else []


def truncation_fact(examples: Examples) -> str:
    """Format how many rows were truncated: ``none of 100 rows``, ``12 of 100 rows (12 %)``."""
    if not examples.truncated:
        return f"none of {len(examples):,} rows"
    share = percentage(examples.truncated, len(examples))
    return f"{examples.truncated:,} of {len(examples):,} rows ({share})"


def conditions_table(models: Mapping[str, tuple[Assessment, Examples]]) -> Table:
    """Compare the answers of models for short and long, truncated and complete, known and unknown texts.

    The lengths and the unknown tokens are those of the first model.
    """
    assessment, examples = next(iter(models.values()))
    windows = [row.windows for row in examples.rows]
    lengths = np.array([sum(len(window.token_ids) for window in each) for each in windows])
    unknown = np.array([any(window.unknown for window in each) for each in windows])
    parts = {"all": np.full(len(examples), True)}
    edges = np.unique(np.quantile(lengths, (0, 0.25, 0.5, 0.75, 1)).astype(np.int64))
    for low, high in zip(edges, edges[1:]):
        first = low if low == edges[0] else low + 1
        name = f"{first} tokens" if first == high else f"{first} to {high} tokens"
        parts[name] = (lengths >= first) & (lengths <= high)
    truncated = {name: np.array([row.truncated for row in each.rows]) for name, (_, each) in models.items()}
    cut = next(iter(truncated.values()))
    if all((each == cut).all() for each in truncated.values()):
        truncated = {"": cut}
    divided = [
        ((f"truncated{by}", f"not truncated{by}"), marks)
        for by, marks in ((f" for {name}" if name else "", marks) for name, marks in truncated.items())
    ]
    for names, marks in (*divided, (("with [UNK] tokens", "without [UNK] tokens"), unknown)):
        if marks.any() and not marks.all():
            parts.update(zip(names, (marks, ~marks)))
    parts = {name: chosen for name, chosen in parts.items() if chosen.any()}
    rows: list[tuple[Cell, ...]] = [
        (name, int(chosen.sum()), *(abs(float(each.scores[chosen].mean())) for each, _ in models.values()))
        for name, chosen in parts.items()
    ]
    fewest = min(int(chosen.sum()) for chosen in parts.values())
    note = f"Results for fewer than {_FEW_ROWS} rows are unreliable." if fewest < _FEW_ROWS else ""
    scores = [f"{assessment.score_name}, {name}" if name else assessment.score_name for name in models]
    return Table("By length, truncation and [UNK] tokens", ("condition", "rows", *scores), rows, note=note)
