"""What a kind of task is: how its files are read, what its head is trained on, and what its outputs mean."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol, Union

import numpy as np

from bertsym.array import Array
from bertsym.datasets.dataset import DataSet
from bertsym.encoders.graph_heads import HEADS
from bertsym.errors import DataError, UsageError
from bertsym.events import FileTokenised, Span
from bertsym.json_reader import JsonValue
from bertsym.reports.assessment import Assessment, ExampleRows
from bertsym.reports.blocks import Bars, Histogram
from bertsym.tasks.options import TaskOptions
from bertsym.text.features import Features
from bertsym.text.table_format import Layout, TableFormat
from bertsym.text.tokenizer import Chunking, Encoded, Tokenizer, chunks

Source = Union[str, Path, BinaryIO]


def _silent(*arguments: object) -> None:
    """Discard a message."""


@dataclass(frozen=True)
class Reading:
    """How the files of a task are read."""

    tokenizer: Tokenizer
    table_format: TableFormat = TableFormat()
    pair: bool | None = None  #: whether the texts must be pairs; None: either
    prompt: str = ""  #: put before each text, the first of a pair
    mask_id: int | None = None  #: id of the mask token; None: the tokenizer has none
    on_bad_row: Callable[[DataError], object] | None = None  #: called for each unreadable row; None: raise its error
    warn: Callable[[str], object] = _silent  #: called with each warning
    keeps_texts: bool = False  #: whether `Example.source` has the texts of a table's rows
    #: called by `Task.read` with the number of examples that are tokenised, and of all, None if it is not known
    on_rows: Callable[[int, int | None], object] = _silent
    chunking: Chunking = chunks  #: groups the examples of `Task.examples`


@dataclass(frozen=True)
class Example:
    """One example of a file: the inputs of the model, and what it is compared with."""

    line: int
    windows: tuple[Encoded, ...]  #: several where a long text is cut into overlapping windows
    target: Any = None  #: its label, as the kind of task reads it; None of an unlabelled example
    #: what the kind of task needs to decode outputs, such as words and offsets; with `Reading.keeps_texts` the texts
    source: Any = None
    kept: tuple[Any, ...] = ()  #: cells of its row that are copied to the output

    @property
    def truncated(self) -> bool:
        """Whether a part of the text is in no window."""
        return any(window.truncated for window in self.windows)


@dataclass(frozen=True)
class Examples:
    """All examples of a file."""

    name: str  #: of the file
    rows: list[Example]
    sha256: str  #: of the bytes of the file
    left_out: int = 0  #: rows that can't be read
    dropped: Mapping[str, int] = field(default_factory=dict)  #: label whose rows are dropped -> number of rows
    layout: Layout = Layout()  #: columns and header of a table
    pair: bool = False  #: whether each example has two texts

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def features(self) -> Features:
        """The windows of all examples, one after the other."""
        return Features([window for row in self.rows for window in row.windows])

    @property
    def truncated(self) -> int:
        """Number of examples that did not fit into the maximum length."""
        return sum(row.truncated for row in self.rows)

    def sample(self, count: int) -> Examples:
        """Up to `count` examples, always the same ones, in the order of the file."""
        chosen = np.random.default_rng(0).permutation(len(self))[:count]
        return dataclasses.replace(self, rows=[self.rows[row] for row in sorted(chosen)])

    def tokenised(self, span: Span, max_length: int) -> FileTokenised:
        """Return the event of reading these examples with texts of at most `max_length` tokens."""
        windows = sum(len(row.windows) for row in self.rows)
        return FileTokenised(
            span, self.name, len(self), windows, self.truncated, max_length, self.left_out, self.dropped, self.sha256
        )

    def facts(self) -> dict[str, Any]:
        """The name without its folder, the digest and the counts, for a manifest."""
        return {
            "file": Path(self.name).name,
            "sha256": self.sha256,
            "rows": len(self),
            "left_out": self.left_out,
            "dropped_labels": dict(self.dropped),
        }


@dataclass(frozen=True)
class ClassLoss:
    """A cross entropy with weights of classes and smoothed labels."""

    weights: tuple[float, ...]  #: in the order of the classes; empty: all 1
    smoothing: float

    def __str__(self) -> str:
        weights = ", ".join(map(str, self.weights)) if self.weights else "none"
        return f"class weights {weights}, label smoothing {self.smoothing}"

    def to_json(self) -> dict[str, Any]:
        """Return the weights and the smoothing, for a manifest."""
        return {"class_weights": list(self.weights), "label_smoothing": self.smoothing}


class Targets(Protocol):
    """The labels of all windows of a training file, ready for batches."""

    def labels(self, rows: Array, length: int) -> dict[str, Array]:
        """Return the label inputs of a batch by name, float32: `rows` are window indices, `length` is the padded
        length."""

    def count(self, rows: Array) -> float:
        """Return what the mean loss of a batch divides by: its rows, their weights, or its labelled tokens."""


class Prediction(Protocol):
    """The answer for one example."""

    @property
    def truncated(self) -> bool:
        """Whether the example did not fit into the maximum length."""

    def agrees(self, other: Any) -> bool:
        """Whether another prediction for the same example has the same answer, whatever its probabilities."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""

    def cells(self) -> list[str]:
        """Return the answer as the cells of a table, one for each of `Task.columns`."""


