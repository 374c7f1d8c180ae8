"""Multi-label classification: any number of labels for a text or a pair of texts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.datasets.dataset import DataSet
from bertsym.encoders.graph_heads import SIGMOID_LABEL
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.json_reader import JsonValue
from bertsym.metrics.metric_rows import label_rows
from bertsym.metrics.multilabel import METRICS, THRESHOLD, best_threshold, binary_cross_entropy, evaluate_labels
from bertsym.reports.assessment import Assessment, ExampleRows, label_plot
from bertsym.reports.blocks import Bars
from bertsym.reports.classification import multilabel_sections
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.table_task import TableTask, TextTargets, text_means
from bertsym.tasks.task import Example, Examples
from bertsym.text.labels import check_known, sorted_labels, suspicious_labels
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Row


@dataclass(frozen=True)
class LabelsPrediction:
    """The labels whose probability reaches their threshold, and the probability of each label."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]
    truncated: bool = False
    delimiter: str = ","  #: between the labels in a table

    def agrees(self, other: LabelsPrediction) -> bool:
        """Whether another prediction has the same labels."""
        return self.labels == other.labels

    def to_json(self) -> dict[str, Any]:
        """Return the labels and the probabilities."""
        return {"labels": list(self.labels), "probabilities": self.probabilities}

    def cells(self) -> list[str]:
        """Return the labels in one cell, and the probabilities with six decimals."""
        shown = (f"{probability:.6f}" for probability in self.probabilities.values())
        return [self.delimiter.join(self.labels), *shown]


