"""Added tokens of a Hugging Face folder, from all files that name them, with the ids that transformers gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bertsym.json_reader import JsonValue
from bertsym.text.wordpiece import added_token

# Keys of special tokens, in the order in which transformers adds their tokens
_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_MAX_ID = 1 << 31

Flags = Mapping[str, bool]


@dataclass(frozen=True)
class SpecialToken:
    """A token that a file names as special."""

    content: str
    key: str  #: such as ``mask_token``, or that of a list
    flags: Flags
    where: str  #: the file


@dataclass
class AddedTokens:
    """Added tokens with the ids that ``tokenizers`` gives them, whose rule is repeated here.

    A token of the `vocabulary` keeps its id; any other gets the next one after all, where the vocabulary counts as
    many tokens as it has different ones.
    """

    vocabulary: Mapping[str, int]
    different: int
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by their text, as in a tokenizer document

    def next_id(self, content: str) -> int:
        """The id that a token has, or would get."""
        if content in self.tokens:
            number: int = self.tokens[content]["id"]
            return number
        last = max((token["id"] for token in self.tokens.values()), default=-1)
        return self.vocabulary.get(content, max(last + 1, self.different))

    def add(self, content: str, flags: Flags) -> int:
        """Add a token, or replace the flags of one that is there already; returns its id."""
        number = self.next_id(content)
        self.tokens[content] = added_token(content, number, flags)
        return number

    def document(self) -> list[dict[str, Any]]:
        """``added_tokens`` of a tokenizer document."""
        return sorted(self.tokens.values(), key=lambda token: int(token["id"]))


def read_flags(token: JsonValue, **defaults: bool) -> dict[str, bool]:
    """The flags of an added token; one without ``normalized`` is normalised unless it is special."""
    flags = {name: token.get(name, defaults.get(name, False)).boolean() for name in _FLAGS}
    if "normalized" not in token:
        flags["normalized"] = not flags["special"]
    return flags


def numbered_tokens(
    config: JsonValue, added: JsonValue | None, fast: JsonValue | None, special: list[SpecialToken]
) -> list[tuple[int, str, Flags]]:
    """Added tokens with their ids as the files state them, in the order of the ids.

    They are those of ``added_tokens_decoder`` in `config`; where there is none, of `added`, added_tokens.json, and of
    `fast`, tokenizer.json.
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
            found[token["id"].integer(0, _MAX_ID)] = token["content"].text(), read_flags(token)
    return [
        (number, content, {**flags, "special": flags["special"] or content in named})
        for number, (content, flags) in sorted(found.items())
    ]


def special_tokens(config: JsonValue, token_map: JsonValue | None, defaults: Mapping[str, str]) -> list[SpecialToken]:
    """The special tokens that tokenizer_config.json and special_tokens_map.json name, and `defaults` by key.

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
            found.append(SpecialToken(defaults[key], key, {"special": True}, config.where))
        elif value is not None and not value.is_null:
            found.append(_special_token(value, key))
    for file in files:
        for key in _LISTS:
            found += (_special_token(value, key) for value in _elements(file.get(key)))
    return found


def _elements(tokens: JsonValue) -> Iterator[JsonValue]:
    """The values of a list, or of an object by name; none for null."""
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
