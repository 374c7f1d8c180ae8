"""The errors of a classification, with one label or several: confusion matrix, confident mistakes, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertsym.array import Array
from bertsym.metrics.calibration import calibration
from bertsym.metrics.classification import confusion_matrix
from bertsym.reports.assessment import ExampleRows, precision_table_rows, worst_first
from bertsym.reports.blocks import (
    MOST_LABELS,
    MOST_ROWS,
    Block,
    Figure,
    Heatmap,
    Reliability,
    Section,
    Table,
    answer_text,
)

_RATIOS = ("rows", "predicted", "precision", "recall", "F1")


def classification_sections(
    probabilities: Array, classes: Array, labels: Sequence[str], rows: ExampleRows
) -> list[Section]:
    """Describe the errors of probabilities (N, C) for the correct classes (N,)."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    matrix = confusion_matrix(predicted, classes, len(labels))
    return [
        Section("Errors", [*_confusions(matrix, labels), _mistakes(probabilities, classes, labels, rows)]),
        Section("Confidence", _calibration(confidence, predicted == classes)),
    ]


def _confusions(matrix: Array, labels: Sequence[str]) -> list[Block]:
    blocks: list[Block] = []
    if len(labels) <= MOST_LABELS:
        plot = Heatmap("predicted label", "correct label", labels, matrix.tolist())
        caption = "Rows of the file by their label and by the label that the model gave them; the diagonal is correct."
        blocks.append(Figure("confusion", "Confusion matrix", plot, caption))
    found = precision_table_rows(labels, matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1))
    found.sort(key=lambda row: -row[1])
    blocks.append(Table("Labels", ("label", *_RATIOS), found[:MOST_ROWS], len(found)))
    wrong = matrix - np.diag(matrix.diagonal())
    pairs = [(int(wrong[i, j]), i, j) for i, j in zip(*np.nonzero(wrong))]
    pairs.sort(reverse=True)
    if len(labels) > 2 and pairs:
        cells = [(labels[i], labels[j], count) for count, i, j in pairs[:20]]
        blocks.append(Table("Most frequent confusions", ("correct", "predicted", "rows"), cells, len(pairs)))
    return blocks


def _mistakes(probabilities: Array, classes: Array, labels: Sequence[str], rows: ExampleRows) -> Table:
    predicted = probabilities.argmax(axis=1)
    wrong = predicted != classes
    columns = (*rows.columns, "correct label", "predicted label", "confidence", "p(correct label)")
    cells = [
        (
            *rows.cells(row),
            answer_text(labels[classes[row]]),
            answer_text(labels[predicted[row]], "wrong"),
            float(probabilities[row, predicted[row]]),
            float(probabilities[row, classes[row]]),
        )
        for row in worst_first(probabilities.max(axis=1), wrong, MOST_ROWS)
    ]
    return Table(_mistakes_title(int(wrong.sum())), columns, cells, int(wrong.sum()), examples=True)


def _mistakes_title(count: int) -> str:
    return f"{count:,} rows with a mistake, the most confident first"


def _calibration(confidence: Array, correct: Array) -> list[Block]:
    found = calibration(confidence, correct)
    mean, accuracy = float(confidence.mean()), float(correct.mean())
    direction = "overconfident" if mean > accuracy else "underconfident"
    caption = (
        f"Expected calibration error (ECE) {found.error:.4f}: the mean difference between accuracy and confidence of "
        f"the bins, weighted by their predictions. On average, the model is {100 * mean:.0f} % confident and right in "
        f"{100 * accuracy:.0f} % of the predictions: it is {direction}."
    )
    plot = Reliability(found.confidence.tolist(), found.accuracy.tolist(), found.counts.tolist())
    return [Figure("reliability", "Reliability diagram", plot, caption)]


def multilabel_sections(
    probabilities: Array, has_label: Array, thresholds: Sequence[float], labels: Sequence[str], rows: ExampleRows
) -> list[Section]:
    """Describe the errors of probabilities (N, C) for labels (N, C) bool."""
    predicted = probabilities >= np.array(thresholds, np.float64)
    hits = (predicted & has_label).sum(axis=0)
    found = precision_table_rows(labels, hits, predicted.sum(axis=0), has_label.sum(axis=0))
    cells = [(*row, float(threshold)) for row, threshold in zip(found, thresholds)]
    cells.sort(key=lambda row: -row[1])
    table = Table("Labels", ("label", *_RATIOS, "threshold"), cells[:MOST_ROWS], len(cells))
    wrong = predicted != has_label
    # The probability of what is wrong, of the label that is wrong most confidently.
    against = np.where(has_label, 1 - probabilities, probabilities)
    badness = np.where(wrong, against, 0).max(axis=1)
    columns = (*rows.columns, "missed labels", "wrong labels", "confidence")
    mistakes = [
        (
            *rows.cells(row),
            _names(labels, has_label[row] & ~predicted[row]),
            _names(labels, predicted[row] & ~has_label[row]),
            float(badness[row]),
        )
        for row in worst_first(badness, wrong.any(axis=1), MOST_ROWS)
    ]
    note = "The confidence is the probability of the mistake that the model was surest of."
    count = int(wrong.any(axis=1).sum())
    examples = Table(_mistakes_title(count), columns, mistakes, count, note=note, examples=True)
    decided = np.where(predicted, probabilities, 1 - probabilities).ravel()
    return [
        Section("Errors", [table, examples]),
        Section("Confidence", _calibration(decided.astype(np.float64), ~wrong.ravel())),
    ]


def _names(labels: Sequence[str], chosen: Array) -> str | None:
    return ", ".join(labels[i] for i in np.flatnonzero(chosen)) or None
