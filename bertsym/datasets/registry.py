"""Kinds of task and known data sets, with their columns, metrics and positive label."""

from __future__ import annotations

from dataclasses import dataclass

from bertsym.datasets.columns import Columns

#: kinds of task, as named in signatures, options and the library; a command may support only some
TASK_KINDS = ("classification", "multilabel", "regression", "tagging", "qa", "masked_lm")


@dataclass(frozen=True)
class DataSet:
    """A kind of task, or a known data set: the columns of its published files, and its metrics.

    `metrics` are names of ``bertsym.metrics``; the first metric decides which epoch is kept.
    `positive_label` is the positive class of F1; None means the last of two labels.
    """

    name: str
    kind: str
    description: str
    columns: Columns = Columns()
    metrics: tuple[str, ...] = ("accuracy", "f1")
    positive_label: str | None = None

    @property
    def dataset(self) -> str | None:
        """Name of the dataset; None for a task that takes any table."""
        return self.name if self.name != self.kind else None


DATASETS = {
    dataset.name: dataset
    for dataset in (
        DataSet("classification", "classification", "any table of texts or text pairs with a label"),
        DataSet(
            "mrpc",
            "classification",
            "Microsoft Research Paraphrase Corpus, GLUE's files",
            Columns("#1 String", "#2 String", "Quality"),
            positive_label="1",
        ),
    )
}
