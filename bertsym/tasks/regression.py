"""Regression: a value for a text or a pair of texts, such as the score of a cross-encoder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.datasets.dataset import DataSet
from bertsym.encoders.graph_heads import REGRESSION_LABEL
from bertsym.errors import DataError
from bertsym.json_reader import JsonValue
from bertsym.metrics.metric_rows import value_rows
from bertsym.metrics.regression import METRICS, evaluate_values
from bertsym.reports.assessment import Assessment, ExampleRows, histogram
from bertsym.reports.blocks import Histogram
from bertsym.reports.regression import regression_sections
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.table_task import TableTask, TextTargets, text_means
from bertsym.tasks.task import Example, Examples
from bertsym.text.header import is_number
from bertsym.text.labels import NO_LABEL
from bertsym.text.tables import Row

_TOLERANCE = 0.05  #: of agreement, absolute up to 1, relative above
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ValuePrediction:
    """The predicted value."""

    value: float
    truncated: bool = False

    def agrees(self, other: ValuePrediction) -> bool:
        """Whether another value differs by at most 0.05, or 5 % of the larger one."""
        return math.isclose(self.value, other.value, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)

    def to_json(self) -> dict[str, Any]:
        """Return the value."""
        return {"value": self.value}

    def cells(self) -> list[str]:
        """Return the value, with six decimals."""
        return [f"{self.value:.6f}"]


@dataclass(frozen=True)
class Regression(TableTask):
    """A value for each text or pair of texts; half squared error."""

    name = "regression"
    known_metrics = METRICS
    default_metrics = METRICS

    sigmoid: bool = False  #: whether the value is the sigmoid of the model's output, as of many cross-encoders

    @classmethod
    def create(cls, dataset: DataSet, options: TaskOptions = TaskOptions()) -> Regression:
        """Create the task for training."""
        options.require_only(cls.name, cls.option_names())
        return cls(metrics=dataset.metrics or cls.default_metrics, stride=options.stride)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the stride."""
        return ("stride",)

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read the metrics, the stride, and whether a sigmoid is applied."""
        return {**super().read_settings(document), "sigmoid": document.get("sigmoid", False).boolean()}

    @classmethod
    def inference_option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions that may replace settings."""
        return ("sigmoid", "stride")

    @property
    def num_outputs(self) -> int:
        """One value."""
        return 1

    def parse_label(self, row: Row, where: str) -> float:
        """Return the score; raises DataError for a label that is not a finite number."""
        label = str(row.label)
        if not is_number(label):
            hint = f"; --drop-label {label} leaves out its rows" if label.lower() in NO_LABEL else ""
            raise DataError(f"{where}, line {row.line}: the score {label!r:.60} is not a number{hint}")
        if abs(float(label)) > _LARGEST:
            raise DataError(f"{where}, line {row.line}: the score {label:.60} is too large for float32")
        return float(label)

    def label_counts(self, rows: Iterable[Row], first: str | None = None) -> dict[str, int]:
        """Return the label of the first line if it is a score."""
        return {first: 2} if first is not None and is_number(first) else {}

    def label_warnings(self, train: Examples) -> Iterator[str]:
        """Yield a warning if all scores are equal."""
        scores = {row.target for row in train.rows}
        if len(scores) == 1:
            yield f"warning: {train.name}: every score is {scores.pop():g}"

    def targets(self, examples: Examples) -> TextTargets:
        """Prepare the score of each window, (windows, 1), which is that of its text."""
        return TextTargets.of(REGRESSION_LABEL, self._scores(examples)[:, np.newaxis], examples)

    def loss(self, outputs: Sequence[Array], labels: Mapping[str, Array]) -> float:
        """Return the half squared error, summed over the windows; its gradient is LinearRegressionOutput's."""
        differences = outputs[0].astype(np.float64) - labels[REGRESSION_LABEL]
        return float(np.square(differences).sum() / 2)

    def evaluate(self, outputs: Sequence[Array], examples: Examples) -> dict[str, float]:
        """Compute Pearson, Spearman, mean squared error and half of it, the loss, over all rows."""
        return evaluate_values(self._values(outputs, examples.rows), self._scores(examples), self.metrics)

    def assess(self, outputs: Sequence[Array], examples: Examples, rows: ExampleRows) -> Assessment:
        """Describe values, residuals and the largest errors."""
        values, scores = self._values(outputs, examples.rows), self._scores(examples)
        return Assessment(
            value_rows(values, scores, self.metrics),
            -np.abs(values - scores),
            "mean absolute error",
            regression_sections(values, scores, rows),
        )

    def target_plot(self, files: Mapping[str, Examples]) -> Histogram:
        """Return the distribution of the scores."""
        return histogram("score", {name: self._scores(each) for name, each in files.items()})

    def target_text(self, example: Example) -> str:
        """Return the score."""
        return f"{example.target:g}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The value."""
        return ("value",)

    @property
    def json_keys(self) -> tuple[str, ...]:
        """The keys of `ValuePrediction.to_json`."""
        return ("value",)

    def predictions(self, outputs: Sequence[Array], examples: Sequence[Example]) -> Iterator[ValuePrediction]:
        """Yield the value for each text."""
        for value, example in zip(self._values(outputs, examples), examples):
            yield ValuePrediction(float(value), example.truncated)

    def _values(self, outputs: Sequence[Array], examples: Sequence[Example]) -> Array:
        values: Array = text_means(outputs, examples)[:, 0].astype(np.float64)
        if self.sigmoid:
            # Of a number far below 0, exp overflows to infinity, and the sigmoid is 0.
            with np.errstate(over="ignore"):
                values = 1 / (1 + np.exp(-values))
        return values

    def _scores(self, examples: Examples) -> Array:
        return np.array([row.target for row in examples.rows], np.float64)
