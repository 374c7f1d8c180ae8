"""Tokenisation: the ids of GluonNLP's BERTTokenizer and BERTSentenceTransform, truncation, normalisation."""

from __future__ import annotations

import random
import string
import unicodedata
from typing import Any

import pytest
from conftest import VOCABULARY, WORDS

from bertsym import DataError, ModelError, UsageError
from bertsym.runtime import nlp
from bertsym.text.features import encode_rows
from bertsym.text.tables import Row
from bertsym.text.tokenizer import Encoded, Tokenizer, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary

_LETTERS = string.ascii_lowercase + string.digits
_OTHERS = "øæœßαβγδπωабвгджшщıאבगम中文汉字日本ーのか。\uff0c\uff01\uff1f“”…«»—€£🎉"
_JAMO = unicodedata.normalize("NFD", "한국어")
WIDE = Vocabulary(
    tuple(
        dict.fromkeys(
            [
                *VOCABULARY,
                *string.punctuation,
                *(f"{mark}{character}" for mark in ("", "##") for character in _LETTERS + _OTHERS + _JAMO),
            ]
        )
    )
)

TEXTS = [
    "the cat sat on the mat.",
    "The CAT's mat -- it's very, very old!?",
    "cats dogs quickly slowly running slept flew",
    "Ünïcödé àccénts: ñ ç Å ø æ œ ß ﬁ İstanbul ǅ",
    "decomposed e\u0301 a\u0308 o\u0302\u0301 and a lone \u0301 mark",
    "中文汉字 mixed中with文latin 日本の texts。\uff0c\uff01",
    "한국어 words and אבג and αβγ δπω and абв шщ",
    "emoji 😀 🎉 👩\u200d👩\u200d👧 cat🎉dog ☃\ufe0f",
    "control \x00 a\x01b \x07 c\x7fd \u200bzero\u200dwidth\ufeffmark \ufffd soft\u00adhyphen",
    "spaces:\u00a0no-break \u2003em \u3000ideographic \u2028line \u2029paragraph\ttab\nline\r\nend",
    "next\u0085line vertical\x0btab form\x0cfeed",
    "prices: $5.20, 30%, €7 and £9; a+b=c <tag> a|b ~x^y `q` {z} [w] @me #1 http://a.b/c?d=e&f",
    "“quoted” «text»… em—dash",
    "[CLS] [SEP] [MASK] [PAD] [UNK] ##s ##ing [unused0]",
    "1234567890 3.14 1e-5 v0.10.0",
    "   leading and trailing   ",
    "a" * 100,
    "x",
]


@pytest.fixture(scope="module")
def gluonnlp_vocabulary() -> Any:
    return nlp.vocab.BERTVocab.from_json(WIDE.to_gluonnlp_json())


def gluonnlp_ids(vocabulary: Any, max_length: int, *texts: str) -> tuple[list[int], list[int]]:
    """Token ids and token types that GluonNLP gives to a text or a pair."""
    transform = nlp.data.BERTSentenceTransform(
        nlp.data.BERTTokenizer(vocabulary, lower=True), max_length, pad=False, pair=len(texts) == 2
    )
    token_ids, valid_length, token_types = transform(texts)
    assert len(token_ids) == int(valid_length)
    return [int(value) for value in token_ids], [int(value) for value in token_types]


def tokenizer(max_length: int = 400, vocabulary: Vocabulary = WIDE, **options: Any) -> Tokenizer:
    return Tokenizer(vocabulary, TokenizerOptions(**{"lower_case": True, **options}), max_length)


def encoded(text: str, pair: str | None = None, max_length: int = 400, **options: Any) -> Encoded:
    (example,) = tokenizer(max_length, **options).encode([text], None if pair is None else [pair])
    return example


def tokens(example: Encoded, vocabulary: Vocabulary = WIDE) -> list[str]:
    return [vocabulary.tokens[number] for number in example.token_ids]


