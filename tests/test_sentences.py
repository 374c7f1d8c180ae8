"""Sentences of words and tags are read from CoNLL files, JSON Lines and plain text; errors name the line."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import BertPreTokenizer

from bertsym.errors import DataError, UsageError
from bertsym.text.sentences import Sentence, SentenceReader, split_at_punctuation, split_at_spaces

TWO = "Ann\tB-PER\nlives\tO\n\nParis\tB-LOC\n"
FOUR = "-DOCSTART- -X- -X- O\n\nAnn NNP B-NP B-PER\nlives VBZ B-VP O\n\n-DOCSTART- -X- -X- O\n\nParis NNP B-NP B-LOC\n"
JSON = '{"tokens": ["Ann", "lives"], "tags": ["B-PER", "O"]}\n{"words": ["Paris"], "ner_tags": ["B-LOC"]}\n'


def read(text: str | bytes, kind: str | None = "conll", labelled: bool = True) -> list[Sentence | DataError]:
    content = text.encode() if isinstance(text, str) else text
    return list(SentenceReader(io.BytesIO(content), kind, labelled).each())


def words_and_tags(found: list[Sentence | DataError]) -> list[tuple[list[str], list[str]]]:
    sentences = [sentence for sentence in found if isinstance(sentence, Sentence)]
    assert len(sentences) == len(found)
    return [(sentence.words, list(sentence.tags or ())) for sentence in sentences]


def refusal(text: str | bytes, kind: str = "conll", labelled: bool = True) -> str:
    (error,) = (each for each in read(text, kind, labelled) if isinstance(each, DataError))
    return str(error).removeprefix("standard input, ")


BOTH = "2 (word, tag) or 4 (word, part of speech, chunk, tag)"
EXPECTED = [(["Ann", "lives"], ["B-PER", "O"]), (["Paris"], ["B-LOC"])]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (TWO, "conll"),
        (TWO.replace("\t", " "), "conll"),
        (TWO.replace("\t", "   "), "conll"),
        (TWO.replace("\n", "\r\n"), "conll"),
        ("\ufeff\n\n" + TWO.rstrip("\n"), "conll"),
        (TWO.replace("\n\n", "\n \n\n"), "conll"),
        ("-DOCSTART-\tO\n" + TWO.replace("\n\n", "\n-DOCSTART- O\n"), "conll"),
        (FOUR, "conll"),
        (FOUR.replace(" ", "\t"), "conll"),
        (JSON, "jsonl"),
        (JSON.replace("\n", "\r\n\n"), "jsonl"),
    ],
)
def test_a_labelled_file_is_read_in_each_format(text: str, kind: str) -> None:
    assert words_and_tags(read(text, kind)) == EXPECTED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.conll", TWO),
        ("t.txt", TWO),
        ("eng.testa", FOUR),
        ("T.TSV", TWO),
        ("train", TWO),
        ("t.jsonl", JSON),
        ("t.json", JSON),
    ],
)
def test_the_suffix_determines_the_format_of_a_labelled_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    reader = SentenceReader(path)
    assert words_and_tags(list(reader.each())) == EXPECTED
    assert reader.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_words_have_offsets_and_lines() -> None:
    first, second = read("Ann\tO\nNew York\tO\n\né\tO\n")
    assert isinstance(first, Sentence)
    assert isinstance(second, Sentence)
    assert (first.text, first.offsets, list(first.lines)) == ("Ann New York", ((0, 3), (4, 12)), [1, 2])
    assert (second.text, second.offsets, list(second.lines)) == ("é", ((0, 1),), [4])
    assert first.is_split


@pytest.mark.parametrize("text", [TWO, FOUR, "Ann\nlives\n\nParis"])
def test_tags_of_an_unlabelled_file_are_not_read(text: str) -> None:
    found = read(text, labelled=False)
    assert words_and_tags(found) == [(["Ann", "lives"], []), (["Paris"], [])]
    assert all(isinstance(sentence, Sentence) and sentence.tags is None for sentence in found)


def test_an_unlabelled_text_is_split_into_words() -> None:
    text = "Ann  lives in Paris.\nYes\n"
    expected = [["Ann", "lives", "in", "Paris."], ["Yes"]]
    for kind, content in (("lines", text), ("jsonl", '{"text": "Ann  lives in Paris."}\n{"tokens": ["Yes"]}\n')):
        found = words_and_tags(read(content, kind, labelled=False))
        assert [words for words, _ in found] == expected
    (first, _) = read(text, "lines", labelled=False)
    assert isinstance(first, Sentence)
    assert not first.is_split
    assert first.offsets == ((0, 3), (5, 10), (11, 13), (14, 20))


TEXTS = [
    "Ann's U.S.-flag, (x)!",
    "  a\tb  ",
    "$5 a_b x^2",
    "\u201cyes\u201d \u2014 no\u2026",
    "a\u00a0b",
    "caf\u00e9",
    "\u3000x\u3000",
]


@pytest.mark.parametrize("text", TEXTS)
def test_punctuation_is_split_as_bert_does(text: str) -> None:
    expected = [offsets for _, offsets in BertPreTokenizer().pre_tokenize_str(text)]
    assert list(split_at_punctuation(text)) == expected


def test_each_chinese_character_is_a_word_of_bert_and_none_is_at_spaces() -> None:
    assert split_at_punctuation("\u4f60\u597da") == ((0, 1), (1, 2), (2, 3))
    assert split_at_spaces("\u4f60\u597d a.") == ((0, 2), (3, 5))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("Ann\tB-PER\n\nParis\n", "conll", "line 3: 1 column, expected 2"),
        ("Ann\n", "conll", f"line 1: 1 column, expected {BOTH}"),
        ("a b c\n", "conll", f"line 1: 3 columns, expected {BOTH}"),
        (TWO + "\nx y B-NP O\n", "conll", "line 6: 4 columns, expected 2"),
        ("Ann\tO\n\tO\n", "conll", "line 2: the word is empty"),
        ("Ann O\n O\n", "conll", "line 2: the word is empty"),
        ("Ann\tO\n\u00a0\tO\n", "conll", "line 2: the word is empty"),
        ("Ann\t\n", "conll", "line 1: the tag is empty"),
        ("Ann\tB PER\n", "conll", "line 1: the tag 'B PER' holds a space or a control character"),
        (b"Ann\tO\n\xff\tO\n", "conll", "line 2: not UTF-8 text (byte 0 of the line)"),
        ('{"tokens": ["a"]}\n', "jsonl", "line 1: no key 'tags' or 'ner_tags'"),
        ('{"tags": ["O"]}\n', "jsonl", "line 1: no key 'tokens' or 'words'"),
        ('{"tokens": ["a"], "tags": ["O", "O"]}\n', "jsonl", "line 1: 1 words but 2 tags"),
        ('{"tokens": [], "tags": []}\n', "jsonl", "line 1: the sentence has no words"),
        ('{"tokens": ["a"], "tags": [3]}\n', "jsonl", "line 1: the tag 3 is a number: write the names of the tags"),
        ('{"tokens": ["a", ""], "tags": ["O", "O"]}\n', "jsonl", "line 1: the word is empty"),
        ('{"tokens": ["\\ud800"], "tags": ["O"]}\n', "jsonl", "line 1: the word '\\ud800' is not valid Unicode"),
        ('{"tokens": "a", "tags": ["O"]}\n', "jsonl", "line 1: 'tokens' is not a list"),
        ('{"tokens": [1], "tags": ["O"]}\n', "jsonl", "line 1: 'tokens' has an element that is not a string: 1"),
        (
            '{"tags": ["O"], "ner_tags": ["O"], "tokens": ["a"]}',
            "jsonl",
            "line 1: the keys 'tags' and 'ner_tags' mean the same: remove one",
        ),
        ('{"tokens": ["a"], "tags": ["O"], "tags": ["O"]}', "jsonl", "line 1: the key 'tags' is repeated"),
        ("[1]\n", "jsonl", "line 1: not a JSON object"),
    ],
)
def test_a_sentence_that_can_t_be_read_is_a_one_line_error(text: str | bytes, kind: str, message: str) -> None:
    assert refusal(text, kind) == message


def test_reading_continues_after_a_sentence_that_can_t_be_read() -> None:
    found = read("a\tO\nb\nc\tO\n\nd\tO\n\n\tO\nf\tO\n")
    assert [type(each) for each in found] == [DataError, Sentence, DataError]
    assert "line 2" in str(found[0])
    assert "line 7" in str(found[2])


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("a\n\nb\n", "lines", "line 2: an empty line"),
        ('{"text": " "}', "jsonl", "line 1: 'text' is not a text"),
        ('{"x": 1}', "jsonl", "line 1: no key 'tokens' or 'words'"),
        ("a b c\n", "conll", f"line 1: 3 columns, expected 1 (word) or {BOTH}"),
    ],
)
def test_an_unlabelled_sentence_that_can_t_be_read(text: str, kind: str, message: str) -> None:
    assert refusal(text, kind, labelled=False) == message


def test_the_format_of_some_files_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(TWO)
    with pytest.raises(
        UsageError, match=r"the suffix '.txt' does not determine the format; give --format conll\|jsonl\|lines"
    ):
        SentenceReader(path, labelled=False)
    with pytest.raises(
        UsageError, match=r"the suffix '.csv' does not determine the format; give --format conll\|jsonl$"
    ):
        SentenceReader(path.rename(tmp_path / "texts.csv"))
    with pytest.raises(UsageError, match="lines of plain text have no tags: give --format conll or jsonl"):
        read(TWO, "lines")
    with pytest.raises(DataError, match="No such file"):
        SentenceReader(tmp_path / "missing.conll")
