"""Entities and their scores are those of seqeval, on valid and on invalid sequences of tags."""

from __future__ import annotations

import random
import warnings

import pytest
import seqeval.metrics
import seqeval.scheme
from seqeval.metrics.sequence_labeling import get_entities

from bertsym.metrics.tagging import SCHEMES, Entity, check_scheme, evaluate_tags, find_entities, is_entity_tag

Sentences = list[list[str]]
CASES: list[list[str]] = [
    ["B-PER", "I-PER", "O", "B-LOC"],
    ["I-PER", "I-PER", "O", "I-LOC", "B-LOC"],
    ["B-PER", "I-LOC", "I-LOC", "B-LOC", "B-LOC"],
    ["B-PER", "E-PER", "S-LOC", "S-LOC", "E-PER", "E-PER"],
    ["B-PER", "I-PER", "E-PER", "I-PER", "O", "E-LOC"],
    ["S-PER", "I-PER", "E-PER", "B-LOC"],
    ["B", "I", "O", "I", "B", "E", "S"],
    ["B-a-b", "I-a-b", "I-a", "B--x", "I--x"],
    ["O"],
    ["O", "O", "O"],
]


def random_sentences(prefixes: str, seed: int) -> Sentences:
    """Sentences of random tags, and a copy with some tags changed."""
    rng = random.Random(seed)

    def tag() -> str:
        prefix = rng.choice(prefixes)
        return prefix if prefix == "O" else f"{prefix}-{rng.choice(['PER', 'LOC', 'a-b'])}"

    return [[tag() for _ in range(rng.randint(1, 12))] for _ in range(60)]


def changed(sentences: Sentences, seed: int) -> Sentences:
    rng = random.Random(seed)
    tags = [tag for sentence in sentences for tag in sentence]
    return [[tag if rng.random() < 0.7 else rng.choice(tags) for tag in sentence] for sentence in sentences]


def of_seqeval(tags: Sentences, predicted: Sentences, scheme: str | None) -> dict[str, float]:
    how = {} if scheme is None else {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a ratio whose denominator is zero
        return {
            **{
                name: getattr(seqeval.metrics, f"{name}_score")(tags, predicted, **how)
                for name in ("f1", "precision", "recall")
            },
            "accuracy": seqeval.metrics.accuracy_score(tags, predicted),
        }


@pytest.mark.parametrize("scheme", [None, *SCHEMES])
def test_scores_are_those_of_seqeval(scheme: str | None) -> None:
    prefixes = "OBIES" if scheme is None else SCHEMES[scheme].prefixes
    cases = [case for case in CASES if {tag[0] for tag in case} <= set(prefixes)]
    pairs = [(cases, changed(cases, 1)), (cases, cases), ([["O"]], [["O"]]), ([["O"]], [["B-x"]]), ([["B-x"]], [["O"]])]
    pairs += [(each, changed(each, seed)) for seed in range(20) for each in [random_sentences(prefixes, seed)]]
    for tags, predicted in pairs:
        expected = of_seqeval(tags, predicted, scheme)
        assert evaluate_tags(tags, predicted, scheme) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert 0 < evaluate_tags(*pairs[-1], scheme)["f1"] < 1


@pytest.mark.parametrize("scheme", [None, *SCHEMES])
def test_entities_are_those_of_seqeval(scheme: str | None) -> None:
    """Also where a wrong entity would not change a score."""
    prefixes = "OBIES" if scheme is None else SCHEMES[scheme].prefixes
    for tags in [*CASES, *random_sentences(prefixes, 7), *random_sentences(prefixes, 8)]:
        if not {tag[0] for tag in tags} <= set(prefixes):
            continue
        if scheme is None:
            expected = [Entity(kind, start, end + 1) for kind, start, end in get_entities(tags)]
        else:
            found = seqeval.scheme.Tokens(tags, getattr(seqeval.scheme, scheme)).entities
            expected = [Entity(entity.tag, entity.start, entity.end) for entity in found]
        assert find_entities(tags, scheme) == expected


def test_scores_by_hand() -> None:
    """Two entities of three are found, one with a wrong end, and one that does not exist."""
    tags = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "I-LOC"]]
    assert evaluate_tags(tags, predicted) == {
        "f1": pytest.approx(2 / 3),
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "accuracy": pytest.approx(5 / 6),
    }


def test_a_scheme_finds_only_entities_that_are_correct_in_it() -> None:
    tags = ["I-PER", "I-PER", "O", "B-LOC", "I-PER"]
    assert find_entities(tags) == [("PER", 0, 2), ("LOC", 3, 4), ("PER", 4, 5)]
    assert find_entities(tags, "IOB2") == [("LOC", 3, 4)]
    assert find_entities(tags, "IOB1") == [("PER", 0, 2), ("PER", 4, 5)]
    assert find_entities(tags, "IOBES") == []


@pytest.mark.parametrize(
    ("scheme", "tags", "place", "why"),
    [
        ("IOB2", "B-x I-x O B-x B-x", None, ""),
        ("IOB1", "I-x I-x B-x O I-y I-x", None, ""),
        ("IOBES", "B-x I-x E-x S-x B-y E-y O", None, ""),
        ("IOB2", "O I-x", 1, "the tag 'I-x' after 'O' is invalid in the scheme IOB2"),
        ("IOB2", "I-x I-x", 0, "the tag 'I-x' at the start of a sentence is invalid in the scheme IOB2"),
        ("IOB2", "B-x I-y", 1, "the tag 'I-y' after 'B-x' is invalid in the scheme IOB2"),
        ("IOB2", "O S-x", 1, "the tag 'S-x' is not one of the scheme IOB2: O, or I-, B- and a type"),
        ("IOB2", "NOUN", 0, "the tag 'NOUN' is not one of the scheme IOB2: O, or I-, B- and a type"),
        ("IOB1", "O B-x", 1, "the tag 'B-x' after 'O' is invalid in the scheme IOB1"),
        ("IOB1", "I-x B-y", 1, "the tag 'B-y' after 'I-x' is invalid in the scheme IOB1"),
        ("IOBES", "B-x I-x O", 2, "the tag 'O' after 'I-x' is invalid in the scheme IOBES"),
        ("IOBES", "S-x E-x", 1, "the tag 'E-x' after 'S-x' is invalid in the scheme IOBES"),
        ("IOBES", "O B-x", 1, "the last tag 'B-x' leaves an entity open in the scheme IOBES"),
    ],
)
def test_a_sentence_is_checked_against_a_scheme(scheme: str, tags: str, place: int | None, why: str) -> None:
    found = check_scheme(tags.split(), scheme)
    assert found == (None if place is None else (place, why))


def test_tags_are_those_of_entities_or_others() -> None:
    assert all(map(is_entity_tag, ["O", "B", "S-x", "I-", "E-a b"]))
    assert not any(map(is_entity_tag, ["NOUN", "", "b-x", "L-x", "OO", "Bx", "O-x"]))
