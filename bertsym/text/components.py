"""The components of a tokenizer document: which are supported, and where they let a text be cut."""

from __future__ import annotations

import enum

from bertsym.json_reader import JsonValue

# Kinds of components, by what is needed to cut a text without changing its tokens.
_NORMALIZERS = {
    # One character at a time, apart from the order of combining marks.
    "BertNormalizer": "characters",
    "Lowercase": "characters",
    "NFD": "characters",
    "NFKD": "characters",
    "StripAccents": "characters",
    # Characters may combine with their neighbours, but not with white space.
    "NFC": "words",
    "NFKC": "words",
    # Not looked into.
    "ByteLevel": "text",
    "Nmt": "text",
    "Precompiled": "text",
    "Prepend": "text",
    "Replace": "text",
    "Strip": "text",
}
_PRE_TOKENIZERS = {
    "BertPreTokenizer": "characters",
    "Digits": "characters",
    "Punctuation": "characters",
    "Whitespace": "characters",
    "WhitespaceSplit": "characters",
    "ByteLevel": "text",
    "CharDelimiterSplit": "text",
    "FixedLength": "text",
    "Metaspace": "text",
    "Split": "text",
    "UnicodeScripts": "text",
}
_SPLITS_AT_SPACES = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_MODELS = ("WordPiece", "WordLevel", "BPE", "Unigram")


class Locality(enum.Enum):
    """Where a pipeline lets a text be cut."""

    CHARACTERS = "characters"  #: beside white space, and beside characters that are words of their own
    WORDS = "words"  #: beside white space
    TEXT = "text"  #: nowhere


def read_locality(document: JsonValue) -> Locality:
    """Check that every component of a document is supported; raises an error that names the file and the key."""
    model = document["model"]
    model["type"].choice(*_MODELS)
    if model.get("dropout").raw is not None:
        raise model["dropout"].fault("random tokenization is not supported, expected null")
    normalizers = _steps(document["normalizer"], "normalizers", _NORMALIZERS)
    pre_tokenizers = _steps(document["pre_tokenizer"], "pretokenizers", _PRE_TOKENIZERS)
    found = {_NORMALIZERS[kind] for kind in normalizers} | {_PRE_TOKENIZERS[kind] for kind in pre_tokenizers}
    if "text" in found or not any(kind in _SPLITS_AT_SPACES for kind in pre_tokenizers):
        return Locality.TEXT
    return Locality.WORDS if "words" in found else Locality.CHARACTERS


def _steps(component: JsonValue, key: str, known: dict[str, str]) -> list[str]:
    """The types of a component's steps, those of a Sequence one after the other."""
    if component.is_null:
        return []
    kind = component["type"].choice("Sequence", *known)
    if kind != "Sequence":
        return [kind]
    return [step for element in component[key].elements() for step in _steps(element, key, known)]