@dataclass(frozen=True)
class Multilabel(TableTask):
    """Any number of labels for each text or pair of texts; a sigmoid and binary cross entropy for each label."""

    name = "multilabel"
    known_metrics = METRICS
    default_metrics = METRICS

    label_delimiter: str = ","
    label_columns: tuple[str, ...] = ()  #: a column of 0 and 1 for each label, in place of the label column
    thresholds: tuple[float, ...] = ()  #: least probability of each label at which it is predicted; empty: 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thresholds and len(self.thresholds) != len(self.class_names):
            raise ModelError(f"{len(self.thresholds)} thresholds for {len(self.class_names)} labels")

    @classmethod
    def create(cls, dataset: DataSet, options: TaskOptions = TaskOptions()) -> Multilabel:
        """Create the task for training; raises UsageError for options that it does not have."""
        options.require_only(cls.name, cls.option_names())
        columns = options.label_columns or ()
        if options.label_delimiter == "":
            raise UsageError("--label-delimiter must not be empty")
        repeated = next((name for name in columns if columns.count(name) > 1), None)
        if repeated is not None:
            raise UsageError(f"--label-columns {','.join(columns)}: {repeated} is repeated")
        return cls(
            class_names=dataset.labels,
            metrics=dataset.metrics or cls.default_metrics,
            label_delimiter=options.label_delimiter or ",",
            label_columns=columns,
            stride=options.stride,
        )

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions that a multi-label classification has."""
        return ("label_delimiter", "label_columns", "stride")

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read the metrics, the stride, how labels are read, and the thresholds."""
        return {
            **super().read_settings(document),
            "label_delimiter": document.get("label_delimiter", ",").text(),
            "label_columns": document.get("label_columns", []).texts(),
            "thresholds": tuple(value.number(0, 1) for value in document.get("thresholds", []).elements()),
        }

    @classmethod
    def inference_option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions that may replace settings."""
        return ("threshold", "stride")

    def with_options(self, options: TaskOptions) -> Multilabel:
        """Return this task with one threshold for all labels, and another stride, where they are given."""
        options.require_only(self.name, self.inference_option_names())
        threshold, stride = options.threshold, options.stride
        return dataclasses.replace(
            self,
            thresholds=self.thresholds if threshold is None else (threshold,) * len(self.class_names),
            stride=self.stride if stride is None else stride,
        )

    def table_format(self, given: TableFormat) -> TableFormat:
        """Return how a table is read: with any number of labels, in columns of their own unless one is given."""
        columns = () if given.columns.label is not None else self.label_columns
        return dataclasses.replace(given, label_delimiter=self.label_delimiter, label_columns=columns)

    def parse_label(self, row: Row, where: str) -> tuple[str, ...]:
        """Return the labels; raises DataError for a label that is not a class."""
        for label in row.labels:
            if self.class_names:
                check_known(label, self.class_names, f"{where}, line {row.line}")
        return row.labels

    def label_counts(self, rows: Iterable[Row], first: str | None = None) -> dict[str, int]:
        """Return the classes; of a training file the cells with labels, with the numbers of their rows."""
        if self.class_names:
            return dict.fromkeys(self.class_names, 0)
        return Counter(row.label for row in rows if row.label is not None)

    def labels_of(self, example: Example) -> tuple[str, ...]:
        """Return the labels."""
        return tuple(example.target)

    def with_labels(self, train: Examples) -> Multilabel:
        """Return this task with the label columns, or the sorted labels of a training file, as classes; those of a data
        set stay."""
        labels = sorted_labels(label for row in train.rows for label in row.target)
        class_names = self.class_names or self.label_columns or labels
        if not labels:
            raise DataError(f"{train.name}: no row has a label")
        for label in class_names:
            if self.label_delimiter in label:
                raise DataError(
                    f"{train.name}: the label {label!r} contains the delimiter {self.label_delimiter!r} of predicted "
                    "labels; give another --label-delimiter"
                )
        return dataclasses.replace(self, class_names=class_names)

    def label_warnings(self, train: Examples) -> Iterator[str]:
        """Yield warnings about labels that look like one another, or like a missing label, and about too many."""
        counts = Counter(label for row in train.rows for label in row.target)
        for text in suspicious_labels(counts):
            yield f"warning: {train.name}: {text}"
        for label in self.class_names:
            if counts[label] in (0, len(train)):
                yield f"warning: {train.name}: {'every' if counts[label] else 'no'} row has the label {label!r}"
        if len(counts) > len(train) // 2:
            yield f"warning: {len(counts)} distinct labels in {len(train)} rows: is the label delimiter right?"

    def _has_label(self, examples: Examples) -> Array:
        """Whether each row has each label: (rows, C) bool."""
        index = {label: i for i, label in enumerate(self.class_names)}
        found = np.zeros((len(examples), len(index)), bool)
        for row, example in enumerate(examples.rows):
            found[row, [index[label] for label in example.target]] = True
        return found

    def targets(self, examples: Examples) -> TextTargets:
        """Prepare the labels of each window, (windows, C) of 0 and 1, which are those of its text."""
        return TextTargets.of(SIGMOID_LABEL, self._has_label(examples), examples)

    def loss(self, outputs: Sequence[Array], labels: Mapping[str, Array]) -> float:
        """Return the binary cross entropy, averaged over the labels and summed over the windows.

        Its gradient is that of LogisticRegressionOutput, which divides by the number of labels.
        """
        return len(outputs[0]) * binary_cross_entropy(outputs[0], labels[SIGMOID_LABEL] > 0)

    def evaluate(self, outputs: Sequence[Array], examples: Examples) -> dict[str, float]:
        """Compute micro F1, macro F1, exact match and the binary cross entropy over all rows."""
        probabilities = text_means(outputs, examples.rows)
        return evaluate_labels(probabilities, self._has_label(examples), self._thresholds, self.metrics)

    @property
    def tunes(self) -> bool:
        """Whether `tuned` changes settings."""
        return True

    def tuned(self, outputs: Sequence[Array], examples: Examples) -> Multilabel:
        """Return this task with the thresholds that maximise the F1 of each label on the dev file."""
        probabilities, has_label = text_means(outputs, examples.rows), self._has_label(examples)
        return dataclasses.replace(self, thresholds=tuple(map(best_threshold, probabilities.T, has_label.T)))

    def assess(self, outputs: Sequence[Array], examples: Examples, rows: ExampleRows) -> Assessment:
        """Describe the errors by label, the most confident mistakes, and the calibration."""
        probabilities, has_label = text_means(outputs, examples.rows), self._has_label(examples)
        predicted = probabilities >= np.array(self._thresholds, np.float64)
        return Assessment(
            label_rows(predicted, has_label, self.metrics),
            (predicted == has_label).mean(axis=1),
            "labels that are right",
            multilabel_sections(probabilities, has_label, self._thresholds, self.class_names, rows),
        )

    def target_plot(self, files: Mapping[str, Examples]) -> Bars:
        """Return the fraction of each label among all labels of all rows."""
        counts = {name: Counter(label for row in each.rows for label in row.target) for name, each in files.items()}
        return label_plot(self.class_names, counts, "labels")

    def target_text(self, example: Example) -> str:
        """Return the labels."""
        return self.label_delimiter.join(example.target)

    @property
    def _thresholds(self) -> tuple[float, ...]:
        return self.thresholds or (THRESHOLD,) * len(self.class_names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The labels, and the probability of each class."""
        return ("labels", *(f"p({label})" for label in self.class_names))

    @property
    def json_keys(self) -> tuple[str, ...]:
        """The keys of `LabelsPrediction.to_json`."""
        return ("labels", "probabilities")

    def predictions(self, outputs: Sequence[Array], examples: Sequence[Example]) -> Iterator[LabelsPrediction]:
        """Yield the labels for each text."""
        for values, example in zip(text_means(outputs, examples), examples):
            probabilities = dict(zip(self.class_names, map(float, values)))
            reached = zip(probabilities.items(), self._thresholds)
            labels = tuple(label for (label, probability), threshold in reached if probability >= threshold)
            yield LabelsPrediction(labels, probabilities, example.truncated, self.label_delimiter)
