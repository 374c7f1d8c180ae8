"""Entities in sequences of tags, and their precision, recall and F1, equal to those of seqeval 1.2.2.

An entity tag is ``O`` or a prefix and a type: ``B-PER`` begins an entity, ``I-PER`` continues one, ``E-PER`` ends one,
and ``S-PER`` is an entity of a single word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

OUTSIDE = "O"
_ENTITY_TAG = re.compile(r"O|[BIES](-.*)?", re.DOTALL)


class Entity(NamedTuple):
    """An entity of a sequence of tags: its type, its first word, and the word after its last one."""

    type: str
    start: int
    end: int


@dataclass(frozen=True)
class Scheme:
    """A tagging scheme.

    A pattern is the prefixes of two adjacent tags and how their types compare: ``=`` the same, ``!`` different,
    ``*`` either. ``starts`` are the patterns whose second tag begins an entity, ``inside`` those whose second tag
    continues the entity of the first, ``ends`` those whose first tag ends an entity.
    """

    prefixes: str
    starts: frozenset[str]
    inside: frozenset[str]
    ends: frozenset[str]


def _patterns(*patterns: str) -> frozenset[str]:
    """Expand ``?``, any prefix, and ``*``."""
    return frozenset(
        first + second + types
        for pattern in patterns
        for first in ("BIESO" if pattern[0] == "?" else pattern[0])
        for second in ("BIESO" if pattern[1] == "?" else pattern[1])
        for types in ("=!" if pattern[2] == "*" else pattern[2])
    )


SCHEMES = {
    "IOB1": Scheme(
        "IOB",
        starts=_patterns("OI*", "II!", "BI*", "IB=", "BB="),
        inside=_patterns("BI=", "II="),
        ends=_patterns("II!", "IO*", "IB*", "BO*", "BI!", "BB="),
    ),
    "IOB2": Scheme(
        "IOB",
        starts=_patterns("?B*"),
        inside=_patterns("BI=", "II="),
        ends=_patterns("IO*", "II!", "IB*", "BO*", "BI!", "BB*"),
    ),
    "IOBES": Scheme(
        "IOBES",
        starts=_patterns("?B*", "?S*"),
        inside=_patterns("BI=", "BE=", "II=", "IE="),
        ends=_patterns("S?*", "E?*"),
    ),
}


def is_entity_tag(tag: str) -> bool:
    """Whether a tag is ``O``, or ``B``, ``I``, ``E`` or ``S`` alone or with a hyphen and a type."""
    return _ENTITY_TAG.fullmatch(tag) is not None


def find_entities(tags: Sequence[str], scheme: str | None = None) -> list[Entity]:
    """Return the entities of one sentence, whose tags are entity tags.

    Without a scheme, each sequence of tags has entities, as in seqeval's default mode: an entity also begins where the
    type changes or at an ``I-`` or ``E-`` after ``O``. A name of SCHEMES finds the entities that are correct in that
    scheme, as seqeval's strict mode.
    """
    return list(_lenient(tags) if scheme is None else _strict(tags, SCHEMES[scheme]))


def _lenient(tags: Sequence[str]) -> Iterator[Entity]:
    begin, prefix, kind = 0, OUTSIDE, "_"
    for place, tag in enumerate((*tags, OUTSIDE)):
        next_prefix, next_kind = tag[0], tag[2:] or "_"
        changed = next_kind != kind
        if prefix in "ES" or (prefix in "BI" and (next_prefix in "BSO" or changed)):
            yield Entity(kind, begin, place)
        if next_prefix in "BS" or (next_prefix in "IE" and (prefix in "ESO" or changed)):
            begin = place
        prefix, kind = next_prefix, next_kind


def _strict(tags: Sequence[str], scheme: Scheme) -> Iterator[Entity]:
    extended = [OUTSIDE, *tags, OUTSIDE]
    pairs = [_pattern(first, second) for first, second in zip(extended, extended[1:])]
    place = 0
    while place < len(tags):
        start = place
        place += 1
        if pairs[start] in scheme.starts:
            while pairs[place] in scheme.inside:
                place += 1
            if pairs[place] in scheme.ends:
                yield Entity(_type(tags[start]), start, place)


def _pattern(first: str, second: str) -> str:
    return first[0] + second[0] + ("=" if _type(first) == _type(second) else "!")


def _type(tag: str) -> str:
    return tag[1:].strip("-") or "_"


def check_scheme(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """Return the place of the first tag of a sentence that is wrong in a scheme, and why; None if all are right."""
    rules = SCHEMES[scheme]
    previous = OUTSIDE
    for place, tag in enumerate((*tags, OUTSIDE)):
        if not is_entity_tag(tag) or tag[0] not in rules.prefixes:
            prefixes = ", ".join(f"{prefix}-" for prefix in rules.prefixes if prefix != OUTSIDE)
            return place, f"the tag {tag!r} is not one of the scheme {scheme}: O, or {prefixes} and a type"
        pattern = _pattern(previous, tag)
        is_open = previous != OUTSIDE and pattern not in rules.inside | rules.ends
        if is_open or (tag != OUTSIDE and pattern not in rules.starts | rules.inside):
            if place == len(tags):
                return place - 1, f"the last tag {previous!r} leaves an entity open in the scheme {scheme}"
            after = f"after {previous!r}" if place else "at the start of a sentence"
            return place, f"the tag {tag!r} {after} is invalid in the scheme {scheme}"
        previous = tag
    return None


def evaluate_tags(
    tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str | None = None
) -> dict[str, float]:
    """Return ``f1``, ``precision`` and ``recall`` of the entities of all sentences together, and the ``accuracy``.

    An entity is correct if its type and both its ends are. A ratio whose denominator is zero is 0. The accuracy is the
    fraction of words whose tag is correct. `scheme` is that of `find_entities`.
    """
    hits = true = guessed = 0
    for right, guess in zip(tags, predicted):
        counts = count_entities(right, guess, scheme)
        hits, true, guessed = hits + counts[0], true + counts[1], guessed + counts[2]
    return {
        "f1": _ratio(2 * hits, true + guessed),
        "precision": _ratio(hits, guessed),
        "recall": _ratio(hits, true),
        "accuracy": tag_accuracy(tags, predicted),
    }


def count_entities(tags: Sequence[str], predicted: Sequence[str], scheme: str | None = None) -> tuple[int, int, int]:
    """Return the numbers of entities of one sentence that are correct, that there are, and that are predicted."""
    entities, found = set(find_entities(tags, scheme)), set(find_entities(predicted, scheme))
    return len(entities & found), len(entities), len(found)


def tag_accuracy(tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Return the fraction of words of all sentences whose tag is correct."""
    pairs = [pair for right, guess in zip(tags, predicted) for pair in zip(right, guess)]
    return _ratio(sum(right == guess for right, guess in pairs), len(pairs))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
