"""Kinds of task and known data sets, with their columns, metrics and positive label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: kinds of task, in the words of the signature, of every command and of the library; each supports some of them
TASK_KINDS = ("classification", "multilabel", "regression", "tagging", "qa", "masked_lm")


@dataclass(frozen=True)
class Columns:
    """Where a row keeps its text, second text and label: header names, or column numbers from 1 as text."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None

    def or_else(self, other: Columns) -> Columns:
        """These columns, and `other`'s where these are None; a second text only together with its text."""
        pair = self.pair or (None if self.text else other.pair)
        return Columns(self.text or other.text, pair, self.label or other.label)

    def __str__(self) -> str:
        named = (("text", self.text), ("second text", self.pair), ("label", self.label))
        return ", ".join(f"{what} {name!r}" for what, name in named if name is not None)


@dataclass(frozen=True)
class Task:
    """A kind of task, or a known data set of one: the columns of its published files, and its metrics.

    `metrics` are names of ``training.metrics``; the first one decides which epoch is kept.
    `positive_label` is the class that F1 is about; None takes the last of two labels.
    """

    name: str
    kind: str
    description: str
    columns: Columns = Columns()
    metrics: tuple[str, ...] = ("accuracy", "f1")
    positive_label: str | None = None

    @property
    def dataset(self) -> str | None:
        """The name of the data set; None of a task that takes any table."""
        return self.name if self.name != self.kind else None


TASKS = {
    task.name: task
    for task in (
        Task("classification", "classification", "any table of texts or text pairs with a label"),
        Task(
            "mrpc",
            "classification",
            "Microsoft Research Paraphrase Corpus, GLUE's files",
            Columns("#1 String", "#2 String", "Quality"),
            positive_label="1",
        ),
    )
}

# What tables call the text and the second text, most usual first; a pair is only found as such.
USUAL_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
)
USUAL_TEXTS = ("text", "sentence", "sentence1", "text_a", "review", "question")
USUAL_LABELS = ("label", "labels", "class", "category", "target", "gold_label")


def usual_columns(names: Sequence[str]) -> Columns:
    """The columns among `names` that are usually the text, the second text and the label; None where there is none."""
    label = next((name for name in USUAL_LABELS if name in names), None)
    for text, pair in USUAL_PAIRS:
        if text in names and pair in names:
            return Columns(text, pair, label)
    return Columns(next((name for name in USUAL_TEXTS if name in names), None), None, label)
