"""Tokenisation: the ids of GluonNLP's BERTTokenizer and BERTSentenceTransform, truncation, normalisation, templates."""

from __future__ import annotations

import functools
import json
import random
import re
import string
import unicodedata
from typing import Any

import pytest
from conftest import VOCABULARY, WORDS
from tokenizer_documents import TOKENS, added_token, document, steps

from bertsym import DataError, ModelError, UsageError
from bertsym.json_reader import JsonValue
from bertsym.mxnet_runtime import nlp
from bertsym.text import cutting
from bertsym.text.features import encode_each
from bertsym.text.pipeline import Pipeline, check_vocabulary
from bertsym.text.tables import Row
from bertsym.text.tokenizer import Encoded, Tokenizer, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary
from bertsym.text.wordpiece import bert_document

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


@functools.lru_cache
def tokenizer(max_length: int = 400, vocabulary: Vocabulary = WIDE, **options: Any) -> Tokenizer:
    """Of a vocabulary; words such as ``[SEP]`` are text, as in GluonNLP."""
    how = TokenizerOptions(**{"lower_case": True, "literal_special_tokens": True, **options})
    return Tokenizer(json.dumps(bert_document(vocabulary, how)), "tokenizer.json", how, max_length)


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


def test_a_text_is_between_cls_and_sep() -> None:
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


def test_the_name_of_a_special_token_in_a_text_is_that_token() -> None:
    example = encoded("the[SEP]a [CLS][PAD]", "[UNK] [mask]", literal_special_tokens=False)
    assert " ".join(tokens(example)) == "[CLS] the [SEP] a [CLS] [PAD] [SEP] [UNK] [ m ##a ##s ##k ] [SEP]"
    assert example.token_types == [0] * 7 + [1] * 8
    assert example.unknown == 1


def test_the_name_of_a_special_token_is_text_when_it_is_literal() -> None:
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


def test_a_text_of_exactly_the_maximum_length_is_not_truncated() -> None:
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
                # A truncated text is at most one token shorter than the other text.
                assert kept[0] == first or kept[0] >= kept[1] - 1
                assert kept[1] == second or kept[1] >= kept[0] - 1


def test_the_second_of_two_equally_long_texts_is_truncated_as_in_google_s_bert_and_gluonnlp(
    gluonnlp_vocabulary: Any,
) -> None:
    for max_length in range(5, 16):
        for first, second in ((3, 9), (6, 6), (9, 9), (9, 4), (4, 9)):
            text, pair = " ".join(WORDS[:first]), " ".join(WORDS[12 : 12 + second])
            example = encoded(text, pair, max_length)
            expected, _ = gluonnlp_ids(gluonnlp_vocabulary, max_length, text, pair)
            assert tokens(example) == [WIDE.tokens[number] for number in expected], (max_length, first, second)


@pytest.mark.parametrize("max_length", [0, 1, 2])
def test_a_length_without_space_for_a_token_is_an_error(max_length: int) -> None:
    with pytest.raises(UsageError, match=f"^max length {max_length} is too short: the minimum is 3$"):
        tokenizer(max_length).encode(["cat"])
    assert tokens(encoded("cat dog", max_length=3)) == ["[CLS]", "cat", "[SEP]"]


@pytest.mark.parametrize("max_length", [2, 3, 4])
def test_a_length_without_space_for_a_token_of_each_text_is_an_error(max_length: int) -> None:
    """GluonNLP fails with an IndexError or gives a pair with an empty text."""
    with pytest.raises(UsageError, match=f"^max length {max_length} is too short: the minimum is 5$"):
        tokenizer(max_length).encode(["cat"], ["dog"])
    assert tokens(encoded("cat dog", "bird", 5)) == ["[CLS]", "cat", "[SEP]", "bird", "[SEP]"]


# Normalisation


CASED = Vocabulary((*VOCABULARY, "Café", "Cafe", "café", "cafe", "中文", "中", "文"))


def test_a_cased_vocabulary_keeps_accents_which_gluonnlp_strips() -> None:
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


def failures(rows: list[Row], whole: Tokenizer) -> list[str]:
    """The messages about rows that can't be tokenised."""
    return [str(found) for found in encode_each(rows, whole, "t.tsv") if isinstance(found, DataError)]


@pytest.mark.parametrize("pair", [False, True])
def test_a_text_that_can_t_be_cut_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, pair: bool) -> None:
    monkeypatch.setattr(cutting, "LONGEST", 9000)
    described = json.dumps(document(None, None))
    whole = Tokenizer(described, "tokenizer.json", TokenizerOptions(lower_case=True), 20)
    rows = [Row(2, "cat", "cat"), Row(4, "cat", "a" * 10_000) if pair else Row(4, "a" * 10_000, "cat")]
    assert failures(rows, whole)[0].startswith("t.tsv, line 4: a text of 10000 characters is too long for")


