"""The answer of a tagger: the tags of the words of a text, and its entities."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bertsym.text.sentences import Offsets

JSON_KEYS = ("tokens", "offsets", "tags", "probabilities", "entities")


@dataclass(frozen=True)
class EntitySpan:
    """An entity of a text: its type, its place in characters, its text, and the mean probability of its tags."""

    type: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class TagPrediction:
    """The words of a sentence with their most probable tags, and the entities that these form.

    A word that was cut off, or that the tokenizer removes, has no tag: None.
    """

    tokens: list[str]
    offsets: Offsets  #: start and end of each word, in characters of the text
    tags: list[str | None]
    probabilities: list[float | None]  #: of the tags
    entities: list[EntitySpan]
    truncated: bool = False

    def agrees(self, other: TagPrediction) -> bool:
        """Whether another prediction has the same tags."""
        return self.tags == other.tags

    def to_json(self) -> dict[str, Any]:
        """Return the words and their tags, as training files have them, with offsets, probabilities and entities."""
        values = {name: getattr(self, name) for name in JSON_KEYS[:-1]}
        return {**values, "entities": [dataclasses.asdict(entity) for entity in self.entities]}

    def cells(self) -> list[str]:
        """Return the tags, and the entities as ``TYPE:START-END``, separated by spaces; ``_`` for a missing tag."""
        entities = (f"{entity.type}:{entity.start}-{entity.end}" for entity in self.entities)
        return [" ".join(tag or "_" for tag in self.tags), " ".join(entities)]
