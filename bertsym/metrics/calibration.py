"""How well the probabilities of predictions agree with how often the predictions are correct."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bertsym.array import Array

BINS = 10  #: of equal width, from 0 to 1


@dataclass(frozen=True)
class Calibration:
    """Predictions in bins of their confidence; a bin without predictions has NaN."""

    counts: Array  #: predictions in each bin, (BINS,) int64
    confidence: Array  #: mean confidence in each bin, (BINS,) float64
    accuracy: Array  #: fraction of correct predictions in each bin, (BINS,) float64

    @property
    def error(self) -> float:
        """The expected calibration error: the mean of |accuracy - confidence|, weighted by the counts."""
        used = self.counts > 0
        gaps = np.abs(self.accuracy[used] - self.confidence[used])
        return float(gaps @ self.counts[used] / self.counts.sum())


def calibration(confidence: Array, correct: Array, bins: int = BINS) -> Calibration:
    """Compute the calibration of predictions: their probabilities (N,) float, and whether they are correct (N,) bool.

    The bins are closed on the right: 0.1 is in the first of ten. 0 is in the first too.
    """
    values = confidence.astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = np.bincount(places, values, bins) / counts
        accuracy = np.bincount(places, correct.astype(np.float64), bins) / counts
    return Calibration(counts, means, accuracy)
