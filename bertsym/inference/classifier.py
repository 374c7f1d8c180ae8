"""Opening a bundle that must be a classifier."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bertsym.bundle import Bundle
from bertsym.errors import ModelError, UsageError
from bertsym.signature import Signature
from bertsym.text.tables import Layout, TableFormat
from bertsym.text.tasks import TASKS, Task


def open_classifier(prefix: str | Path) -> Bundle:
    """Open a bundle; raises ModelError unless it ends in a trained classifier."""
    bundle = Bundle.open(prefix)
    if bundle.signature.kind == "encoder":
        raise ModelError(
            f"{bundle.prefix}: has no classifier, it ends in {bundle.signature.output_name}; "
            "fine-tune it first with bertsym finetune"
        )
    if not bundle.signature.trained:
        raise ModelError(
            f"{bundle.prefix}: untrained head: train it with MXNet and put its parameters in with bertsym edit "
            "--params, or remove it with bertsym graft --head none and use bertsym finetune"
        )
    if bundle.signature.kind != "classifier":
        raise ModelError(f"{bundle.prefix}: a {bundle.signature.task} model that ends in logits: not supported yet")
    return bundle


def task_of(signature: Signature, name: str | None = None) -> Task:
    """The row of TASKS of this name or, without one, the task that a classifier was trained for.

    Raises UsageError for a name that is not in TASKS, ModelError for a signature whose task is not.
    """
    if name is not None and name not in TASKS:
        raise UsageError(f"task {name!r} is not one of {', '.join(TASKS)}")
    name = name or signature.dataset or signature.task or ""
    if name not in TASKS:
        raise ModelError(f"the model's task {name!r} is not one of {', '.join(TASKS)}: name one of them with --task")
    return TASKS[name]


def as_trained(signature: Signature, table_format: TableFormat) -> TableFormat:
    """A format whose header, columns and dropped labels are those of the training where they are not given."""
    return dataclasses.replace(
        table_format,
        drop_labels=(*table_format.drop_labels, *signature.dropped_labels),
        trained=Layout(signature.columns, signature.header, signature.column_names),
    )


def check_pair(signature: Signature, has_pair: bool) -> None:
    """Raise UsageError if the inputs are pairs and the classifier's are known not to be, or the other way round."""
    if has_pair and signature.pair is False:
        raise UsageError("this classifier was trained on single texts: no second text")
    if not has_pair and signature.pair:
        raise UsageError("this classifier was trained on pairs of texts: give the second text too")