def random_texts(count: int) -> list[str]:
    """Words of any script, joined by anything, the same at each run."""
    rng = random.Random(0)
    alphabets = [_LETTERS, string.ascii_uppercase, string.punctuation, _OTHERS, "éÈñÇÖ한글\u0301\u200d\x07😀", _LETTERS]
    texts = []
    for _ in range(count):
        words = []
        for _ in range(rng.randint(1, 12)):
            alphabet = rng.choice(alphabets)
            words.append(
                rng.choice(WORDS) if rng.random() < 0.3 else "".join(rng.choices(alphabet, k=rng.randint(1, 7)))
            )
        texts.append("x" + rng.choice([" ", "", "\t", " \u3000"]).join(words))
    return texts


# The same ids as GluonNLP


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_token_ids_of_a_text_are_gluonnlp_s(gluonnlp_vocabulary: Any, text: str) -> None:
    example = encoded(text)
    assert (example.token_ids, example.token_types) == gluonnlp_ids(gluonnlp_vocabulary, 400, text)
    assert len(example.token_ids) > 2
    assert not example.truncated


def test_token_ids_of_pairs_are_gluonnlp_s(gluonnlp_vocabulary: Any) -> None:
    seconds = TEXTS[1:] + TEXTS[:1]
    for text, pair, example in zip(TEXTS, seconds, tokenizer().encode(TEXTS, seconds)):
        assert (example.token_ids, example.token_types) == gluonnlp_ids(gluonnlp_vocabulary, 400, text, pair), text


def test_token_ids_of_random_texts_are_gluonnlp_s(gluonnlp_vocabulary: Any) -> None:
    texts = random_texts(400)
    for text, example in zip(texts, tokenizer().encode(texts)):
        assert (example.token_ids, example.token_types) == gluonnlp_ids(gluonnlp_vocabulary, 400, text), repr(text)


@pytest.mark.parametrize("max_length", [3, 4, 7, 16])
def test_token_ids_of_a_truncated_text_are_gluonnlp_s(gluonnlp_vocabulary: Any, max_length: int) -> None:
    for text in TEXTS:
        example = encoded(text, max_length=max_length)
        assert (example.token_ids, example.token_types) == gluonnlp_ids(gluonnlp_vocabulary, max_length, text), text


def test_the_vocabulary_of_these_tests_knows_most_of_their_tokens() -> None:
    """Else equal ids would only mean equal numbers of [UNK]."""
    examples = tokenizer().encode(TEXTS)
    assert sum(example.unknown for example in examples) < 0.1 * sum(len(example.token_ids) for example in examples)


# The form of an example


def test_a_text_stands_between_cls_and_sep() -> None:
    example = encoded("The cats sat.")
    assert tokens(example) == ["[CLS]", "the", "cat", "##s", "sat", ".", "[SEP]"]
    assert example == Encoded(example.token_ids, [0] * 7, truncated=False, unknown=0)


def test_the_second_text_of_a_pair_has_token_type_one_with_its_sep() -> None:
    example = encoded("a cat", "the old dog")
    assert tokens(example) == ["[CLS]", "a", "cat", "[SEP]", "the", "old", "dog", "[SEP]"]
    assert example.token_types == [0, 0, 0, 0, 1, 1, 1, 1]


def test_unknown_words_are_counted() -> None:
    example = encoded("the ☃ cat ☃☃ ☃s")
    assert tokens(example).count("[UNK]") == example.unknown == 3


def test_the_name_of_a_special_token_in_a_text_is_text() -> None:
    example = encoded("[SEP] a [CLS][PAD]", "[UNK] [SEP]")
    words = tokens(example)
    assert [words.count(special) for special in ("[CLS]", "[SEP]", "[PAD]", "[UNK]")] == [1, 2, 0, 0]
    assert words[1:6] == ["[", "s", "##e", "##p", "]"]
    assert example.token_types == sorted(example.token_types)


