"""Kinds of task: one module each, and a row of TASKS."""

from __future__ import annotations

from bertsym.datasets.dataset import DataSet
from bertsym.datasets.dataset_file import suggestion
from bertsym.errors import UsageError
from bertsym.tasks.classification import Classification
from bertsym.tasks.masked_lm import MaskedLM
from bertsym.tasks.multilabel import Multilabel
from bertsym.tasks.qa import QuestionAnswering
from bertsym.tasks.regression import Regression
from bertsym.tasks.tagging import Tagging
from bertsym.tasks.task import Task

_KINDS = (Classification, Multilabel, Regression, QuestionAnswering, Tagging, MaskedLM)
TASKS: dict[str, type[Task]] = {task.name: task for task in _KINDS}


def kind_of(dataset: DataSet) -> type[Task]:
    """Return the kind of task of a data set for training and evaluation.

    Raises UsageError for a kind that can't be trained, and for unknown metrics.
    """
    where = f"task {dataset.name}"
    supported = [name for name, task in TASKS.items() if task.is_trainable]
    if dataset.kind not in supported:
        raise UsageError(f"{where}: {dataset.kind} is not supported; the supported kinds are {', '.join(supported)}")
    kind = TASKS[dataset.kind]
    for name in dataset.metrics:
        if name not in kind.known_metrics:
            known, close = ", ".join(kind.known_metrics), suggestion(name, kind.known_metrics)
            raise UsageError(f"{where}: metrics: {name!r} is not one of {known}, those of {kind.name}{close}")
    return kind
