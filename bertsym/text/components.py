"""Components of a tokenizer document: which are supported, and where a text may be cut before them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Union

from bertsym.json_reader import JsonValue

_Rule = Union[str, Callable[[JsonValue], str]]


def _replace_locality(step: JsonValue) -> str:
    """A pattern that does not match the end of a word and the space after it, together, allows to cut there."""
    pattern = step["pattern"].object()
    text = pattern.get("String")
    is_local = isinstance(text, str) and text and not any(map(str.isspace, text))
    return "spaces" if is_local or pattern == {"Regex": " {2,}"} else "text"


# Components -> the Locality that they allow.
_NORMALIZERS: dict[str, _Rule] = {
    # Normalise one character at a time, apart from the order of combining marks.
    "BertNormalizer": "characters",
    "Lowercase": "characters",
    "NFD": "characters",
    "NFKD": "characters",
    "StripAccents": "characters",
    # Characters may combine with their neighbours, except white space.
    "NFC": "words",
    "NFKC": "words",
    # Characters may combine with the white space after them.
    "Precompiled": "spaces",
    "Replace": _replace_locality,
    "Strip": lambda step: "text" if step["strip_left"].boolean() else "spaces",
    # May depend on the whole text.
    "ByteLevel": "text",
    "Nmt": "text",
    "Prepend": "text",
}
_PRE_TOKENIZERS: dict[str, _Rule] = {
    "BertPreTokenizer": "characters",
    "Digits": "characters",
    "Punctuation": "characters",
    "Whitespace": "characters",
    "WhitespaceSplit": "characters",
    # A space begins the word after it.
    "ByteLevel": lambda step: "spaces" if step.get("use_regex", True).boolean() else "text",
    "Metaspace": lambda step: "spaces" if step.get("split", True).boolean() else "text",
    "CharDelimiterSplit": "text",
    "FixedLength": "text",
    "Split": "text",
    "UnicodeScripts": "text",
}
_SPLITS_AT_SPACES = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Metaspace")
_ORDER = ("text", "spaces", "words", "characters")  # the fewest places to cut first


class Locality(enum.Enum):
    """Where a text may be cut without changing its tokens."""

    CHARACTERS = "characters"  #: next to white space and to characters that are words of their own
    WORDS = "words"  #: next to white space
    SPACES = "spaces"  #: before a space that follows another character
    TEXT = "text"  #: nowhere


def read_locality(document: JsonValue) -> Locality:
    """Check that every component of a document is supported; raises an error that names the file and the key."""
    normalizers = _steps(document["normalizer"], "normalizers", _NORMALIZERS)
    pre_tokenizers = _steps(document["pre_tokenizer"], "pretokenizers", _PRE_TOKENIZERS)
    found = {locality for _, locality in (*normalizers, *pre_tokenizers)}
    if not any(kind in _SPLITS_AT_SPACES for kind, _ in pre_tokenizers):
        return Locality.TEXT
    return Locality(next(locality for locality in _ORDER if locality in found))


def _steps(component: JsonValue, key: str, known: Mapping[str, _Rule]) -> list[tuple[str, str]]:
    """List the type and the locality of a component, or of the steps of a Sequence."""
    if component.is_null:
        return []
    kind = component["type"].choice("Sequence", *known)
    if kind != "Sequence":
        rule = known[kind]
        return [(kind, rule if isinstance(rule, str) else rule(component))]
    return [step for element in component[key].elements() for step in _steps(element, key, known)]
