"""Convert a SentencePiece model to the model and components of a tokenizer document that give the same ids."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bertsym.errors import ModelError
from bertsym.families.name_table import printable
from bertsym.sources.slow_tokenizers.sentencepiece_model import (
    BPE,
    SPACE,
    UNIGRAM,
    Piece,
    PieceKind,
    SentencePieceModel,
)

Component = dict[str, Any]
# Rules that `tokenizers` normalizes as SentencePiece does, with NFC before a table (see `normalizer_steps`).
_NORMALIZERS = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity")
# Score of tokens that SentencePiece never finds in a text; with a usual score, <s> in a text would be one.
_NEVER = -1e6
# Words, each with the space before it. SentencePiece splits at spaces only, unlike transformers' WhitespaceSplit.
PRE_TOKENIZER: Component = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "CharDelimiterSplit", "delimiter": " "},
        {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True},
    ],
}


def check_convertible(model: SentencePieceModel, special: Iterable[str]) -> None:
    """Raise ModelError, naming the file and the setting, unless a document can give the ids of a model.

    `special` are the control pieces that the model may have.
    """
    if model.model_type not in (UNIGRAM, BPE):
        raise _unsupported(model, f"model type {model.type_name}, only unigram and bpe are supported")
    if model.normalizer not in _NORMALIZERS:
        raise _unsupported(model, f"normalizer {model.normalizer!r:.60} is not one of {', '.join(_NORMALIZERS)}")
    settings = {
        "byte_fallback": model.byte_fallback,
        "treat_whitespace_as_suffix": model.space_as_suffix,
        "add_dummy_prefix false": not model.add_dummy_prefix,
        "remove_extra_whitespaces false": not model.remove_extra_spaces,
        "escape_whitespaces false": not model.escape_spaces,
    }
    for setting, is_set in settings.items():
        if is_set:
            raise _unsupported(model, f"{setting} is not supported")
    _check_pieces(model, set(special))


def _check_pieces(model: SentencePieceModel, special: set[str]) -> None:
    normal = [piece.text for piece in model.pieces if piece.kind is PieceKind.NORMAL]
    letters = {text for text in normal if len(text) == 1}
    if SPACE not in letters:
        raise _unsupported(model, f"no piece {SPACE}, which stands for a space")
    user_defined = {piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED}
    seen: set[str] = set()
    for piece in model.pieces:
        shown = f"piece {printable(piece.text)!r:.60}"
        if piece.text in seen or not piece.text:
            raise _unsupported(model, f"{shown} is empty or repeated")
        seen.add(piece.text)
        if piece.kind in (PieceKind.UNUSED, PieceKind.BYTE):
            raise _unsupported(model, f"{shown} of the kind {piece.kind.name.lower()} is not supported")
        if piece.kind is PieceKind.CONTROL and piece.text not in special:
            raise _unsupported(model, f"control symbol {piece.text!r:.60} is not one of {', '.join(sorted(special))}")
        if piece.kind is PieceKind.USER_DEFINED and not _is_plain(piece.text, model):
            raise _unsupported(
                model,
                f"user-defined symbol {piece.text!r:.60} is not supported: only single characters that are "
                "not normalized are",
            )
    for text in normal:
        if SPACE in text.lstrip(SPACE):
            raise _unsupported(model, f"piece {text!r:.60} spans words, which is not supported")
        # Where each character is a piece, the penalty of unknown characters never decides between two ways to split.
        other = next((char for char in text if char not in letters), None)
        if other is not None:
            reason = "a user-defined symbol" if other in user_defined else "no piece by itself"
            raise _unsupported(model, f"piece {text!r:.60} has the character {other!r}, which is {reason}")


def _is_plain(text: str, model: SentencePieceModel) -> bool:
    """Whether a symbol is one character that the normalizer keeps."""
    if len(text) != 1 or text == SPACE:
        return False
    if not model.charsmap:
        return True
    from tokenizers import normalizers

    return str(normalizers.Precompiled(model.charsmap).normalize_str(text)) == text


def _unsupported(model: SentencePieceModel, reason: str) -> ModelError:
    return ModelError(f"{model.path}: {reason}")


def scores(model: SentencePieceModel) -> dict[str, float]:
    """Return the pieces that SentencePiece finds in texts, with their scores."""
    found = (PieceKind.NORMAL, PieceKind.USER_DEFINED)
    return {piece.text: piece.score for piece in model.pieces if piece.kind in found}


def tokenizer_model(model: SentencePieceModel, tokens: Sequence[str], unknown: str) -> Component:
    """Return the ``model`` of a document with these tokens, by id; texts are split into pieces only."""
    known = scores(model)
    if model.model_type == UNIGRAM:
        vocabulary: Any = [[token, known.get(token, _NEVER)] for token in tokens]
        return {"type": "Unigram", "unk_id": tokens.index(unknown), "vocab": vocabulary, "byte_fallback": False}
    merges = []
    for piece in sorted(model.pieces, key=lambda piece: -piece.score):  # the best first, as SentencePiece merges
        if piece.kind is PieceKind.NORMAL:
            merges += _merges(piece, known)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": merges,
    }


def _merges(piece: Piece, known: dict[str, float]) -> list[str]:
    """Return the merges that make a piece, in the format that all versions of `tokenizers` read."""
    splits = ((piece.text[:place], piece.text[place:]) for place in range(1, len(piece.text)))
    return [f"{left} {right}" for left, right in splits if left in known and right in known]


def lower_scores(model: Component, is_avoided: Callable[[str], bool]) -> None:
    """Lower the scores of some pieces of a Unigram model by 100, as transformers does."""
    for entry in model["vocab"]:
        if is_avoided(entry[0]):
            entry[1] -= 100


def normalizer_steps(model: SentencePieceModel) -> list[Component]:
    """Return the steps of the normalizer that SentencePiece applies.

    `tokenizers` applies the table to single characters and short clusters only, and leaves decomposed Hangul and kana
    decomposed. SentencePiece composes them, as does NFC before the table.
    """
    if not model.charsmap:
        return []
    table = base64.b64encode(model.charsmap).decode()
    return [{"type": "NFC"}, {"type": "Precompiled", "precompiled_charsmap": table}]


def converted_document(model: Component, normalizer: Sequence[Component]) -> Component:
    """Return a document without added tokens and post-processor."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": list(normalizer)} if normalizer else None,
        "pre_tokenizer": PRE_TOKENIZER,
        "post_processor": None,
        "decoder": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True},
        "model": model,
    }
