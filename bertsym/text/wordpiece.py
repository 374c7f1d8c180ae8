"""Convert between BERT's tokenizer options and tokenizer documents, the format of Hugging Face's ``tokenizers``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bertsym.json_reader import JsonValue
from bertsym.text.template import read_template
from bertsym.text.tokenizer import TOKENIZER_JSON, WORDPIECE, TokenizerOptions
from bertsym.text.vocabulary import Vocabulary

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


def bert_template(cls: int, sep: int) -> dict[str, Any]:
    """Return BERT's post-processor: ``[CLS] A [SEP]`` and ``[CLS] A [SEP] B [SEP]``."""

    def special(token: str, token_type: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": token_type}}

    single = [special("[CLS]", 0), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]", 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}, special("[SEP]", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]}
            for token, number in (("[CLS]", cls), ("[SEP]", sep))
        },
    }


def added_token(content: str, number: int, flags: Mapping[str, bool]) -> dict[str, Any]:
    """Return an element of ``added_tokens``; absent flags are false."""
    return {"id": number, "content": content, **{flag: flags.get(flag, False) for flag in ADDED_TOKEN_FLAGS}}


def bert_document(vocabulary: Vocabulary, options: TokenizerOptions) -> dict[str, Any]:
    """Return the document that transformers' BertTokenizer creates for a vocabulary."""
    index = {token: i for i, token in enumerate(vocabulary.tokens)}
    special = sorted((index[token], token) for token in vocabulary.special_tokens.values())
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(token, number, {"special": True}) for number, token in special],
        "normalizer": bert_normalizer(options),
        "pre_tokenizer": BERT_PRE_TOKENIZER,
        "post_processor": bert_template(index["[CLS]"], index["[SEP]"]),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_WORD,
            "vocab": index,
        },
    }


def read_options(document: JsonValue, vocabulary: Vocabulary, literal_special_tokens: bool) -> TokenizerOptions:
    """Read the tokenizer options of a document, for programs that know only BERT's own pipeline."""
    steps = _steps(document["normalizer"])
    bert = [step for step in steps if step["type"].raw == "BertNormalizer"]
    kinds = [step["type"].raw for step in steps]
    strip = next((step["strip_accents"].raw for step in bert), "StripAccents" in kinds)
    options = TokenizerOptions(
        lower_case="Lowercase" in kinds or any(step["lowercase"].boolean() for step in bert),
        strip_accents=strip,
        split_chinese=any(step["handle_chinese_chars"].boolean() for step in bert),
        literal_special_tokens=literal_special_tokens,
    )
    added = {token["content"].raw for token in document["added_tokens"].elements()}
    is_plain = not differences(document, vocabulary, options) and added <= {*vocabulary.special_tokens.values()}
    return dataclasses.replace(options, kind=WORDPIECE if is_plain else TOKENIZER_JSON)


def differences(document: JsonValue, vocabulary: Vocabulary, options: TokenizerOptions) -> list[str]:
    """List the parts of a WordPiece document that differ from BERT's pipeline with these options."""
    bert = JsonValue(bert_template(vocabulary.index("[CLS]"), vocabulary.index("[SEP]")), document.where)
    same = {
        "normalizer": document["normalizer"].raw == bert_normalizer(options),
        "pre_tokenizer": document["pre_tokenizer"].raw == BERT_PRE_TOKENIZER,
        "post_processor": read_template(document["post_processor"]) == read_template(bert),
        "max_input_chars_per_word": document["model"]["max_input_chars_per_word"].raw == MAX_WORD,
    }
    return [part for part, is_same in same.items() if not is_same]


def _steps(normalizer: JsonValue) -> list[JsonValue]:
    if normalizer.is_null:
        return []
    if normalizer["type"].raw != "Sequence":
        return [normalizer]
    return [step for element in normalizer["normalizers"].elements() for step in _steps(element)]
