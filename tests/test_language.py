"""What people read is plain English: no text has a phrase of tests/language.py."""

from __future__ import annotations

import pytest
from language import PHRASES, ROOT, Text, findings, texts


@pytest.fixture(scope="module")
def all_texts() -> list[Text]:
    return list(texts())


def test_no_text_has_a_phrase_to_avoid(all_texts: list[Text]) -> None:
    found = [finding for text in all_texts for finding in findings(text)]
    assert not found, "\n".join(map(str, ["see tests/language.py", *found]))


def test_texts_come_from_code_pages_and_help(all_texts: list[Text]) -> None:
    places = {text.place.partition(":")[0].partition(" ")[0] for text in all_texts}
    for place in (
        "bertsym/errors.py",
        "README.md",
        "docs/glossary.md",
        "bertsym",
        "scripts/benchmarks/common.py",
        "tests/conftest.py",
    ):
        assert place in places
    assert (ROOT / "bertsym").is_dir()


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("It tells the shape", "tells"),
        ("node x (y) is no FullyConnected", "is no"),
        ("a bundle appears whole\n    or not at all", "whole or not at all"),
        ("The epochs end. Of the epochs the best is kept", "Of the"),
        ("an output that the node has not", "has not"),
        ("{} is none of {}", "is none of"),
        ("the one that has it", "the one that"),
        ("go on from the newest", "go on"),
        ("test of two tokens the last one counts", "test of two"),
    ],
)
def test_phrases_are_found(text: str, phrase: str) -> None:
    assert [finding.phrase for finding in findings(Text("x", text))] == [phrase]


@pytest.mark.parametrize(
    "text",
    [
        "there is no bundle here",
        "it is no longer read",
        "the file has not changed",
        "one of the outputs",
        "Part of the graph stays; of course it is checked",
        "stop, or continue",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    assert not list(findings(Text("x", text)))


def test_every_phrase_has_advice() -> None:
    assert all(PHRASES.values())
