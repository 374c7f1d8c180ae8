"""Components of a tokenizer document: which are supported, and where a text may be cut before them."""

from __future__ import annotations

import enum

from bertsym.json_reader import JsonValue

# Components -> the Locality that they allow.
_NORMALIZERS = {
    # Normalise one character at a time, apart from the order of combining marks.
    "BertNormalizer": "characters",
    "Lowercase": "characters",
    "NFD": "characters",
    "NFKD": "characters",
    "StripAccents": "characters",
    # Characters may combine with their neighbours, except white space.
    "NFC": "words",
    "NFKC": "words",
    # May depend on the whole text.
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


class Locality(enum.Enum):
    """Where a text may be cut without changing its tokens."""

    CHARACTERS = "characters"  #: next to white space and to characters that are words of their own
    WORDS = "words"  #: next to white space
    TEXT = "text"  #: nowhere


def read_locality(document: JsonValue) -> Locality:
    """Check that every component of a document is supported; raises an error that names the file and the key."""
    normalizers = _steps(document["normalizer"], "normalizers", _NORMALIZERS)
    pre_tokenizers = _steps(document["pre_tokenizer"], "pretokenizers", _PRE_TOKENIZERS)
    found = {_NORMALIZERS[kind] for kind in normalizers} | {_PRE_TOKENIZERS[kind] for kind in pre_tokenizers}
    if "text" in found or not any(kind in _SPLITS_AT_SPACES for kind in pre_tokenizers):
        return Locality.TEXT
    return Locality.WORDS if "words" in found else Locality.CHARACTERS


def _steps(component: JsonValue, key: str, known: dict[str, str]) -> list[str]:
    """List the type of a component, or the types of the steps of a Sequence."""
    if component.is_null:
        return []
    kind = component["type"].choice("Sequence", *known)
    if kind != "Sequence":
        return [kind]
    return [step for element in component[key].elements() for step in _steps(element, key, known)]
