"""The kinds of task that can be trained: files of made examples that a small model learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tagged import conll, sentences

PLACES = ("mat", "park", "tree", "house")


@dataclass(frozen=True)
class Kind:
    """A kind of task: the encoder's output that its head reads, its files, and its class of transformers."""

    output: str
    ending: str  #: of the names of its files
    write: Callable[[Path, int, int], object]  #: write a file of so many examples from a seed
    architecture: str


def write_labels(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = ["label\ttext"]
    lines += [f"{'yes' if i % 2 else 'no'}\t{'happy' if i % 2 else 'sad'} {random_words(rng)}" for i in range(rows)]
    path.write_text("\n".join(lines) + "\n")


def write_label_sets(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [random_words(rng) for _ in range(rows)]
    lines = [f"{','.join(word for word in ('cat', 'dog') if word in text)}\t{text}" for text in texts]
    path.write_text("\n".join(["label\ttext", *lines]) + "\n")


def write_scores(path: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = [f"{i % 5 / 4}\t{'happy ' * (i % 5)}{random_words(rng)}" for i in range(rows)]
    path.write_text("\n".join(["label\ttext", *lines]) + "\n")


def write_conll(path: Path, rows: int, seed: int) -> None:
    path.write_text(conll(sentences(rows, seed)))


def write_questions(path: Path, rows: int, seed: int, no_answer: bool = True) -> None:
    """On which place is the animal: each context has two animals; a third of the questions may have no answer."""
    rng = np.random.default_rng(seed)
    questions = []
    for i in range(rows):
        animals = rng.permutation(["cat", "dog", "bird"])[:2]
        places = [str(place) for place in rng.permutation(PLACES)[:2]]
        context = " ".join(f"the {animal} sat on the {place}" for animal, place in zip(animals, places))
        asked = "flew" if no_answer and i % 3 == 0 else "sat"
        answers = [] if asked == "flew" else [{"text": places[0], "answer_start": context.index(places[0])}]
        questions.append(
            {"id": str(i), "question": f"the {animals[0]} {asked}", "context": context, "answers": answers}
        )
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))


def has_gradient(name: str, task: str) -> bool:
    """Whether a parameter has a gradient other than rounding, which decides the direction of Adam's steps.

    Softmax ignores a constant that is added to all scores: those of a query, or of the tokens of a context.
    """
    return not name.endswith("_key_bias") and (task, name) != ("qa", "fc-finetune_bias")


def random_words(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(["the", "cat", "dog", "sat", "ran", "on", "mat", "park"], rng.integers(2, 12)))


#: whose examples are the rows of a table
TABLE_KINDS = {
    "classification": Kind("pooled", "tsv", write_labels, "BertForSequenceClassification"),
    "multilabel": Kind("pooled", "tsv", write_label_sets, "BertForSequenceClassification"),
    "regression": Kind("pooled", "tsv", write_scores, "BertForSequenceClassification"),
}
KINDS = {
    **TABLE_KINDS,
    "tagging": Kind("sequence", "conll", write_conll, "BertForTokenClassification"),
    "qa": Kind("sequence", "jsonl", write_questions, "BertForQuestionAnswering"),
}
