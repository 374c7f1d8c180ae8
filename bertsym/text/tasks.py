"""Known tasks, as a table: their columns, metrics and positive label."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """Where a row keeps its text, second text and label: header names, or column numbers from 1 as text."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Task:
    """One task: the columns of its published files, and the metrics that it is judged by.

    `metrics` are names of ``training.metrics``; the first one decides which epoch is kept.
    `positive_label` is the class that F1 is about; None takes the last of two labels.
    """

    name: str
    description: str
    columns: Columns = Columns()
    metrics: tuple[str, ...] = ("accuracy", "f1")
    positive_label: str | None = None


TASKS = {
    task.name: task
    for task in (
        Task("classification", "any table of texts or text pairs with a label"),
        Task(
            "mrpc",
            "Microsoft Research Paraphrase Corpus, GLUE's files",
            Columns("#1 String", "#2 String", "Quality"),
            positive_label="1",
        ),
    )
}

# What tables call these columns, most usual first; used where neither the task nor the user names them.
USUAL_TEXT = ("text", "sentence1", "sentence", "text_a", "question1", "question", "premise", "review")
USUAL_PAIR = ("text_pair", "sentence2", "text_b", "question2", "answer", "hypothesis")
USUAL_LABEL = ("label", "labels", "class", "category", "target", "gold_label")
