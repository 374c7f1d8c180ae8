"""Kinds of task: one module each, and a row of TASKS."""

from __future__ import annotations

from bertsym.datasets.dataset import DataSet
from bertsym.datasets.dataset_file import suggestion
from bertsym.errors import UsageError
from bertsym.tasks.classification import Classification
from bertsym.tasks.multilabel import Multilabel
from bertsym.tasks.qa import QuestionAnswering
from bertsym.tasks.regression import Regression
from bertsym.tasks.tagging import Tagging
from bertsym.tasks.task import Task

_KINDS = (Classification, Multilabel, Regression, QuestionAnswering, Tagging)
TASKS: dict[str, type[Task]] = {task.name: task for task in _KINDS}


def kind_of(dataset: DataSet) -> type[Task]:
    """Return the kind of task of a data set; raises UsageError for a kind without support, and for unknown metrics."""
    where = f"task {dataset.name}"
    if dataset.kind not in TASKS:
        raise UsageError(f"{where}: {dataset.kind} is not supported; the supported kinds are {', '.join(TASKS)}")
    kind = TASKS[dataset.kind]
    for name in dataset.metrics:
        if name not in kind.known_metrics:
            known, close = ", ".join(kind.known_metrics), suggestion(name, kind.known_metrics)
            raise UsageError(f"{where}: metrics: {name!r} is not one of {known}, those of {kind.name}{close}")
    return kind
