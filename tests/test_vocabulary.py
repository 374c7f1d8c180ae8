"""Vocabularies: vocab.txt, GluonNLP's JSON, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import VOCABULARY

from bertsym import DataError, ModelError
from bertsym.mxnet_runtime import nlp
from bertsym.text.vocabulary import Vocabulary, check_vocabulary_size

ODD_TOKENS = ("é", "e\u0301", "中", "##😀", "a b", " ", "\u2028", "\u0085", "\v", "\u00a0", '"', "\\", "\ufeff", "[X]")


def vocabulary(*more: str) -> Vocabulary:
    return Vocabulary((*VOCABULARY, *more))


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        Vocabulary.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# Round trips


def test_vocab_txt_is_read_as_it_was_written(tmp_path: Path) -> None:
    original = vocabulary(*ODD_TOKENS)
    path = tmp_path / "vocab.txt"
    path.write_bytes(original.to_text().encode())
    assert Vocabulary.load(path) == original
    assert path.read_bytes().count(b"\n") == len(original) == len(VOCABULARY) + len(ODD_TOKENS)


def test_gluonnlp_s_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    original = vocabulary(*ODD_TOKENS)
    path = tmp_path / "vocab.json"
    path.write_text(original.to_gluonnlp_json(), encoding="utf-8")
    assert Vocabulary.load(path) == original


def test_a_vocab_txt_with_carriage_returns_or_without_the_last_line_feed_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    for content in ("\r\n".join(VOCABULARY) + "\r\n", "\n".join(VOCABULARY)):
        path.write_bytes(content.encode())
        assert Vocabulary.load(path).tokens == tuple(VOCABULARY)


def test_no_token_changes_between_the_files_of_a_bundle(tmp_path: Path) -> None:
    """A token that vocab.txt can't hold is refused, as one with a line feed is, and not written as another one."""
    path = tmp_path / "vocab.txt"
    try:
        original = vocabulary("odd\r")
    except DataError:
        return
    path.write_bytes(original.to_text().encode())
    assert Vocabulary.load(path).tokens[-1] == "odd\r"


def test_index_is_the_place_in_the_file() -> None:
    words = vocabulary()
    assert [words.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [0, 2, 3, 4]
    assert all(words.index(token) == number for number, token in enumerate(VOCABULARY))


# GluonNLP


def test_gluonnlp_loads_the_json_with_the_same_ids() -> None:
    words = vocabulary(*ODD_TOKENS)
    theirs = nlp.vocab.BERTVocab.from_json(words.to_gluonnlp_json())
    assert list(theirs.idx_to_token) == list(words.tokens)
    assert theirs.to_indices(list(words.tokens)) == list(range(len(words)))
    assert theirs["a word that is not there"] == words.index("[UNK]")


def test_gluonnlp_knows_the_special_tokens_of_the_json() -> None:
    theirs = nlp.vocab.BERTVocab.from_json(vocabulary().to_gluonnlp_json())
    special = (theirs.unknown_token, theirs.padding_token, theirs.cls_token, theirs.sep_token, theirs.mask_token)
    assert special == ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")


def test_a_vocabulary_that_gluonnlp_wrote_is_read_with_its_ids(tmp_path: Path) -> None:
    theirs = nlp.vocab.BERTVocab(nlp.data.count_tokens(["cat", "dog", "cat", "##s"]))
    path = tmp_path / "theirs.json"
    path.write_text(theirs.to_json(), encoding="utf-8")
    assert Vocabulary.load(path).tokens == tuple(theirs.idx_to_token)


# What is refused


def test_a_repeated_token_is_named_with_both_ids(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*VOCABULARY, "new", "cat"]) + "\n")
    first, second = VOCABULARY.index("cat"), len(VOCABULARY) + 1
    assert error_of(path) == f"vocabulary: token 'cat' is repeated, at ids {first} and {second}"


def test_a_repeated_token_in_the_json_is_refused(tmp_path: Path) -> None:
    """GluonNLP's own reader takes it."""
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"idx_to_token": [*VOCABULARY, "cat"]}))
    assert "token 'cat' is repeated, at ids" in error_of(path)


@pytest.mark.parametrize("missing", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
def test_a_missing_special_token_is_named(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in VOCABULARY if token != missing))
    assert error_of(path) == f"vocabulary: {missing} missing from the {len(VOCABULARY) - 1} tokens"


def test_a_vocabulary_may_lack_the_mask() -> None:
    words = Vocabulary(tuple(token for token in VOCABULARY if token != "[MASK]"))
    assert nlp.vocab.BERTVocab.from_json(words.to_gluonnlp_json()).to_indices("cat") == words.index("cat")


def test_a_token_with_a_line_feed_is_refused() -> None:
    with pytest.raises(DataError, match=f"token {len(VOCABULARY)} contains a line break"):
        vocabulary("two\nlines")


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n\n"])
def test_a_file_without_tokens_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    assert error_of(path).startswith("vocabulary: ")


def test_a_file_that_is_not_utf_8_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"[PAD]\ncaf\xe9\n")
    assert error_of(path) == "not UTF-8 text at byte 9"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "more than 64 levels"),
        ('["[PAD]"]', "an array is not a JSON object"),
        ('{"token_to_idx": {}}', 'the key "idx_to_token" is missing'),
        ('{"idx_to_token": "abc"}', 'idx_to_token: "abc" is not an array'),
        ('{"idx_to_token": ["a", 1]}', "idx_to_token[1]: 1 is not a string"),
    ],
    ids=["cut", "deep", "list", "no tokens", "text", "number"],
)
def test_json_of_another_kind_is_refused(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    assert error_of(path).startswith(why)


def test_a_missing_file_is_a_one_line_error(tmp_path: Path) -> None:
    assert error_of(tmp_path / "vocab.txt") == "No such file or directory"


# Casing and padding


@pytest.mark.parametrize(
    ("more", "cased"),
    [((), False), (("Cat",), True), (("##S",), True), (("É",), True), (("[X]", "中", "1", "ß"), False)],
)
def test_a_vocabulary_with_a_capital_letter_outside_of_brackets_is_cased(more: tuple[str, ...], cased: bool) -> None:
    assert vocabulary(*more).looks_cased is cased


def test_padding_names_the_rows_that_have_no_token() -> None:
    words = vocabulary()
    size = len(words)
    padded = words.padded_to(size + 2)
    assert padded.tokens == (*words.tokens, f"[unused row {size}]", f"[unused row {size + 1}]")
    assert not padded.looks_cased


def test_padding_never_shortens() -> None:
    words = vocabulary()
    assert words.padded_to(len(words)) == words.padded_to(3) == words


def test_a_vocabulary_must_have_a_token_for_each_row_of_the_embedding() -> None:
    words = vocabulary()
    size = len(words)
    check_vocabulary_size(words, size, "v")
    too_few = f"v: {size} tokens, but the token embedding has {size + 3} rows"
    with pytest.raises(ModelError, match=f"^{re.escape(too_few)}; .*--pad-vocab"):
        check_vocabulary_size(words, size + 3, "v")
    too_many = f"v: {size} tokens, but the token embedding has {size - 1} rows"
    with pytest.raises(ModelError, match=f"^{re.escape(too_many)}$"):
        check_vocabulary_size(words, size - 1, "v")
