"""A bundle with a trained head, opened with its task."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.analysis.encoder_detection import require_encoder
from bertsym.bundle import SIGNATURE, SYMBOL, Bundle
from bertsym.datasets.dataset import DataSet
from bertsym.datasets.registry import KNOWN, find_dataset
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.json_reader import JsonValue
from bertsym.signature import Signature
from bertsym.symbol.params import shapes_of
from bertsym.tasks import TASKS, kind_of
from bertsym.tasks.task import Reading, Source, Task
from bertsym.text.dataset_tables import format_of_dataset
from bertsym.text.labels import abbreviate_labels
from bertsym.text.table_format import Layout, TableFormat
from bertsym.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TaskBundle:
    """A bundle with a trained head, and the task of the head."""

    bundle: Bundle
    task: Task

    @classmethod
    def open(cls, prefix: str | Path, command: str) -> TaskBundle:
        """Open a bundle for `command`; raises ModelError unless it has a trained head for a known task."""
        bundle = Bundle.open(prefix)
        signature = bundle.signature
        if signature.task is None:
            advice = "fine-tune it first with bertsym finetune"
            if signature.embedding is not None:
                advice = "bertsym embed computes sentence embeddings"
            raise ModelError(f"{bundle.prefix}: has no head, it ends in {signature.output_name}; {advice}")
        if not signature.trained:
            raise ModelError(
                f"{bundle.prefix}: untrained head: train it with MXNet and insert its parameters with bertsym edit "
                "--params, or remove it with bertsym graft --head none and use bertsym finetune"
            )
        kind = TASKS.get(signature.task)
        if kind is None or not (kind.is_trainable or command == "predict"):
            raise ModelError(f"{bundle.prefix}: task {signature.task}: not supported by {command}")
        try:
            require_encoder(bundle.graph(), shapes_of(bundle.params()))
        except ModelError as error:
            # Batches are padded, and only an encoder is known to ignore padding.
            raise ModelError(f"{bundle.path(SYMBOL)}: {error}; {command} needs a BERT encoder") from None
        task = task_of(bundle, kind)
        # Without training the outputs are those of the vocabulary, which the bundle's config determines.
        if kind.is_trainable and signature.output_shape[-1] != task.num_outputs:
            outputs = (
                f"{signature.output_shape[-1]} outputs of its head, but the task {task.name} has {task.num_outputs}"
            )
            raise ModelError(f"{bundle.prefix}: {outputs}, not supported by {command}")
        return cls(bundle, task)

    @property
    def signature(self) -> Signature:
        """The signature of the bundle."""
        return self.bundle.signature

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, truncating to the model's maximum length."""
        return self.bundle.tokenizer(self.signature.tokenizer, self.signature.max_length)

    def dataset(self, name: str | None) -> DataSet:
        """Return a data set by its name for `find_dataset`; None: the known data set, or the kind, of the training.

        Raises UsageError for an unknown name, and for a data set of another kind of task or with other labels.
        """
        if name is None:
            return find_dataset(self.signature.dataset if self.signature.dataset in KNOWN else self.task.name)
        dataset = find_dataset(name)
        if self.task.is_trainable:
            kind_of(dataset)
        if dataset.kind != self.task.name:
            raise UsageError(f"--task {name}: a task of {dataset.kind}, but the model's is {self.task.name}")
        if dataset.labels and sorted(dataset.labels) != sorted(self.task.class_names):
            classes = abbreviate_labels(self.task.class_names)
            raise UsageError(f"--task {name}: its labels are {', '.join(dataset.labels)}, the model's {classes}")
        return dataset

    def find_table(
        self, file: Source | None, given: TableFormat, task: str | None, data_dir: str | Path | None, split: str
    ) -> tuple[Source, TableFormat, DataSet]:
        """Find the file to read, and how it is read: what is `given`, and otherwise as its data set describes.

        Args:
            file: the file or stream; None: that of a split in the folder `data_dir`.
            given: format and columns of the file.
            task: name of the data set, for `find_dataset`; None: that of the training.
            data_dir: folder of the data set.
            split: split of the data set.

        Raises:
            UsageError: file and folder, or neither; and the errors of `dataset` and `DataSet.find_file`.
        """
        dataset = self.dataset(task)
        if file is not None and data_dir is not None:
            raise UsageError("give either a file or --data-dir, not both")
        if file is None:
            if data_dir is None:
                raise UsageError("give a file, or the folder of a data set as --data-dir")
            if dataset.dataset is None and (name := self.signature.dataset) is not None:
                raise UsageError(f"{self.bundle.prefix}: trained on {name}: give its description as --task {name}.toml")
            file = dataset.find_file(data_dir, split)
        elif task is None:
            return file, given, dataset  # it may be any table
        return file, format_of_dataset(given, dataset, split), dataset

    def reading(
        self,
        table_format: TableFormat = TableFormat(),
        on_bad_row: Callable[[DataError], object] | None = None,
        warn: Callable[[str], object] = lambda text: None,
        on_rows: Callable[[int, int | None], object] = lambda rows, total: None,
    ) -> Reading:
        """How files are read for the model: by default with the header and columns of its training table.

        The aliases of labels are those of the known data set that the model was trained on.
        """
        table_format = format_of_dataset(table_format, self.dataset(None), None)
        table_format = complete_table_format(self.signature, table_format)
        return Reading(
            self.tokenizer,
            table_format,
            self.signature.pair,
            mask_id=self.signature.special_ids.get("mask"),
            on_bad_row=on_bad_row,
            warn=warn,
            on_rows=on_rows,
        )


def task_of(bundle: Bundle, kind: type[Task]) -> Task:
    """Return the task of a bundle's head, which is of a `kind`; raises ModelError for a setting that is not valid."""
    settings = JsonValue(bundle.signature.task_settings, f"{bundle.path(SIGNATURE)}: task_settings")
    return kind(class_names=bundle.signature.class_names, **kind.read_settings(settings))


def complete_table_format(signature: Signature, table_format: TableFormat) -> TableFormat:
    """Complete a table format: by default header, columns and dropped labels are those of the training table."""
    trained = Layout(signature.columns, signature.header, signature.column_names)
    return dataclasses.replace(
        table_format,
        drop_labels=(*table_format.drop_labels, *signature.dropped_labels),
        trained=trained if table_format.trained == Layout() else table_format.trained,
    )