def test_a_word_of_more_than_a_hundred_characters_is_unknown_as_in_hugging_face() -> None:
    """Hugging Face's limit; GluonNLP's is 200."""
    assert tokens(encoded("a" * 100)) == ["[CLS]", "a", *["##a"] * 99, "[SEP]"]
    assert tokens(encoded("a" * 101)) == ["[CLS]", "[UNK]", "[SEP]"]


def test_texts_are_encoded_in_their_order() -> None:
    texts = random_texts(50)
    assert tokenizer().encode(texts) == [encoded(text) for text in texts]


# Truncation


def counts(first: int, second: int, max_length: int) -> tuple[int, int]:
    """How many tokens are kept of two texts of so many tokens."""
    example = encoded(" ".join(WORDS[:first]), " ".join(WORDS[12 : 12 + second]), max_length)
    kept = tokens(example)
    end = kept.index("[SEP]")
    assert kept[1:end] == WORDS[: end - 1]
    assert kept[end + 1 : -1] == WORDS[12 : 12 + len(kept) - end - 2]
    assert example.truncated is (first + second + 3 > max_length)
    return end - 1, len(kept) - end - 2


def test_a_long_text_keeps_its_beginning() -> None:
    example = encoded(" ".join(WORDS[:10]), max_length=6)
    assert tokens(example) == ["[CLS]", *WORDS[:4], "[SEP]"]
    assert example.truncated


def test_a_text_that_just_fits_is_not_truncated() -> None:
    example = encoded(" ".join(WORDS[:4]), max_length=6)
    assert (len(example.token_ids), example.truncated) == (6, False)


@pytest.mark.parametrize(
    ("first", "second", "max_length", "kept"),
    [
        (3, 4, 10, (3, 4)),
        (8, 2, 10, (5, 2)),
        (2, 8, 10, (2, 5)),
        (8, 4, 11, (4, 4)),
        (9, 9, 11, (4, 4)),
        (9, 5, 9, (3, 3)),
        (1, 9, 5, (1, 1)),
        (9, 9, 5, (1, 1)),
    ],
)
def test_the_longer_text_of_a_pair_is_shortened_first(
    first: int, second: int, max_length: int, kept: tuple[int, int]
) -> None:
    assert counts(first, second, max_length) == kept


def test_truncated_pairs_are_as_long_as_they_may_be_and_balanced() -> None:
    for max_length in range(5, 16):
        for first in range(1, 10):
            for second in range(1, 10):
                kept = counts(first, second, max_length)
                room = max_length - 3
                assert sum(kept) == min(first + second, room)
                # A text is cut only if what is left of it is no shorter than the other one, give or take one.
                assert kept[0] == first or kept[0] >= kept[1] - 1
                assert kept[1] == second or kept[1] >= kept[0] - 1


def test_of_two_equally_long_texts_the_second_is_shortened_as_in_google_s_bert_and_gluonnlp(
    gluonnlp_vocabulary: Any,
) -> None:
    for max_length in range(5, 16):
        for first, second in ((3, 9), (6, 6), (9, 9), (9, 4), (4, 9)):
            text, pair = " ".join(WORDS[:first]), " ".join(WORDS[12 : 12 + second])
            example = encoded(text, pair, max_length)
            expected, _ = gluonnlp_ids(gluonnlp_vocabulary, max_length, text, pair)
            assert tokens(example) == [WIDE.tokens[number] for number in expected], (max_length, first, second)


@pytest.mark.parametrize("max_length", [0, 1, 2])
def test_a_length_without_room_for_a_token_is_an_error(max_length: int) -> None:
    with pytest.raises(UsageError, match=f"^max length {max_length} is too short, 3 is the least$"):
        tokenizer(max_length).encode(["cat"])
    assert tokens(encoded("cat dog", max_length=3)) == ["[CLS]", "cat", "[SEP]"]


