"""Classification: one label for a text or a pair of texts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.datasets.dataset import DataSet
from bertsym.encoders.catalogue import LABEL_NAME
from bertsym.errors import DataError
from bertsym.json_reader import JsonValue
from bertsym.metrics.classification import METRICS, cross_entropy, evaluate_probabilities, positive_classes
from bertsym.metrics.metric_rows import classification_rows
from bertsym.reports.assessment import Assessment, ExampleRows, label_plot
from bertsym.reports.blocks import Bars
from bertsym.reports.classification import classification_sections
from bertsym.tasks.class_weights import ClassWeights, resolve_class_weights
from bertsym.tasks.options import TaskOptions
from bertsym.tasks.table_task import TableTask, text_means
from bertsym.tasks.task import ClassLoss, Example, Examples
from bertsym.text.labels import abbreviate_labels, check_known, sorted_labels, suspicious_labels
from bertsym.text.tables import Row


@dataclass(frozen=True)
class Prediction:
    """The most probable label, and the probability of each label in the signature's order."""

    label: str
    probabilities: dict[str, float]
    truncated: bool = False
    top_k: int | None = None  #: number of classes that are written, the most probable first; None: all classes

    def most_probable(self, count: int) -> dict[str, float]:
        """Return up to `count` labels with their probabilities, the most probable first."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return dict(ranked[:count])

    def agrees(self, other: Prediction) -> bool:
        """Whether another prediction has the same label."""
        return self.label == other.label

    def to_json(self) -> dict[str, Any]:
        """Return the label and the probabilities."""
        shown = self.probabilities if self.top_k is None else self.most_probable(self.top_k)
        return {"label": self.label, "probabilities": shown}

    def cells(self) -> list[str]:
        """Return the label and the probabilities, with six decimals; of `top_k` classes, each with its label."""
        if self.top_k is not None:
            ranked = self.most_probable(self.top_k)
            return [cell for label, probability in ranked.items() for cell in (label, f"{probability:.6f}")]
        return [self.label, *(f"{probability:.6f}" for probability in self.probabilities.values())]


@dataclass(frozen=True)
class ClassTargets:
    """One class for each window, as an index: (windows,) int64, and the weight of each window in the loss."""

    classes: Array
    weights: Array | None = None  #: (windows,) float64; None: all 1

    def labels(self, rows: Array, length: int) -> dict[str, Array]:
        """Return the classes of some windows, (N,) float32."""
        return {LABEL_NAME: self.classes[rows].astype(np.float32)}

    def count(self, rows: Array) -> float:
        """Return the number of windows, or the sum of their weights."""
        return len(rows) if self.weights is None else float(self.weights[rows].sum())


@dataclass(frozen=True)
class Classification(TableTask):
    """One label for each text or pair of texts; softmax and cross entropy, which may be weighted and smoothed."""

    name = "classification"
    known_metrics = METRICS
    default_metrics = ("accuracy", "f1")

    positive_label: str | None = None  #: positive class of F1; None: the last of two classes
    class_weights: ClassWeights = None  #: of the training loss; after `with_labels` the weight of each label
    label_smoothing: float = 0.0  #: of the training loss
    top_k: int | None = None  #: number of classes that a prediction writes, the most probable first; None: all classes

    @classmethod
    def create(cls, dataset: DataSet, options: TaskOptions = TaskOptions()) -> Classification:
        """Create the task for training, with the metrics, and the labels in their order, of a data set."""
        options.require_only(cls.name, cls.option_names())
        return cls(
            class_names=dataset.labels,
            metrics=dataset.metrics or cls.default_metrics,
            positive_label=options.positive_label or dataset.positive_label,
            class_weights=options.class_weights,
            label_smoothing=options.label_smoothing or 0.0,
            stride=options.stride,
        )

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions that a classification has."""
        return ("positive_label", "class_weights", "label_smoothing", "stride")

    @classmethod
    def inference_option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions that may replace settings."""
        return ("top_k", "stride")

    def settings(self) -> dict[str, Any]:
        """Return the settings for a signature, without those of the training loss and of the output."""
        others = ("class_weights", "label_smoothing", "top_k")
        return {name: value for name, value in super().settings().items() if name not in others}

    @property
    def class_loss(self) -> ClassLoss | None:
        """The training loss, where it is not the plain cross entropy."""
        if not self.class_weights and not self.label_smoothing:
            return None
        named = self.class_weights if isinstance(self.class_weights, Mapping) else {}
        weights = tuple(float(named[label]) for label in self.class_names) if named else ()
        return ClassLoss(weights, self.label_smoothing)

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read the metrics, the stride and the positive label."""
        positive = document.get("positive_label").optional(JsonValue.text)
        return {**super().read_settings(document), "positive_label": positive}

    def judged_by(self, dataset: DataSet) -> Classification:
        """Return this task with the metrics and the positive label of a known data set."""
        metrics = dataset.metrics or self.default_metrics
        return dataclasses.replace(self, metrics=metrics, positive_label=dataset.positive_label)

    def parse_label(self, row: Row, where: str) -> Any:
        """Return the label; raises DataError for a label that is not a class."""
        if self.class_names:
            check_known(row.label, self.class_names, f"{where}, line {row.line}")
        return row.label

    def label_counts(self, rows: Iterable[Row], first: str | None = None) -> dict[str, int]:
        """Return the classes; of a training file the labels, with the numbers of their rows."""
        if self.class_names:
            return dict.fromkeys(self.class_names, 0)
        return Counter(row.label for row in rows if row.label is not None)

    def with_labels(self, train: Examples) -> Classification:
        """Return this task with the labels of a training file as classes, sorted; those of a data set stay."""
        class_names = sorted_labels(row.target for row in train.rows)
        if len(class_names) < 2:
            raise DataError(f"{train.name}: every label is {class_names[0]!r}; a classifier needs at least 2 labels")
        names = self.class_names or class_names
        if self.positive_label is not None and self.positive_label not in names:
            raise DataError(
                f"{train.name}: the positive label {self.positive_label!r} is not one of the labels "
                f"{abbreviate_labels(names)}; give --positive-label"
            )
        counts = {**dict.fromkeys(self.class_names, 0), **Counter(str(row.target) for row in train.rows)}
        weights = resolve_class_weights(self.class_weights, counts, train.name) or None
        return dataclasses.replace(self, class_names=names, class_weights=weights)

    def label_warnings(self, train: Examples) -> Iterator[str]:
        """Yield warnings about labels that look like one another, or like a missing label, are missing, or too many."""
        counts = Counter(str(row.target) for row in train.rows)
        for name in self.class_names:
            if name not in counts:
                yield f"warning: {train.name}: no row has the label {name!r}"
        for text in suspicious_labels(counts):
            yield f"warning: {train.name}: {text}"
        if len(counts) > len(train) // 2:
            column = train.layout.columns.label
            labels = f"{len(counts)} distinct labels in {len(train)} rows"
            yield f"warning: {labels}: does the column {column!r} hold classes?"

    def _classes(self, examples: Examples) -> Array:
        index = {label: i for i, label in enumerate(self.class_names)}
        return np.array([index[row.target] for row in examples.rows], np.int64)

    def targets(self, examples: Examples) -> ClassTargets:
        """Prepare the class of each window, which is that of its text."""
        windows = [len(row.windows) for row in examples.rows]
        classes = np.repeat(self._classes(examples), windows)
        loss = self.class_loss
        return ClassTargets(classes, np.array(loss.weights)[classes] if loss is not None and loss.weights else None)

    def loss(self, outputs: Sequence[Array], labels: Mapping[str, Array]) -> float:
        """Return the loss, summed over the windows."""
        if self.class_loss is not None:
            return float(outputs[1].astype(np.float64).sum())
        classes = labels[LABEL_NAME].astype(np.int64)
        return len(classes) * cross_entropy(outputs[0], classes)

    def evaluate(self, outputs: Sequence[Array], examples: Examples) -> dict[str, float]:
        """Compute accuracy, F1 and the cross entropy over all rows."""
        return evaluate_probabilities(
            text_means(outputs, examples.rows),
            self._classes(examples),
            self.class_names,
            self.metrics,
            self.positive_label,
        )

    @property
    def f1_of(self) -> str:
        """The positive label, or the mean over all labels."""
        positives = positive_classes(self.class_names, self.positive_label)
        return f"label {self.class_names[positives[0]]}" if len(positives) == 1 else "all labels, macro mean"

    def assess(self, outputs: Sequence[Array], examples: Examples, rows: ExampleRows) -> Assessment:
        """Describe confusions, the most confident mistakes, and the calibration."""
        probabilities, classes = text_means(outputs, examples.rows), self._classes(examples)
        predicted = probabilities.argmax(axis=1)
        counts = np.bincount(classes, minlength=len(self.class_names))
        frequent, share = int(counts.argmax()), counts.max() / counts.sum()
        return Assessment(
            classification_rows(predicted, classes, self.class_names, self.metrics, self.positive_label),
            (predicted == classes).astype(np.float64),
            "accuracy",
            classification_sections(probabilities, classes, self.class_names, rows),
            f"accuracy {share:.3g} by answering {self.class_names[frequent]!r} for every row",
        )

    def target_plot(self, files: Mapping[str, Examples]) -> Bars:
        """Return the fraction of each label."""
        counts = {name: Counter(str(row.target) for row in each.rows) for name, each in files.items()}
        return label_plot(self.class_names, counts)

    def target_text(self, example: Example) -> str:
        """Return the label."""
        return str(example.target)

    @property
    def columns(self) -> tuple[str, ...]:
        """The label, and the probability of each class; of `top_k` classes the label and the probability."""
        if self.top_k is not None:
            count = min(self.top_k, len(self.class_names))
            return ("label", "p", *(f"{name} {i}" for i in range(2, count + 1) for name in ("label", "p")))
        return ("label", *(f"p({label})" for label in self.class_names))

    @property
    def json_keys(self) -> tuple[str, ...]:
        """The keys of `Prediction.to_json`."""
        return ("label", "probabilities")

    def predictions(self, outputs: Sequence[Array], examples: Sequence[Example]) -> Iterator[Prediction]:
        """Yield the most probable label for each text."""
        for values, example in zip(text_means(outputs, examples), examples):
            probabilities = dict(zip(self.class_names, map(float, values)))
            yield Prediction(self.class_names[int(values.argmax())], probabilities, example.truncated, self.top_k)
