"""Convert between BERT's tokenizer options and tokenizer documents, the format of Hugging Face's ``tokenizers``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bertsym.json_reader import JsonValue
from bertsym.text.template import read_template
from bertsym.text.tokenizer import TOKENIZER_JSON, WORDPIECE, TokenizerOptions
from bertsym.text.vocabulary import BERT_TOKENS, Vocabulary

BERT_PRE_TOKENIZER = {"type": "BertPreTokenizer"}
MAX_WORD = 100  #: characters of a word; a longer word is [UNK]
#: flags of an added token in a tokenizer document
ADDED_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def bert_normalizer(options: TokenizerOptions) -> dict[str, Any]:
    """Return BERT's normalizer."""
    return {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": options.split_chinese,
        "strip_accents": options.strip_accents,
        "lowercase": options.lower_case,
    }


def bert_template(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return BERT's post-processor: ``[CLS] A [SEP]`` and ``[CLS] A [SEP] B [SEP]``."""
    cls, sep = (vocabulary.special_tokens[role] for role in ("cls", "sep"))

    def special(token: str, token_type: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": token_type}}

    single = [special(cls, 0), {"Sequence": {"id": "A", "type_id": 0}}, special(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}, special(sep, 1)],
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary.index(token)], "tokens": [token]} for token in (cls, sep)
        },
    }


def added_token(content: str, number: int, flags: Mapping[str, bool]) -> dict[str, Any]:
    """Return an element of ``added_tokens``; absent flags are false."""
    return {"id": number, "content": content, **{flag: flags.get(flag, False) for flag in ADDED_TOKEN_FLAGS}}


def bert_document(vocabulary: Vocabulary, options: TokenizerOptions) -> dict[str, Any]:
    """Return the document that transformers' BertTokenizer creates for a vocabulary."""
    special = sorted((number, vocabulary.tokens[number]) for number in {*vocabulary.special_ids.values()})
    return {
        **wordpiece_document(vocabulary.tokens, vocabulary.special_tokens["unk"]),
        "added_tokens": [added_token(token, number, {"special": True}) for number, token in special],
        "normalizer": bert_normalizer(options),
        "pre_tokenizer": BERT_PRE_TOKENIZER,
        "post_processor": bert_template(vocabulary),
    }


def wordpiece_document(tokens: Sequence[str], unknown: str) -> dict[str, Any]:
    """Return a document with a WordPiece model, and without components and added tokens."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_WORD,
            "vocab": {token: number for number, token in enumerate(tokens)},
        },
    }


def read_options(document: JsonValue, vocabulary: Vocabulary, literal_special_tokens: bool) -> TokenizerOptions:
    """Read the tokenizer options of a document, for programs that know only BERT's own pipeline."""
    steps = _steps(document["normalizer"])
    bert = [step for step in steps if step["type"].raw == "BertNormalizer"]
    kinds = [step["type"].raw for step in steps]
    strip = next((step["strip_accents"].raw for step in bert), "StripAccents" in kinds)
    options = TokenizerOptions(
        model=document["model"]["type"].text(),
        lower_case="Lowercase" in kinds or any(step["lowercase"].boolean() for step in bert),
        strip_accents=strip,
        split_chinese=any(step["handle_chinese_chars"].boolean() for step in bert),
        literal_special_tokens=literal_special_tokens,
    )
    added = {token["content"].raw for token in document["added_tokens"].elements()}
    is_plain = added <= {*vocabulary.special_tokens.values()} and _is_bert(document, vocabulary, options)
    return dataclasses.replace(options, kind=WORDPIECE if is_plain else TOKENIZER_JSON)


def _is_bert(document: JsonValue, vocabulary: Vocabulary, options: TokenizerOptions) -> bool:
    """Whether a document is BERT's pipeline with these options."""
    special, model = vocabulary.special_tokens, document["model"]
    return (
        model["type"].raw == "WordPiece"
        and special == {role: BERT_TOKENS.get(role) for role in special}
        and model["unk_token"].raw == special["unk"]
        and model["max_input_chars_per_word"].raw == MAX_WORD
        and document["normalizer"].raw == bert_normalizer(options)
        and document["pre_tokenizer"].raw == BERT_PRE_TOKENIZER
        and read_template(document["post_processor"])
        == read_template(JsonValue(bert_template(vocabulary), document.where))
    )


def _steps(normalizer: JsonValue) -> list[JsonValue]:
    if normalizer.is_null:
        return []
    if normalizer["type"].raw != "Sequence":
        return [normalizer]
    return [step for element in normalizer["normalizers"].elements() for step in _steps(element)]
