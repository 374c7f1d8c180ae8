"""What a report consists of, as plain data: sections of sentences, facts, tables and figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Union

import numpy as np

MOST_ROWS = 200  #: rows of a table of examples
MOST_LABELS = 30  #: labels of a figure
MOST_CHARACTERS = 600  #: of a text in a table


@dataclass(frozen=True)
class Marked:
    """A text of the data in pieces, each with its mark: ``right``, ``missed``, ``wrong``, or empty for none."""

    pieces: tuple[tuple[str, str], ...]
    is_answer: bool = False  #: a label or an answer, in a narrow column


@dataclass(frozen=True)
class Digest:
    """A SHA-256, of which the page shows the beginning."""

    digest: str


class SignedNumber(float):
    """A difference, shown with its sign."""


class Command(str):
    """A command, to type again."""


#: a number, a label, a text of the data as `Marked`, or nothing
Cell = Union[str, int, float, Marked, Digest, None]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    values: Mapping[str, Cell]
    title: str = ""


@dataclass(frozen=True)
class Code:
    """A command, to type again."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """A table, whose rows may be the first of more."""

    kind: ClassVar[str] = "table"
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    total: int | None = None  #: number of all rows, where more than these exist
    note: str = ""
    examples: bool = False  #: whether its rows are examples of the data, to be sorted and searched
    is_folded: bool = False  #: whether the page shows the title alone, until it is clicked


@dataclass(frozen=True)
class Figure:
    """A figure: its `plot` decides how it is drawn; `name` is that of its files."""

    kind: ClassVar[str] = "figure"
    name: str
    title: str
    plot: Plot
    caption: str = ""


@dataclass(frozen=True)
class Lines:
    """Numbers over numbers; each line is x values and y values."""

    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    dotted: Sequence[str] = ()  #: names of lines that are drawn as points too
    marked: float | None = None  #: x of a vertical line
    mark_label: str = ""


@dataclass(frozen=True)
class Bars:
    """Numbers by label, side by side for several series."""

    y_label: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    is_logarithmic: bool = False
    limit: float | None = None  #: y of a horizontal line
    limit_label: str = ""


@dataclass(frozen=True)
class Histogram:
    """Numbers of examples between edges, for one or more series; drawn as percentages."""

    x_label: str
    edges: Sequence[float]
    series: Mapping[str, Sequence[int]]
    limit: float | None = None  #: x of a vertical line
    limit_label: str = ""
    y_label: str = "% of rows"


@dataclass(frozen=True)
class Scatter:
    """Points, and the line where both coordinates are equal."""

    x_label: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Heatmap:
    """Counts by row and column."""

    x_label: str
    y_label: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Reliability:
    """The accuracy of predictions over their confidence, in bins."""

    confidence: Sequence[float]
    accuracy: Sequence[float]
    counts: Sequence[int]


@dataclass(frozen=True)
class Intervals:
    """Values with the ends of their intervals, one under the other, and a vertical line at 0."""

    x_label: str
    labels: Sequence[str]
    values: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


Plot = Union[Lines, Bars, Histogram, Scatter, Heatmap, Reliability, Intervals]


@dataclass(frozen=True)
class Drawing:
    """A drawing that was made already, as an element of the page with its CSS, and as files."""

    kind: ClassVar[str] = "drawing"
    name: str
    title: str
    element: str = field(repr=False)  #: ``<svg>``
    css: str = field(repr=False)  #: of the element
    svg: bytes = field(repr=False)
    png: bytes = field(repr=False)
    caption: str = ""


Block = Union[Text, Facts, Code, Table, Figure, Drawing]


@dataclass(frozen=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Headline:
    """What the first screen shows: the answer in a sentence, and its number with its interval."""

    sentence: str
    label: str
    number: str
    interval: str  #: how sure the number is, and how that was computed
    facts: Mapping[str, Cell] = field(default_factory=dict)
    warnings: Sequence[str] = ()  #: why the number may mislead


@dataclass(frozen=True)
class Report:
    """A page: what it is about, its headline, and its sections."""

    title: str
    headline: Headline
    sections: Sequence[Section]

    def to_json(self) -> dict[str, Any]:
        """Return all numbers and texts as JSON values; a number that is not finite is null."""
        sections = [
            {"title": section.title, "blocks": [_block(block) for block in section.blocks]} for section in self.sections
        ]
        document = {"title": self.title, "headline": _plain(self.headline), "sections": sections}
        return {"format": 1, **document}

    @property
    def figures(self) -> list[Figure | Drawing]:
        """All figures and drawings, in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, (Figure, Drawing))]


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Drawing):
        return {"type": block.kind, "name": block.name, "title": block.title, "caption": block.caption}
    values = _plain(block)
    if isinstance(block, Figure):
        values["plot"] = {"type": type(block.plot).__name__.lower(), **values["plot"]}
    return {"type": block.kind, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, Marked):
        return [{"text": text, "mark": mark} for text, mark in value.pieces]
    if isinstance(value, Digest):
        return value.digest
    if dataclasses.is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """Cut a long text, and say how much is missing."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def data_text(text: str) -> Marked:
    """Return a text of the data as a cell."""
    return Marked(((shortened(text), ""),))


def answer_text(text: str, mark: str = "") -> Marked:
    """Return a label or an answer of a model as a cell, with the mark ``right``, ``wrong`` or none."""
    return Marked(((shortened(text), mark),), is_answer=True)


def percentage(part: int, whole: int) -> str:
    """Format a fraction of rows: ``39 %``."""
    return f"{100 * part / max(1, whole):.0f} %"
