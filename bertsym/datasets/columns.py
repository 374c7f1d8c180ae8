"""Columns of a table, and their usual header names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """Columns of the text, second text and label: header names, or column numbers from 1 as strings."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None

    def or_else(self, other: Columns) -> Columns:
        """Fill in columns that are None from `other`; the second text only if the text is filled in too."""
        pair = self.pair or (None if self.text else other.pair)
        return Columns(self.text or other.text, pair, self.label or other.label)

    def __str__(self) -> str:
        named = (("text", self.text), ("second text", self.pair), ("label", self.label))
        return ", ".join(f"{what} {name!r}" for what, name in named if name is not None)


# Usual header names of text and second text, most usual first; both names of a pair must be present.
USUAL_PAIRS = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "context"),
)
USUAL_TEXTS = ("text", "sentence", "sentence1", "text_a", "review", "question")
USUAL_LABELS = ("label", "labels", "class", "category", "target", "gold_label")


def usual_columns(names: Sequence[str]) -> Columns:
    """Find the usual columns of text, second text and label among `names`; None for a column that is not found."""
    label = next((name for name in USUAL_LABELS if name in names), None)
    for text, pair in USUAL_PAIRS:
        if text in names and pair in names:
            return Columns(text, pair, label)
    return Columns(next((name for name in USUAL_TEXTS if name in names), None), None, label)