# Long texts


def test_long_texts_are_truncated_as_whole_texts_are(gluonnlp_vocabulary: Any) -> None:
    """No more of them is tokenised than what decides the outcome."""
    texts = {"the cat, " * 600: 1800, " " * 5000 + "cat sat": 2, "x" * 5000 + " flew": 2}
    for max_length in (6, 12):
        for text, count in texts.items():
            for pair, pair_count in texts.items():
                example = encoded(text, pair, max_length)
                expected = gluonnlp_ids(gluonnlp_vocabulary, max_length, text, pair)
                assert (example.token_ids, example.token_types) == expected
                assert example.truncated is (count + pair_count + 3 > max_length)


# Templates


def special(token: str, token_type: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": token_type}}


def sequence(text: str, token_type: int) -> dict[str, Any]:
    return {"Sequence": {"id": text, "type_id": token_type}}


def templated(processor: Any, max_length: int = 20, segments: int = 2) -> Tokenizer:
    described = {**document(), "post_processor": processor}
    options = TokenizerOptions(lower_case=True, segments=segments)
    return Tokenizer(json.dumps(described), "tokenizer.json", options, max_length)


ROBERTA: dict[str, Any] = {"type": "RobertaProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 3]}
ROBERTA |= {"trim_offsets": True, "add_prefix_space": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
TWICE = {
    "type": "TemplateProcessing",
    "single": [special("[CLS]", 0), sequence("A", 1), special("two", 1)],
    "pair": [sequence("A", 0), special("two", 1), special("[CLS]", 0), sequence("B", 1)],
    "special_tokens": {
        "[CLS]": {"id": "[CLS]", "ids": [3], "tokens": ["[CLS]"]},
        "two": {"id": "two", "ids": [4, 5], "tokens": ["[SEP]", "[MASK]"]},
    },
}


@pytest.mark.parametrize(
    ("processor", "single", "pair"),
    [
        (ROBERTA, ("C A S", "0 0 0"), ("C A S S B S", "0 0 0 0 0 0")),
        ({"type": "Sequence", "processors": [BYTES, ROBERTA]}, ("C A S", "0 0 0"), None),
        ({"type": "BertProcessing", "sep": ["", 4], "cls": ["", 3]}, ("C A S", "0 0 0"), ("C A S B S", "0 0 0 1 1")),
        (TWICE, ("C A S M", "0 1 1 1"), ("A S M C B", "0 1 1 0 1")),
        (None, ("A", "0"), ("A B", "0 1")),
    ],
    ids=["RoBERTa", "Sequence", "BERT", "template", "none"],
)
def test_texts_and_special_tokens_follow_the_template(
    processor: Any, single: tuple[str, str], pair: tuple[str, str] | None
) -> None:
    ids = {"A": TOKENS.index("the"), "B": TOKENS.index("cat"), "C": 3, "S": 4, "M": 5}
    found = templated(processor)
    for layout, example in ((single, found.encode(["the"])[0]), (pair, found.encode(["the"], ["cat"])[0])):
        if layout is not None:
            assert example.token_ids == [ids[letter] for letter in layout[0].split()]
            assert example.token_types == [int(number) for number in layout[1].split()]


def test_special_tokens_of_the_template_count_towards_the_length() -> None:
    example = templated(ROBERTA, 9).encode(["the cat the cat"], ["cat " * 9])[0]
    assert example.token_types == [0] * 9
    assert example.token_ids.count(4) == 3
    assert example.truncated
    with pytest.raises(UsageError, match=r"^max length 5 is too short: the minimum is 6$"):
        templated(ROBERTA, 5).encode(["the"], ["cat"])


def test_a_model_of_one_segment_has_one_token_type() -> None:
    assert templated(TWICE, segments=1).encode(["the"], ["cat"])[0].token_types == [0] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "Foo"}}, 'model.type: "Foo" is not one of "WordPiece", "BPE", "Unigram"'),
        ({"normalizer": {"type": "Foo"}}, 'normalizer.type: "Foo" is not one of'),
        ({"normalizer": steps("NFC", steps("Foo"))}, 'normalizer.normalizers[1].normalizers[0].type: "Foo" is not one'),
        ({"pre_tokenizer": {"type": "Foo"}}, 'pre_tokenizer.type: "Foo" is not one of'),
        ({"pre_tokenizer": {"type": "Split"}}, "can't read it (version "),
        ({"normalizer": [1]}, "normalizer: an array is not an object"),
        ({"post_processor": {"type": "Foo"}}, 'post_processor.type: "Foo" is not one of'),
        ({"post_processor": {**TWICE, "single": [sequence("B", 0)]}}, "post_processor.single: expected A once each"),
        ({"post_processor": {**TWICE, "pair": [sequence("B", 0), sequence("A", 0)]}}, "expected A and B once each"),
        ({"post_processor": {**TWICE, "single": [sequence("A", 2)]}}, "post_processor: token type 2, at most 1"),
        ({"post_processor": {**TWICE, "single": [special("x", 0)]}}, "post_processor.single[0]: expected a Sequence"),
        ({"post_processor": {"type": "Sequence", "processors": [ROBERTA, ROBERTA]}}, "2 post-processors that add"),
        ({"added_tokens": [added_token(7, "[E1]")]}, f"'[E1]' has the id 7, but tokenizers gives it {len(TOKENS)}"),
        ({"model": {**document()["model"], "unk_token": "<unk>"}}, "model.unk_token: '<unk>' is not in the vocabulary"),
        ({"model": {**document()["model"], "vocab": {"[UNK]": -1}}}, "can't read it (version "),
        ({"model": {**document()["model"], "max_input_chars_per_word": 1001}}, "1001 is not in the range 1 to 1000"),
        ({"model": {**document()["model"], "dropout": 0.1}}, "model.dropout: random tokenization is not supported"),
    ],
)
def test_a_document_that_can_t_be_run_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"^tokenizer.json: .*{re.escape(message)}"):
        Pipeline({**document(), **change}, "tokenizer.json")