@dataclass(frozen=True)
class Task(abc.ABC):
    """A kind of task with its settings; a subclass for each kind, in a module of its own."""

    name: ClassVar[str]  #: a key of ``tasks.TASKS``, and of ``encoders.graph_heads.HEADS`` if it is trainable
    is_trainable: ClassVar[bool] = True  #: whether a model can be trained, evaluated and quantized, not only predict
    known_metrics: ClassVar[tuple[str, ...]]
    default_metrics: ClassVar[tuple[str, ...]]
    default_max_length: ClassVar[int] = 128  #: tokens of an input in training

    class_names: tuple[str, ...] = ()  #: empty before the training file is read, and where there are no classes
    metrics: tuple[str, ...] = ()  #: the first decides which epoch is kept

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in self.known_metrics:
                raise UsageError(f"metric {name!r} is not one of {', '.join(self.known_metrics)}, those of {self.name}")

    @classmethod
    def create(cls, dataset: DataSet, options: TaskOptions = TaskOptions()) -> Task:
        """Create the task for training; raises UsageError for options that this kind of task does not have."""
        options.require_only(cls.name, cls.option_names())
        return cls(metrics=dataset.metrics or cls.default_metrics)

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions that this kind of task has."""
        return ()

    @classmethod
    def inference_option_names(cls) -> tuple[str, ...]:
        """Return the fields of TaskOptions, and of the task, that may differ from those of the training."""
        return ()

    def with_options(self, options: TaskOptions) -> Task:
        """Return this task with options in place of settings; raises UsageError for options that it does not have."""
        options.require_only(self.name, self.inference_option_names())
        given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
        return dataclasses.replace(self, **given)

    @classmethod
    def read_settings(cls, document: JsonValue) -> dict[str, Any]:
        """Read what `settings` wrote into a signature; raises ModelError, which names the key."""
        metrics = document.get("metrics", [*cls.default_metrics]).elements(1)
        return {"metrics": tuple(metric.choice(*cls.known_metrics) for metric in metrics)}

    def settings(self) -> dict[str, Any]:
        """Return the settings for a signature, except for the class names: JSON values by name."""
        values = dataclasses.asdict(self)
        del values["class_names"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def judged_by(self, dataset: DataSet) -> Task:
        """Return this task with the metrics of a known data set."""
        return dataclasses.replace(self, metrics=dataset.metrics) if dataset.metrics else self

    # Reading

    @abc.abstractmethod
    def read(self, source: Source, reading: Reading, labelled: bool = True) -> Examples:
        """Read and tokenise a whole file.

        A labelled file is a training file if this task has classes but no `class_names` yet. Raises DataError, with the
        line, unless ``reading.on_bad_row`` is given, and for a file without examples.
        """

    @abc.abstractmethod
    def examples(self, source: Source, reading: Reading) -> Iterator[list[Example | DataError]]:
        """Yield the unlabelled examples of a file or stream in order, in chunks, and in constant memory.

        The error of an unreadable row takes its place.
        """

    @abc.abstractmethod
    def encode_texts(
        self, texts: Sequence[str], pairs: Sequence[str] | None, reading: Reading
    ) -> Iterator[list[Example | DataError]]:
        """Yield texts, or pairs of texts, as unlabelled examples in order, in chunks.

        Raises UsageError for arguments that are not lists of equal length, and for pairs where the model expects single
        texts, and vice versa; DataError for an empty text.
        """

    def labels_of(self, example: Example) -> tuple[str, ...]:
        """Return the labels of an example that are classes; none for a task without classes."""
        return ()

    def together(self, example: Example) -> Hashable:
        """Return what examples have in common of which some would give away the answers of others."""
        return id(example)

    def for_training(self, train: Examples, warn: Callable[[str], object]) -> Examples:
        """Return the examples of a training file that can be learned from; `warn` is called if some are left out."""
        return train

    def with_labels(self, train: Examples) -> Task:
        """Return this task with what it learns from a training file before training, such as its classes.

        Raises DataError for labels that can't be learned.
        """
        return self

    def label_warnings(self, train: Examples) -> Iterator[str]:
        """Yield a warning for each label of a training file that is suspicious."""
        return iter(())

    # Training

    @property
    def num_outputs(self) -> int:
        """Outputs of the last layer of the head."""
        return len(self.class_names)

    @property
    def reads_tokens(self) -> bool:
        """Whether the head reads the encoding of each token, and gives outputs for each."""
        return HEADS[self.name].reads_tokens

    @property
    def class_loss(self) -> ClassLoss | None:
        """The loss that replaces the SoftmaxOutput of the training symbol, if there is one."""
        return None

    @abc.abstractmethod
    def targets(self, examples: Examples) -> Targets:
        """Prepare the labels of a training file for batches."""

    @abc.abstractmethod
    def loss(self, outputs: Sequence[Array], labels: Mapping[str, Array]) -> float:
        """Return the loss, summed over what `Targets.count` counts.

        `outputs` are those of the training symbol for a batch, and `labels` its label inputs.
        """

    # Inference

    def keep(self, output: Array, window: Encoded) -> Any:
        """Return what is kept of the output of one window: all of it, without the padding of a per-token output."""
        return output[: len(window.token_ids)] if self.reads_tokens else output

    def token_places(self, example: Example, window: int) -> dict[str, list[Any]]:
        """Return where the tokens of a window come from, by name, if its outputs can't be decoded without that.

        The values are JSON values, for programs that have no tokenizer.
        """
        return {}

    @abc.abstractmethod
    def evaluate(self, outputs: Sequence[Any], examples: Examples) -> dict[str, float]:
        """Return `metrics` in their order, then the ``loss``.

        `outputs` has what `keep` returned for each window.
        """

    @property
    def tunes(self) -> bool:
        """Whether `tuned` changes settings."""
        return False

    def tuned(self, outputs: Sequence[Any], examples: Examples) -> Task:
        """Return this task with the settings that are tuned on the outputs for the dev file, such as thresholds."""
        return self

    # Reports

    @property
    def f1_of(self) -> str:
        """What the metric ``f1`` is computed of, such as a label."""
        return ""

    @abc.abstractmethod
    def assess(self, outputs: Sequence[Any], examples: Examples, rows: ExampleRows) -> Assessment:
        """Compare the outputs with the labels, for a report: what the metrics are computed from, and the errors."""

    @abc.abstractmethod
    def target_plot(self, files: Mapping[str, Examples]) -> Bars | Histogram:
        """Return the distribution of the labels of each file."""

    @abc.abstractmethod
    def target_text(self, example: Example) -> str:
        """Return the label of an example as text."""

    def example_texts(self, example: Example) -> tuple[str, ...]:
        """Return the texts of an example that was read with `Reading.keeps_texts`."""
        return tuple(example.source)

    def example_rows(self, examples: Examples, with_texts: bool) -> ExampleRows:
        """Return the examples as rows of a table, with their texts unless these are left out."""
        texts = (lambda row: self.example_texts(examples.rows[row])) if with_texts else None
        names = ("text", "second text") if examples.pair else ("text",)
        truncated = [row.truncated for row in examples.rows] if examples.truncated else ()
        return ExampleRows([row.line for row in examples.rows], texts, names, truncated=truncated)

    # Output

    @property
    @abc.abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the predictions in a table."""

    @property
    @abc.abstractmethod
    def json_keys(self) -> tuple[str, ...]:
        """Keys of the predictions in JSON."""

    @abc.abstractmethod
    def predictions(self, outputs: Sequence[Any], examples: Sequence[Example]) -> Iterator[Prediction]:
        """Yield the answer for each example; `outputs` has what `keep` returned for each of their windows."""
