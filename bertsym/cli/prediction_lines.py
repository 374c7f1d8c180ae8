"""Predictions as lines of TSV or JSON Lines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bertsym.errors import DataError

if TYPE_CHECKING:
    from bertsym.tasks.task import Prediction, Task

_BREAKS = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}  # that would end a cell or a line


def parse_kept(columns: Sequence[str]) -> dict[str, str]:
    """Parse values of ``--keep-column``, COLUMN or COLUMN=NAME. Returns: column -> its name in the output."""
    kept = {}
    for text in columns:
        column, _, name = text.rpartition("=") if "=" in text else (text, "", text)
        if not column or not name or not name.isprintable():
            raise click.UsageError(f"--keep-column {text!r}: give COLUMN, or COLUMN=NAME.")
        kept[column] = name
    return kept


@dataclass(frozen=True)
class PredictionLines:
    """Formats the predictions of a task. Raises UsageError for values that exclude each other.

    `kept` has the names of further columns, before the prediction; with `top_k`, each line has only the most probable
    classes, the best first.
    """

    task: Task
    output_format: str  #: ``tsv`` or ``jsonl``
    kept: Sequence[str] = ()
    top_k: int | None = None

    def __post_init__(self) -> None:
        from bertsym.tasks.classification import Classification

        if self.top_k is not None and not isinstance(self.task, Classification):
            raise click.UsageError(f"--top-k {self.top_k}: the task {self.task.name} does not rank classes.")
        names = [*self.kept, *(self._columns if self.output_format == "tsv" else self.task.json_keys)]
        for name in self.kept:
            if names.count(name) > 1:
                raise click.UsageError(
                    f"--keep-column {name}: the output has another column {name}: give COLUMN=NAME with another name."
                )

    @property
    def _columns(self) -> Sequence[str]:
        if self.top_k is None:
            return self.task.columns
        count = min(self.top_k, len(self.task.class_names))
        return ["label", "p", *(f"{name} {i}" for i in range(2, count + 1) for name in ("label", "p"))]

    @property
    def header(self) -> str | None:
        """The first line, for TSV."""
        return "\t".join([*self.kept, *self._columns]) if self.output_format == "tsv" else None

    def line(self, answer: tuple[Sequence[Any], Prediction] | DataError) -> str:
        """Format a prediction with its kept cells; the line of an error has empty cells, or null in JSON."""
        if self.output_format == "jsonl":
            return json.dumps(self._object(answer), ensure_ascii=False)
        if isinstance(answer, DataError):
            return "\t".join([""] * (len(self.kept) + len(self._columns)))
        kept, prediction = answer
        return "\t".join([*map(_cell, kept), *self._cells(prediction)])

    def _object(self, answer: tuple[Sequence[Any], Prediction] | DataError) -> Mapping[str, Any]:
        if isinstance(answer, DataError):
            return dict.fromkeys([*self.kept, *self.task.json_keys])
        kept, prediction = answer
        values = prediction.to_json()
        if self.top_k is not None:
            values["probabilities"] = _most_probable(prediction, self.top_k)
        return {**dict(zip(self.kept, kept)), **values}

    def _cells(self, prediction: Prediction) -> list[str]:
        if self.top_k is None:
            return prediction.cells()
        ranked = _most_probable(prediction, self.top_k)
        return [cell for label, probability in ranked.items() for cell in (label, f"{probability:.6f}")]


def _most_probable(prediction: Any, count: int) -> dict[str, float]:
    ranked: dict[str, float] = prediction.most_probable(count)
    return ranked


def _cell(value: Any) -> str:
    r"""Write a kept value as a cell: \t, \n and \r for tabs and line breaks, JSON for what is not a string."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"[\t\n\r]", lambda match: _BREAKS[match[0]], text)
