"""Long texts are tokenised in pieces: the same ids as for the whole text, in memory that does not grow with it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tokenizer_documents import BERT, CASED, WORDS, added_token, digits, document, random_text, steps
from tokenizer_training import ALBERT, PRECOMPILED, SLOW, byte_level, metaspace, trained

from bertsym.text import cutting
from bertsym.text.cutting import UncutError
from bertsym.text.pipeline import Pipeline

Added = list[tuple[str, ...]]

PIPELINES: dict[str, tuple[Any, Any]] = {
    "BERT": (BERT, WORDS),
    "cased": (CASED, WORDS),
    "Chinese off": ({**BERT, "handle_chinese_chars": False}, WORDS),
    "not cleaned": ({**BERT, "clean_text": False}, WORDS),
    "no normalizer": (None, WORDS),
    "stripped accents": (steps("NFD", "Lowercase", "StripAccents"), WORDS),
    "NFKD": (steps("NFKD", "Lowercase"), WORDS),
    "NFC": (steps("NFC", BERT), WORDS),
    "digits": (BERT, steps("BertPreTokenizer", digits())),
    "numbers": (BERT, steps(digits(individual=False), "BertPreTokenizer")),
    "white space": (steps("NFKC", "Lowercase"), {"type": "WhitespaceSplit"}),
    "words": (BERT, {"type": "Whitespace"}),
}
# Pipelines in which a space begins the word after it: model, normalizer, pre-tokenizer.
SPACES: dict[str, tuple[str, Any, Any]] = {
    "bytes": ("BPE", None, byte_level()),
    "bytes after a prefix space": ("BPE", None, byte_level(True)),
    "digits and bytes": ("BPE", steps("NFC"), steps(digits(), byte_level(True))),
    "pieces of words": ("Unigram", PRECOMPILED, steps("WhitespaceSplit", metaspace())),
    "pieces": ("Unigram", steps(*SLOW), metaspace()),
    "pieces without a prefix": ("Unigram", PRECOMPILED, metaspace("never")),
    "pieces, the first with a prefix": ("Unigram", steps("NFKC", PRECOMPILED), metaspace("first")),
    "pieces of words, the first with a prefix": ("Unigram", None, steps("WhitespaceSplit", metaspace("first"))),
    "ALBERT": ("Unigram", steps(*ALBERT), steps("WhitespaceSplit", metaspace())),
}
SPACES_ADDED: list[Added] = [
    [],
    [("[MASK]", "lstrip", "special"), ("[SEP]", "special")],
    [("[E1]", "rstrip"), ("--", "rstrip", "lstrip")],
    [("foo", "single_word"), ("baŕ", "single_word", "normalized")],
    [("a b",), (" x",), ("  ",)],
    [("é", "normalized", "lstrip"), ("...", "normalized")],
]
ADDED: list[Added] = [
    [],
    [("[E1]", "normalized"), ("<subj>", "normalized", "rstrip")],
    [("[MA", "lstrip"), ("a b", "normalized"), ("]]", "normalized"), ("--",)],
    [("foo",), ("bar", "normalized")],
    [("foo", "single_word"), ("bar", "single_word", "normalized")],
    [(" foo", "single_word")],
    [(" x",), ("  ",)],
    [("é!", "normalized"), ("中文", "normalized"), ("\u0301a",)],
    [("\u200d",), ("=\u0338",), ("<SUBJ>", "normalized"), (". ",)],
]
CHUNKS = [
    "[MASK]",
    "[SEP]",
    "[E1]",
    "<SUBJ>",
    "<sub\x00j>",
    "foo",
    "baŕ",
    "]]",
    "--",
    "a  b",
    "中文",
    "É\u0301!",
    "[MA",
]
CHUNKS += ["##", " x", "  ", "\u0301a", "=\u0338", "[e1]", ". "]

# Texts that a cut at a wrong place, or a run shortened too much, changes.
HARD = [
    "foo中bar中 foo bar",
    "]]]]]" * 9 + "[[MASK]]",
    "a" + "\u0301" * 500 + "b" + "\x07" * 500 + "c",
    "x" * 20 + " " + "x" * 21 + "\x00" * 90 + "x." + "x\u0301" * 300,
    "x" * 1000 + "[E1]" + " " * 1000 + "<subj>" + " " * 1000 + "y" * 1000,
    "=\u0338" * 40 + "≠" + "." * 100 + "--" * 50,
    "1" * 300 + "2.3" * 100 + "中" * 300,
]


def pipeline(name: str = "BERT", added: Added | None = None, literal: bool = False) -> Pipeline:
    normalizer, pre_tokenizer = PIPELINES[name]
    described = document(normalizer, pre_tokenizer, added or [], max_input_chars_per_word=20)
    return Pipeline(json.dumps(described), "tokenizer.json", literal)


def spaces_pipeline(name: str, added: Added | None = None) -> Pipeline:
    model, normalizer, pre_tokenizer = SPACES[name]
    described = trained(model, normalizer=normalizer, pre_tokenizer=pre_tokenizer)
    # A token of the vocabulary keeps its id as an added token; any other gets the next one.
    tokens = [token if isinstance(token, str) else token[0] for token in described["model"]["vocab"]]
    listed = list(described["added_tokens"])
    for token, *flags in added or []:
        tokens += [token] if token not in tokens else []
        listed.append(added_token(tokens.index(token), token, *flags))
    return Pipeline({**described, "added_tokens": sorted(listed, key=lambda each: int(each["id"]))}, "tokenizer.json")


def ids(tokenizer: Pipeline, *texts: str) -> list[int]:
    """The ids of texts one after the other, each of which is tokenised as it is."""
    return [number for text in texts for number in tokenizer._encode(text).ids]


def pieces(tokenizer: Pipeline, text: str, size: int) -> list[str]:
    return [piece for piece, _ in tokenizer._cutter.pieces(text, size)]


@pytest.mark.parametrize("name", PIPELINES)
def test_pieces_of_random_texts_give_the_ids_of_the_whole_text(name: str) -> None:
    rng = random.Random(name)
    cut = shortened = 0
    for added in ADDED:
        tokenizer = pipeline(name, added, literal=rng.random() < 0.3)
        for text in [*HARD, *(random_text(rng, CHUNKS) for _ in range(6))]:
            size = 1 if len(text) < 500 else rng.randint(5, 100)
            found = pieces(tokenizer, text, size)
            assert ids(tokenizer, *found) == ids(tokenizer, text), (added, size, text)
            cut += len(found) > 1
            shortened += len("".join(found)) < len(text)
    assert cut > 50
    assert shortened > 0 or name in ("no normalizer", "NFC", "white space", "words")


@pytest.mark.parametrize("name", SPACES)
def test_a_text_is_cut_before_spaces_where_a_space_begins_a_word(name: str) -> None:
    rng = random.Random(name)
    cut = 0
    for added in SPACES_ADDED:
        tokenizer = spaces_pipeline(name, added)
        for _ in range(15):
            chunks = [*CHUNKS, "``", "'' ", "\n ", "\u0600", "\u00a8", "2.3 ", "\u3000 ", "'s"]
            text = " ".join(random_text(rng, chunks)[:300] for _ in range(3))
            found = pieces(tokenizer, text, 1)
            assert "".join(found) == text
            assert ids(tokenizer, *found) == ids(tokenizer, text), (added, text)
            cut += len(found)
    assert cut > 500


@pytest.mark.parametrize("added", [[("foo", "normalized", "rstrip")], [("foo bar", "normalized")]])
def test_a_normalised_token_that_may_include_a_space_prevents_cuts(added: Added) -> None:
    text = "the foo bar. " * 100
    assert pieces(spaces_pipeline("pieces", added), text, 10) == [text]


def test_pieces_are_short_where_the_text_has_words() -> None:
    text = "the cat, " * 4000
    found = pieces(pipeline(), text, 100)
    assert "".join(found) == text
    assert max(map(len, found)) <= 110


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("a" * 2_000_000, 1), ("a" * 2_000_000 + " b", 2), (" " * 2_000_000, 0), ("\u3000" * 2_000_000 + "a", 1)],
    ids=["letters", "letters and a word", "spaces", "wide spaces and a word"],
)
def test_a_huge_word_and_huge_white_space_are_shortened(text: str, tokens: int) -> None:
    tokenizer = pipeline()
    found = pieces(tokenizer, text, 4096)
    assert sum(map(len, found)) < 30_000
    assert len(ids(tokenizer, *found)) == len(tokenizer.encode_start(text, 10)) == tokens


def test_no_more_is_tokenised_than_the_tokens_that_are_needed() -> None:
    text = "the cat. " * 100_000
    found = pipeline().encode_start(text, 126)
    assert 126 <= len(found) <= 4096
    assert found == pipeline().encode([text[:4096]])[0][: len(found)]


@pytest.mark.parametrize(
    ("name", "added", "text"),
    [
        # A word that added tokens may be in.
        ("BERT", [("foo",)], "a" * 20_000),
        # Characters that may combine.
        ("NFC", [], "." * 20_000),
        # A bigram that is an added token.
        ("BERT", [("--",)], "-" * 20_000),
    ],
)
def test_a_text_without_a_place_to_cut_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, added: Added, text: str
) -> None:
    monkeypatch.setattr(cutting, "LONGEST", 10_000)
    with pytest.raises(UncutError):
        pieces(pipeline(name, added), text, 100)
    assert pieces(pipeline(name, added), text[:10_000], 100) == [text[:10_000]]


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        {**metaspace(), "split": False},
        {**byte_level(), "use_regex": False},
        None,
    ],
    ids=["Metaspace", "ByteLevel", "none"],
)
def test_texts_of_a_pipeline_that_depends_on_the_whole_text_are_not_cut(
    monkeypatch: pytest.MonkeyPatch, pre_tokenizer: Any
) -> None:
    monkeypatch.setattr(cutting, "LONGEST", 1000)
    tokenizer = Pipeline(json.dumps(document(BERT, pre_tokenizer)), "tokenizer.json")
    text = "the cat. " * 100
    assert pieces(tokenizer, text, 10) == [text]
    with pytest.raises(UncutError):
        pieces(tokenizer, text * 2, 10)
