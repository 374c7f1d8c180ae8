"""A bundle with a trained head, opened with its task."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.analysis.encoder_detection import require_encoder
from bertsym.bundle import SIGNATURE, SYMBOL, Bundle
from bertsym.datasets.registry import DATASETS
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.json_reader import JsonValue
from bertsym.signature import Signature
from bertsym.symbol.params import shapes_of
from bertsym.tasks import TASKS
from bertsym.tasks.task import Reading, Task
from bertsym.text.tables import Layout, TableFormat
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
            raise ModelError(
                f"{bundle.prefix}: has no head, it ends in {signature.output_name}; "
                "fine-tune it first with bertsym finetune"
            )
        if not signature.trained:
            raise ModelError(
                f"{bundle.prefix}: untrained head: train it with MXNet and insert its parameters with bertsym edit "
                "--params, or remove it with bertsym graft --head none and use bertsym finetune"
            )
        if signature.task not in TASKS:
            raise ModelError(f"{bundle.prefix}: task {signature.task}: not supported by {command}")
        try:
            require_encoder(bundle.graph(), shapes_of(bundle.params()))
        except ModelError as error:
            # Batches are padded, and only an encoder is known to ignore padding.
            raise ModelError(f"{bundle.path(SYMBOL)}: {error}; {command} needs a BERT encoder") from None
        kind = TASKS[signature.task]
        settings = JsonValue(signature.task_settings, f"{bundle.path(SIGNATURE)}: task_settings")
        return cls(bundle, kind(class_names=signature.class_names, **kind.read_settings(settings)))

    @property
    def signature(self) -> Signature:
        """The signature of the bundle."""
        return self.bundle.signature

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, truncating to the model's maximum length."""
        return self.bundle.tokenizer(self.signature.tokenizer, self.signature.max_length)

    def judged_by(self, name: str | None) -> Task:
        """Return the task, with the metrics of the known data set `name`; None: those that it was trained with.

        Raises UsageError for a name that is not a known data set, or one of another kind of task.
        """
        if name is None:
            return self.task
        if name not in DATASETS:
            raise UsageError(f"task {name!r} is not one of {', '.join(DATASETS)}")
        if DATASETS[name].kind != self.task.name:
            raise UsageError(f"--task {name}: a task of {DATASETS[name].kind}, but the model's is {self.task.name}")
        return self.task.judged_by(DATASETS[name])

    def reading(
        self,
        table_format: TableFormat = TableFormat(),
        on_bad_row: Callable[[DataError], object] | None = None,
        warn: Callable[[str], object] = lambda text: None,
    ) -> Reading:
        """How files are read for the model: by default with the header and columns of its training table."""
        table_format = complete_table_format(self.signature, table_format)
        return Reading(self.tokenizer, table_format, self.signature.pair, on_bad_row=on_bad_row, warn=warn)


def complete_table_format(signature: Signature, table_format: TableFormat) -> TableFormat:
    """Complete a table format: by default header, columns and dropped labels are those of the training table."""
    return dataclasses.replace(
        table_format,
        drop_labels=(*table_format.drop_labels, *signature.dropped_labels),
        trained=Layout(signature.columns, signature.header, signature.column_names),
    )
