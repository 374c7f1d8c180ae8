"""What a kind of task says about its outputs for labelled examples, for a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.metrics.resampling import MetricRows
from bertsym.reports.blocks import MOST_LABELS, Bars, Cell, Histogram, Section, data_text

BINS = 24  #: of a histogram


@dataclass(frozen=True)
class ExampleRows:
    """The examples of a file as rows of a table: their places and, unless these are left out, their texts."""

    lines: Sequence[Cell]
    texts: Callable[[int], Sequence[str]] | None
    text_columns: tuple[str, ...]
    place: str = "line"  #: what `lines` are
    truncated: Sequence[bool] = ()  #: whether each was truncated; empty: none was

    @property
    def places(self) -> tuple[str, ...]:
        """The columns of `place_cells`."""
        return (self.place, *(("truncated",) if self.truncated else ()))

    def place_cells(self, row: int) -> list[Cell]:
        """Return the place of an example and, where some are truncated, whether this one is."""
        return [self.lines[row], *(("yes" if self.truncated[row] else "no",) if self.truncated else ())]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of `cells`."""
        return (*self.places, *(self.text_columns if self.texts is not None else ()))

    def cells(self, row: int) -> list[Cell]:
        """Return the place and the texts of an example."""
        texts = self.texts(row) if self.texts is not None else ()
        return [*self.place_cells(row), *map(data_text, texts)]


@dataclass(frozen=True)
class Assessment:
    """The outputs of a model for labelled examples, compared with the labels."""

    metrics: Mapping[str, MetricRows]  #: what each metric of the task is computed from
    scores: Array  #: how good the answer for each example is, (N,) float64; the larger, the better
    score_name: str  #: what the mean of the scores is
    sections: list[Section]  #: the errors
    baseline: str = ""  #: what the first metric has to be compared with


def worst_first(badness: Array, chosen: Array, most: int) -> list[int]:
    """Return up to `most` of the rows that are chosen (N,) bool, those with the largest `badness` (N,) first."""
    rows = np.flatnonzero(chosen)
    order = np.argsort(-badness[rows], kind="stable")[:most]
    return [int(row) for row in rows[order]]


def precision_table_rows(
    labels: Sequence[str], hits: Array, predicted: Array, true: Array
) -> list[tuple[str, int, int, float, float, float]]:
    """Return label, rows, predicted rows, precision, recall and F1 of each label: (C,), (C,), (C,) int."""
    found = []
    for label, hit, guessed, total in zip(labels, hits.tolist(), predicted.tolist(), true.tolist()):
        ratios = (_ratio(hit, guessed), _ratio(hit, total), _ratio(2 * hit, guessed + total))
        found.append((label, total, guessed, *ratios))
    return found


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def sampled(rows: int, most: int) -> Array:
    """Return up to `most` of all row numbers, always the same ones, in their order."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:most])


def label_plot(labels: Sequence[str], counts: Mapping[str, Mapping[str, int]], total: str = "rows") -> Bars:
    """Return the distribution of labels, of many the most frequent ones of the first file: file -> label -> number."""
    first = next(iter(counts.values()))
    shown = list(labels)
    if len(shown) > MOST_LABELS:
        shown = sorted(shown, key=lambda label: -first.get(label, 0))[:MOST_LABELS]
    shares = {
        file: [100 * found.get(label, 0) / max(1, sum(found.values())) for label in shown]
        for file, found in counts.items()
    }
    return Bars(f"% of {total}", shown, shares)


def histogram(what: str, numbers: Mapping[str, Array]) -> Histogram:
    """Return the distribution of the numbers of each series, in the same bins; integers are the centres of theirs."""
    together = np.concatenate(list(numbers.values()))
    if np.issubdtype(together.dtype, np.integer):
        low, high = int(together.min()), int(together.max())
        size = 1 + (high - low) // BINS
        edges = np.arange(low - 0.5, high + size + 0.5, size)
    else:
        edges = np.histogram_bin_edges(together, BINS)
    counts = {name: np.histogram(each, edges)[0].tolist() for name, each in numbers.items()}
    return Histogram(what, edges.tolist(), counts)
