"""The model of a tokenizer document, WordPiece, BPE or Unigram, and its tokens."""

from __future__ import annotations

from typing import Any

from bertsym.json_reader import JsonValue

MODELS = ("WordPiece", "BPE", "Unigram")


def model_tokens(model: JsonValue) -> dict[str, int]:
    """Return the tokens of a model with their ids; raises an error that names the file and the key for any other value.

    The ids of Unigram, whose vocabulary is a list of tokens and scores, are the places in the list.
    """
    if model["type"].choice(*MODELS) == "Unigram":
        return _unigram_tokens(model["vocab"])
    vocabulary = model["vocab"]
    found = vocabulary.object()
    for token, number in found.items():
        if type(number) is not int:
            raise vocabulary[token].fault(f"{number!r:.60} is not a token id")
    return dict(found)


def _unigram_tokens(vocabulary: JsonValue) -> dict[str, int]:
    vocabulary.elements(1)
    found: dict[str, int] = {}
    for number, entry in enumerate(vocabulary.raw):
        is_entry = type(entry) is list and len(entry) == 2 and type(entry[0]) is str
        if not is_entry or type(entry[1]) not in (int, float) or entry[0] in found:
            token, score = vocabulary.elements()[number].elements(2, 2)
            token.text()
            score.number()
            raise token.fault(f"{token.raw!r:.60} is repeated: it has the ids {found[token.raw]} and {number}")
        found[entry[0]] = number
    return found


def check_model(model: JsonValue, tokens: dict[str, int]) -> None:
    """Check what a model of the types in MODELS needs; raises an error that names the file and the key."""
    if model.get("dropout").raw is not None:
        raise model["dropout"].fault("random tokenization is not supported, expected null")
    if model["type"].raw == "BPE":
        _check_merges(model, tokens)
    unknown_id(model, tokens)


def unknown_id(model: JsonValue, tokens: dict[str, int]) -> int:
    """Return the id of the unknown token; -1 if the model has no unknown token."""
    if model["type"].raw == "Unigram":
        return model["unk_id"].integer(0, len(tokens) - 1)
    token = model.get("unk_token")
    if token.is_null and model["type"].raw == "BPE":
        return -1
    # It must be in the model's own vocabulary: a word never becomes an added token.
    if token.text() not in tokens:
        raise token.fault(f"{token.raw!r} is not in the vocabulary")
    return tokens[token.text()]


def _check_merges(model: JsonValue, tokens: dict[str, int]) -> None:
    """Raise an error for a merge that is not two tokens of the vocabulary whose union is a token too."""
    merges, prefix = model["merges"], model.get("continuing_subword_prefix", "").optional(JsonValue.text) or ""
    merges.elements()
    for number, merge in enumerate(merges.raw):
        parts: Any = merge.split(" ") if type(merge) is str else merge
        if type(parts) is not list or len(parts) != 2 or any(type(part) is not str for part in parts):
            raise merges.elements()[number].fault("expected two tokens")
        first, second = parts
        for token in (first, second, first + second.removeprefix(prefix)):
            if token not in tokens:
                raise merges.elements()[number].fault(f"{token!r:.60} is not in the vocabulary")
