"""The errors of a regression: values over scores, residuals, the largest errors."""

from __future__ import annotations

import dataclasses

import numpy as np

from bertsym.array import Array
from bertsym.reports.assessment import ExampleRows, histogram, sampled, worst_first
from bertsym.reports.blocks import MOST_ROWS, Figure, Scatter, Section, Table

_MOST_POINTS = 1500


def regression_sections(values: Array, scores: Array, rows: ExampleRows) -> list[Section]:
    """Describe the errors of values (N,) for the correct scores (N,)."""
    residuals = values - scores
    shown = sampled(len(values), _MOST_POINTS)
    sample = f" {len(shown):,} of {len(values):,} rows, drawn at random." if len(shown) < len(values) else ""
    points = Scatter("correct score", "predicted value", scores[shown].tolist(), values[shown].tolist())
    bars = dataclasses.replace(histogram("predicted - correct", {"rows": residuals}), limit=0.0, limit_label="no error")
    spread = f"Their mean is {residuals.mean():.4g}, their standard deviation {residuals.std():.4g}."
    badness = np.abs(residuals)
    cells = [
        (*rows.cells(row), float(scores[row]), float(values[row]), float(residuals[row]))
        for row in worst_first(badness, badness > 0, MOST_ROWS)
    ]
    columns = (*rows.columns, "correct", "predicted", "difference")
    return [
        Section(
            "Errors",
            [
                Figure("scatter", "Predicted values", points, f"On the dashed line the value is correct.{sample}"),
                Figure("residuals", "Residuals", bars, f"The predicted minus the correct values. {spread}"),
                Table("Largest errors", columns, cells, int((badness > 0).sum()), examples=True),
            ],
        )
    ]
