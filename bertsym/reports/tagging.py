"""The errors of tagging: a table by type of entity, and sentences whose entities are missed or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.metrics.tagging import Entity
from bertsym.reports.assessment import ExampleRows, precision_table_rows
from bertsym.reports.blocks import MOST_CHARACTERS, MOST_ROWS, Cell, Marked, Section, Table, shortened

_RATIOS = ("predicted", "precision", "recall", "F1")


@dataclass(frozen=True)
class TaggedSentence:
    """A sentence with what is correct and what was predicted: entities, or the tag of each word as one."""

    text: str
    offsets: Sequence[tuple[int, int]]  #: of its words
    correct: frozenset[Entity]
    predicted: frozenset[Entity]
    confidence: float  #: mean probability of the predicted tags

    @property
    def mistakes(self) -> int:
        """Number of entities that are missed or wrong."""
        return len(self.correct ^ self.predicted)


def tagging_sections(sentences: Sequence[TaggedSentence], rows: ExampleRows, what: str) -> list[Section]:
    """Describe the errors; `what` is ``entities`` or ``tags``."""
    true = Counter(entity.type for each in sentences for entity in each.correct)
    guessed = Counter(entity.type for each in sentences for entity in each.predicted)
    hits = Counter(entity.type for each in sentences for entity in each.correct & each.predicted)
    types = [name for name, _ in (true + guessed).most_common()]
    counts = (np.array([counter[name] for name in types], np.int64) for counter in (hits, guessed, true))
    found = precision_table_rows(types, *counts)
    title, column = ("Entities", "type") if what == "entities" else ("Tags", "tag")
    table = Table(title, (column, what, *_RATIOS), found[:MOST_ROWS], len(found))
    wrong = [number for number, each in enumerate(sentences) if each.mistakes]
    wrong.sort(key=lambda number: (-sentences[number].mistakes, -sentences[number].confidence))
    is_shown = rows.texts is not None
    columns = (*rows.places, *(("sentence",) if is_shown else ()), "missed", "wrong", "confidence")
    cells = [_cells(sentences[number], rows.place_cells(number), is_shown) for number in wrong[:MOST_ROWS]]
    note = (
        f"In a sentence, {what} that are correct are green, missed ones underlined, wrong ones orange. The confidence "
        "is the mean probability of the predicted tags."
    )
    examples = Table("Sentences with the most mistakes", columns, cells, len(wrong), note=note, examples=True)
    return [Section("Errors", [table, examples])]


def _cells(sentence: TaggedSentence, place: list[Cell], is_shown: bool) -> list[Cell]:
    missed, wrong = sentence.correct - sentence.predicted, sentence.predicted - sentence.correct
    listed = [_listed(sentence, entities, is_shown) for entities in (missed, wrong)]
    return [*place, *([_marked(sentence)] if is_shown else []), *listed, sentence.confidence]


def _place(sentence: TaggedSentence, entity: Entity) -> tuple[int, int]:
    return sentence.offsets[entity.start][0], sentence.offsets[entity.end - 1][1]


def _listed(sentence: TaggedSentence, entities: Iterable[Entity], is_shown: bool) -> Cell:
    names = []
    for entity in sorted(entities, key=lambda each: each.start):
        start, end = _place(sentence, entity)
        names.append(f"{entity.type}: {sentence.text[start:end]}" if is_shown else entity.type)
    return shortened(", ".join(names)) or None


def _marked(sentence: TaggedSentence) -> Marked:
    """The text with its entities; where a missed and a wrong one overlap, the words of both are wrong."""
    marks = [""] * len(sentence.offsets)
    for entities, mark in (
        (sentence.correct - sentence.predicted, "missed"),
        (sentence.predicted - sentence.correct, "wrong"),
        (sentence.correct & sentence.predicted, "right"),
    ):
        for entity in entities:
            marks[entity.start : entity.end] = [mark] * (entity.end - entity.start)
    pieces: list[tuple[str, str]] = []
    done = 0
    for (start, end), mark in zip(sentence.offsets, marks):
        if start >= MOST_CHARACTERS:
            break
        end = min(end, MOST_CHARACTERS)
        between = sentence.text[done:start]
        if pieces and pieces[-1][1] == mark:
            pieces[-1] = (pieces[-1][0] + between + sentence.text[start:end], mark)
        else:
            pieces += [(between, ""), (sentence.text[start:end], mark)]
        done = end
    left = len(sentence.text) - done
    return Marked((*pieces, (f"… ({left:,} more characters)" if left else "", "")))
