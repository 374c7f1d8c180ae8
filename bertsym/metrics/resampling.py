"""Intervals of metrics: Wilson's for fractions, and percentiles of bootstrap resamples for all others.

The resamples draw rows with replacement. They measure how much a metric depends on which rows the file has, and not how
much it varies between two trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0  #: of the bootstrap
_NORMAL = 1.959963984540054  # quantile of the normal distribution for CONFIDENCE
_MOST_DRAWS = 100_000_000
_FEWEST_RESAMPLES = 200
_BLOCK = 4_000_000  # counts in memory


@dataclass(frozen=True)
class Interval:
    """A metric, or a difference of metrics, with the ends of its 95 % interval and the method that computed them."""

    value: float
    low: float
    high: float
    method: str

    @property
    def contains_zero(self) -> bool:
        """Whether 0 is in the interval."""
        return self.low <= 0 <= self.high

    @property
    def decimals(self) -> int:
        """Number of decimals that the width justifies: at least 2, and 4 if the interval has no width."""
        width = self.high - self.low
        return max(2, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else 4

    def format(self, number: float, sign: str = "") -> str:
        """Format a number, such as an end of the interval, with `decimals`; with the `sign` ``+`` of differences."""
        return f"{number:{sign}.{self.decimals}f}"


@dataclass(frozen=True)
class MetricRows:
    """What a metric is computed from: numbers for each row, and a function of how often each row counts."""

    values: Array  #: (N, K)
    #: values (M, K), how often each row counts (R, M) float64 -> the metric for each of R resamples, (R,)
    compute: Callable[[Array, Array], Array]
    is_fraction: bool = False  #: whether the metric is the mean of `values`, (N, 1), each of which is 0 or 1

    @property
    def value(self) -> float:
        """The metric of all rows."""
        return float(self.compute(self.values, np.ones((1, len(self.values))))[0])

    def interval(self, seed: int = SEED) -> Interval:
        """Compute the metric of all rows with its interval; fractions have Wilson's."""
        if self.is_fraction:
            return wilson_interval(int(self.values.sum()), len(self.values))
        values = np.concatenate(list(_resampled([self], seed)))
        return _percentiles(self.value, values, "percentile bootstrap")


def mean_of(values: Array, is_fraction: bool = False) -> MetricRows:
    """Return the rows of a metric that is a mean: (N,)."""
    return MetricRows(values.astype(np.float64)[:, np.newaxis], _mean, is_fraction)


def _mean(values: Array, counts: Array) -> Array:
    means: Array = (counts @ values)[:, 0] / counts.sum(axis=1)
    return means


def wilson_interval(hits: int, total: int) -> Interval:
    """Compute the 95 % interval of a fraction by Wilson's score, without continuity correction."""
    fraction, square = hits / total, _NORMAL**2
    centre = (fraction + square / (2 * total)) / (1 + square / total)
    spread = _NORMAL / (1 + square / total)
    spread *= math.sqrt(fraction * (1 - fraction) / total + square / (4 * total**2))
    # Rounding must not move the ends of 0 and 1.
    low = 0.0 if hits == 0 else centre - spread
    high = 1.0 if hits == total else centre + spread
    return Interval(fraction, low, high, "Wilson score")


def paired_difference(one: MetricRows, other: MetricRows, seed: int = SEED) -> Interval:
    """Compute by how much the metric of `other` exceeds that of `one` on the same rows, with its interval.

    Each resample has the same rows for both.
    """
    differences = np.concatenate([*_resampled([one, other], seed)])
    return _percentiles(other.value - one.value, differences, "paired percentile bootstrap")


def _resampled(metrics: Sequence[MetricRows], seed: int) -> Iterator[Array]:
    """Yield the values of one metric, or the differences of two, for blocks of resamples."""
    rows = len(metrics[0].values)
    widths = np.cumsum([0, *(metric.values.shape[1] for metric in metrics)])
    values = np.concatenate([metric.values for metric in metrics], axis=1)
    weights: Array | None = None
    if values.shape[1] <= 4:
        # Equal rows are drawn together: a multinomial distribution over the distinct ones.
        distinct, repeats = np.unique(values, axis=0, return_counts=True)
        if 2 * len(distinct) < rows:
            values, weights = distinct, repeats / rows
    size = len(values)
    resamples = min(RESAMPLES, max(_FEWEST_RESAMPLES, _MOST_DRAWS // size))
    block = max(1, _BLOCK // size)
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        if weights is not None:
            counts = rng.multinomial(rows, weights, count).astype(np.float64)
        else:
            drawn = rng.integers(0, rows, (count, rows))
            drawn += np.arange(count)[:, np.newaxis] * rows
            counts = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)
        found = [
            metric.compute(values[:, first:last], counts) for metric, first, last in zip(metrics, widths, widths[1:])
        ]
        yield found[0] if len(found) == 1 else found[1] - found[0]


def _percentiles(value: float, resampled: Array, method: str) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(value, float(low), float(high), f"{method}, {len(resampled):,} resamples")
