"""Tokenizer documents of a small vocabulary that can spell any ASCII text, and texts that are hard to tokenise."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any

_CHARACTERS = [*string.ascii_lowercase, *string.digits, *"éß中文"]
SPECIAL = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORDS = ["The", "the", "cat", "café", "##at"]
TOKENS = [*SPECIAL, *string.punctuation, *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS), *_WORDS]

BERT = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
CASED = {**BERT, "lowercase": False, "strip_accents": False}
WORDS = {"type": "BertPreTokenizer"}


def steps(*components: str | dict[str, Any]) -> dict[str, Any]:
    """A Sequence of normalizers or of pre-tokenizers."""
    listed = [{"type": component} if isinstance(component, str) else component for component in components]
    return {"type": "Sequence", "normalizers": listed, "pretokenizers": listed}


def digits(individual: bool = True) -> dict[str, Any]:
    return {"type": "Digits", "individual_digits": individual}


def added_token(number: int, content: str, *flags: str) -> dict[str, Any]:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": content, **{name: name in flags for name in names}}


def document(
    normalizer: Any = BERT,
    pre_tokenizer: Any = WORDS,
    added: Sequence[tuple[str, ...]] = (),
    tokens: Sequence[str] = TOKENS,
    **model: Any,
) -> dict[str, Any]:
    """A WordPiece document with BERT's template; `added` tokens follow those of the vocabulary."""
    cls, sep = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    single = [cls, {"Sequence": {"id": "A", "type_id": 0}}, sep]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    special = [added_token(tokens.index(token), token, "special") for token in SPECIAL if token != "[unused1]"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*special, *(added_token(len(tokens) + i, *token) for i, token in enumerate(added))],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, *second],
            "special_tokens": {
                token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: i for i, token in enumerate(tokens)},
            **model,
        },
    }


TEXTS = [
    "the cat sat on the mat.",
    "The CAT's cafés -- café, CAFÉ and cafe\u0301!?",
    "in 2024: 3.14, 1e-5 and ½ of ²",
    "[CLS] a [SEP] [MASK]s [mask] [UNK][PAD] ##s [unused1]",
    "an [E1] tall [/E1] <subj>the cat</subj>, [e1]<SUBJ>, x[E1]x and <sub\x00j>",
    "中文汉字 mixed中with文latin 日本の texts。\uff0c\uff01",
    "한국어 words and אבג and αβγ Σς İı ß ǅ ﬁ",
    "emoji 😀 👩\u200d👩\u200d👧 cat🎉dog ☃\ufe0f",
    "control \x00 a\x01b \x07 c\x7fd \u200bzero\u200dwidth\ufeffmark \ufffd soft\u00adhyphen",
    "spaces:\u00a0no-break \u2003em \u3000wide \u2028line \u2029paragraph\ttab\nline\r\nend \x0b\x0c\x85",
    "  leading, trailing and   many   ",
    "a" * 100 + " " + "a" * 101,
]

_ALPHABETS = [
    "abcdefg",
    "ABCé É",
    "  \t\n\u00a0\u2003\u3000\u2028",
    "\x00\x07\x0b\x85\u200d\ufeff\ufffd",
    "\u0301\u0323\u0338\u20dd\u302e",
    "中文日ー한국어",
    "..,,!?[]<>-_=;:≠…。",
    "0123½²",
    "İßΣςǅﬁ😀\u0903\u0e31\u0e33",
]


def random_text(rng: random.Random, words: Sequence[str]) -> str:
    """A text of some of `words` and of characters of all kinds, in runs of up to thousands of one of them."""
    parts = []
    for _ in range(rng.randint(1, 14)):
        kind = rng.random()
        alphabet = rng.choice(_ALPHABETS)
        if kind < 0.35:
            parts.append(rng.choice(words))
        elif kind < 0.5:
            parts.append(rng.choice(alphabet) * rng.choice([1, 2, 5, 30, 90, 300, 2000]))
        elif kind < 0.55:
            parts.append("".join(rng.choices(alphabet + rng.choice(_ALPHABETS), k=rng.choice([40, 400, 3000]))))
        else:
            parts.append("".join(rng.choices(alphabet, k=rng.randint(1, 8))))
        parts += [" "] if rng.random() < 0.3 else []
    return "".join(parts)