@pytest.mark.parametrize("count", [1, 20])
def test_a_text_on_which_tokenizers_panics_is_an_error_that_names_the_file(count: int) -> None:
    endless = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    pipeline = Pipeline({**document(), "pre_tokenizer": endless}, "tokenizer.json")
    with pytest.raises(ModelError, match=r"^tokenizer\.json: tokenizers can't encode a text \(version .*\): "):
        pipeline.encode(["x" * 40] * count)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"added_tokens": [added_token(len(TOKENS), "[E1]")]}, f"token '[E1]' has the id {len(TOKENS)},"),
        ({"added_tokens": [added_token(7, "cat")]}, "added_tokens[0]: 'cat' has the id 7, but "),
        ({"model": {"type": "WordPiece", "vocab": {"cat": "x"}}}, "model.vocab.cat: 'x' is not a token id"),
        ({"model": {"type": "WordPiece", "vocab": {"cat": 8}}}, "token 'cat' has the id 8, which differs from the "),
        ({"post_processor": {"type": "BertProcessing", "sep": ["", 4], "cls": ["", 9999]}}, "post_processor: id 9999"),
    ],
)
def test_a_document_must_have_the_ids_of_the_vocabulary(change: dict[str, Any], message: str | None) -> None:
    described = JsonValue({**document(), **change}, "tokenizer.json")
    if message is None:
        check_vocabulary(described, Vocabulary(tuple(TOKENS)))
        return
    with pytest.raises(ModelError, match=f"^tokenizer.json: {re.escape(message)}"):
        check_vocabulary(described, Vocabulary(tuple(TOKENS)))


@pytest.mark.parametrize("text", ["\x00\x07", "\u200d\u200b", "\ufeff\ufffd", "\u0301"])
def test_a_text_without_any_token_is_named_with_its_line(text: str) -> None:
    rows = [Row(2, "the cat"), Row(7, text), Row(8, "a dog")]
    assert failures(rows, tokenizer())[0].startswith("t.tsv, line 7: a text without tokens")
    assert failures([rows[0], rows[2]], tokenizer()) == []


@pytest.mark.parametrize(("first", "second"), [("\u200d", "a dog"), ("a dog", "\u200d"), ("\x07", "\x07")])
def test_a_pair_without_any_token_on_one_side_is_named_with_its_line(first: str, second: str) -> None:
    rows = [Row(2, "the cat", "sat"), Row(4, first, second)]
    assert failures(rows, tokenizer())[0].startswith("t.tsv, line 4: a text without tokens")


def test_a_lone_surrogate_is_refused_with_its_line() -> None:
    """Lone surrogates come from JSON, and from ``--text`` if the terminal does not send UTF-8."""
    assert failures([Row(2, "the cat"), Row(4, "a \udce9 b")], tokenizer())[0].startswith("t.tsv, line 4: ")