@pytest.mark.parametrize("max_length", [2, 3, 4])
def test_a_length_without_room_for_a_token_of_each_text_is_an_error(max_length: int) -> None:
    """GluonNLP fails with an IndexError or gives a pair with an empty text."""
    with pytest.raises(UsageError, match=f"^max length {max_length} is too short, 5 is the least$"):
        tokenizer(max_length).encode(["cat"], ["dog"])
    assert tokens(encoded("cat dog", "bird", 5)) == ["[CLS]", "cat", "[SEP]", "bird", "[SEP]"]


# Normalisation


CASED = Vocabulary((*VOCABULARY, "Café", "Cafe", "café", "cafe", "中文", "中", "文"))


def test_a_cased_vocabulary_keeps_accents_where_gluonnlp_strips_them_all_the_same() -> None:
    """Google's cased models were trained with accents; GluonNLP's ``lower=False`` still strips them."""
    example = encoded("Café", vocabulary=CASED, lower_case=False)
    assert tokens(example, CASED)[1:-1] == ["Café"]
    theirs = nlp.data.BERTTokenizer(nlp.vocab.BERTVocab.from_json(CASED.to_gluonnlp_json()), lower=False)
    assert theirs("Café") == ["Cafe"]


@pytest.mark.parametrize(
    ("lower_case", "strip_accents", "expected"),
    [
        (True, None, "cafe"),
        (False, None, "Café"),
        (True, False, "café"),
        (True, True, "cafe"),
        (False, True, "Cafe"),
        (False, False, "Café"),
    ],
)
def test_accents_are_stripped_as_asked_or_as_the_case(
    lower_case: bool, strip_accents: bool | None, expected: str
) -> None:
    example = encoded("Café", vocabulary=CASED, lower_case=lower_case, strip_accents=strip_accents)
    assert tokens(example, CASED)[1:-1] == [expected]


def test_chinese_characters_are_words_unless_that_is_switched_off() -> None:
    assert tokens(encoded("中文", vocabulary=CASED), CASED)[1:-1] == ["中", "文"]
    assert tokens(encoded("中文", vocabulary=CASED, split_chinese=False), CASED)[1:-1] == ["中文"]


# What is refused


def test_a_sentencepiece_vocabulary_can_t_be_tokenised() -> None:
    with pytest.raises(ModelError, match="need a sentencepiece tokenizer, which bertsym does not have"):
        tokenizer(kind="sentencepiece")


@pytest.mark.parametrize("text", ["\x00\x07", "\u200d\u200b", "\ufeff\ufffd", "\u0301"])
def test_a_text_without_any_token_is_named_with_its_line(text: str) -> None:
    rows = [Row(2, "the cat"), Row(7, text), Row(8, "a dog")]
    with pytest.raises(DataError, match=r"^t\.tsv, line 7: a text without any token"):
        encode_rows(rows, tokenizer(), "t.tsv")
    assert len(encode_rows([rows[0], rows[2]], tokenizer(), "t.tsv")) == 2


@pytest.mark.parametrize(("first", "second"), [("\u200d", "a dog"), ("a dog", "\u200d"), ("\x07", "\x07")])
def test_a_pair_without_any_token_on_one_side_is_named_with_its_line(first: str, second: str) -> None:
    rows = [Row(2, "the cat", "sat"), Row(4, first, second)]
    with pytest.raises(DataError, match=r"^t\.tsv, line 4: a text without any token"):
        encode_rows(rows, tokenizer(), "t.tsv")


def test_half_a_surrogate_pair_is_refused_with_its_line() -> None:
    """It comes from ``--text`` when the terminal's bytes are no UTF-8, and from JSON."""
    with pytest.raises(DataError, match=r"^t\.tsv, line 4: "):
        encode_rows([Row(2, "the cat"), Row(4, "a \udce9 b")], tokenizer(), "t.tsv")
