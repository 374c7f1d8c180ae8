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

    `kept` has the names of further columns, before the prediction.
    """

    task: Task
    output_format: str  #: ``tsv`` or ``jsonl``
    kept: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [*self.kept, *(self.task.columns if self.output_format == "tsv" else self.task.json_keys)]
        for name in self.kept:
            if names.count(name) > 1:
                raise click.UsageError(
                    f"--keep-column {name}: the output has another column {name}: give COLUMN=NAME with another name."
                )

    @property
    def header(self) -> str | None:
        """The first line, for TSV."""
        return "\t".join([*self.kept, *self.task.columns]) if self.output_format == "tsv" else None

    def line(self, answer: tuple[Sequence[Any], Prediction] | DataError) -> str:
        """Format a prediction with its kept cells; the line of an error has empty cells, or null in JSON."""
        if self.output_format == "jsonl":
            return json.dumps(self._object(answer), ensure_ascii=False)
        if isinstance(answer, DataError):
            return "\t".join([""] * (len(self.kept) + len(self.task.columns)))
        kept, prediction = answer
        return "\t".join([*map(_cell, kept), *prediction.cells()])

    def _object(self, answer: tuple[Sequence[Any], Prediction] | DataError) -> Mapping[str, Any]:
        if isinstance(answer, DataError):
            return dict.fromkeys([*self.kept, *self.task.json_keys])
        kept, prediction = answer
        return {**dict(zip(self.kept, kept)), **prediction.to_json()}


def _cell(value: Any) -> str:
    r"""Write a kept value as a cell: \t, \n and \r for tabs and line breaks, JSON for what is not a string."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.sub(r"[\t\n\r]", lambda match: _BREAKS[match[0]], text)
