"""Added tokens of a Hugging Face folder, from all files that name them, with the ids that transformers assigns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bertsym.json_reader import JsonValue
from bertsym.text.wordpiece import ADDED_TOKEN_FLAGS, added_token

# Keys of special tokens, in the order in which transformers adds their tokens
_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTS = ("additional_special_tokens", "extra_special_tokens")
_MAX_ID = 1 << 31

Flags = Mapping[str, bool]


@dataclass(frozen=True)
class SpecialToken:
    """A token that a file names as special."""

    content: str
    key: str  #: such as ``mask_token``, or the key of a list
    flags: Flags
    where: str | None  #: the file; None for the default of the class


@dataclass
class AddedTokens:
    """Added tokens with the ids that ``tokenizers`` assigns; this class repeats its rule.

    A token of the `vocabulary` keeps its id. Any other token gets the next free id, counted from the number of distinct
    tokens in the vocabulary.
    """

    vocabulary: Mapping[str, int]
    different: int
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by text, as in a tokenizer document

    def next_id(self, content: str) -> int:
        """Return the id of a token, or the id that it would get."""
        if content in self.tokens:
            number: int = self.tokens[content]["id"]
            return number
        last = max((token["id"] for token in self.tokens.values()), default=-1)
        return self.vocabulary.get(content, max(last + 1, self.different))

    def add(self, content: str, flags: Flags) -> int:
        """Add a token, or replace its flags if it exists; returns its id."""
        number = self.next_id(content)
        self.tokens[content] = added_token(content, number, flags)
        return number

    def document(self) -> list[dict[str, Any]]:
        """Return ``added_tokens`` of a tokenizer document."""
        return sorted(self.tokens.values(), key=lambda token: int(token["id"]))


def read_flags(token: JsonValue, **defaults: bool) -> dict[str, bool]:
    """Read the flags of an added token; without ``normalized``, it is normalized unless it is special."""
    flags = {name: token.get(name, defaults.get(name, False)).boolean() for name in ADDED_TOKEN_FLAGS}
    if "normalized" not in token:
        flags["normalized"] = not flags["special"]
    return flags


def numbered_tokens(
    config: JsonValue, added: JsonValue | None, fast: JsonValue | None, special: list[SpecialToken]
) -> list[tuple[int, str, Flags]]:
    """Added tokens with their ids as the files state them, in the order of the ids.

    They come from ``added_tokens_decoder`` in `config`, or, without it, from `added` (added_tokens.json) and `fast`
    (tokenizer.json).
    """
    named = {token.content for token in special}
    found: dict[int, tuple[str, Flags]] = {}
    if "added_tokens_decoder" in config:
        for key, token in config["added_tokens_decoder"].items():
            number = int(key) if key.isascii() and key.isdigit() and len(key) <= 10 else -1
            if not 0 <= number < _MAX_ID:
                raise token.fault("the key is not a token id")
            found[number] = token["content"].text(), read_flags(token)
    else:
        for content, value in added.items() if added is not None else ():
            is_special = content in named
            found[value.integer(0, _MAX_ID)] = content, {"special": is_special, "normalized": not is_special}
        for token in fast["added_tokens"].elements() if fast is not None else ():
            # The library reads no file without one of them.
            flags = {name: token[name].boolean() for name in ADDED_TOKEN_FLAGS}
            found[token["id"].integer(0, _MAX_ID)] = token["content"].text(), flags
    return [
        (number, content, {**flags, "special": flags["special"] or content in named})
        for number, (content, flags) in sorted(found.items())
    ]


def special_tokens(config: JsonValue, token_map: JsonValue | None, defaults: Mapping[str, str]) -> list[SpecialToken]:
    """Collect the special tokens of tokenizer_config.json and special_tokens_map.json, and `defaults` by key.

    As in transformers, the map counts only where `config` has no ``added_tokens_decoder``.
    """
    files = [config] if token_map is None or "added_tokens_decoder" in config else [config, token_map]
    found: list[SpecialToken] = []
    others = sorted(
        {
            key
            for file in files
            for key, value in file.items()
            if key.endswith("_token") and key not in _KEYS and (value.is_text or _is_token(value))
        }
    )
    for key in (*_KEYS, *others):
        value = next((file[key] for file in reversed(files) if key in file), None)
        if value is None and key in defaults:
            found.append(SpecialToken(defaults[key], key, {"special": True}, None))
        elif value is not None and not value.is_null:
            found.append(_special_token(value, key))
    for file in files:
        for key in LISTS:
            found += (_special_token(value, key) for value in _elements(file.get(key)))
    return found


def _elements(tokens: JsonValue) -> Iterator[JsonValue]:
    """Return the items of a list, or the values of an object by name; nothing for null."""
    if isinstance(tokens.raw, dict):
        yield from (value for _, value in tokens.items())
    elif not tokens.is_null:
        yield from tokens.elements()


def _is_token(value: JsonValue) -> bool:
    return isinstance(value.raw, dict) and "content" in value


def _special_token(value: JsonValue, key: str) -> SpecialToken:
    if value.is_text:
        return SpecialToken(value.text(), key, {"special": True}, value.where)
    flags = {**read_flags(value, special=True), "special": True}
    return SpecialToken(value["content"].text(), key, flags, value.where)
