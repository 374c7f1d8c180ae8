"""The rules by which classes of transformers turn the files of a slow tokenizer into ids, one row for each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bertsym.errors import DataError, ModelError
from bertsym.file_reader import read_bytes
from bertsym.json_reader import read_json
from bertsym.sources.slow_tokenizers.conversion import (
    Component,
    check_convertible,
    converted_document,
    lower_scores,
    normalizer_steps,
    tokenizer_model,
)
from bertsym.sources.slow_tokenizers.sentencepiece_model import read_sentencepiece
from bertsym.sources.tokenizer_classes import BYTE_LEVEL_BPE

VOCAB_JSON, MERGES = "vocab.json", "merges.txt"
_MODELS = ("sentencepiece.bpe.model", "spiece.model")
SLOW_FILES = (VOCAB_JSON, MERGES, *_MODELS)  #: files of slow tokenizers beside vocab.txt
_Tokens = Mapping[str, str]  # role -> special token


@dataclass(frozen=True)
class SlowTokenizer:
    """The document of a slow tokenizer, without added tokens and post-processor, and the files that were read."""

    document: Component
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _SentencePieceRule:
    """The tokens that a class puts in the place of the `replaced` first pieces and after the last piece."""

    before: Callable[[_Tokens], tuple[str, ...]] = lambda special: ()
    replaced: tuple[str, ...] = ()
    after: Callable[[_Tokens], tuple[str, ...]] = lambda special: (special["mask"],)
    is_avoided: Callable[[str], bool] = lambda piece: False  #: whether a piece is used only where nothing else fits

    def convert(self, path: Path, special: _Tokens) -> Component:
        """Return the document of a SentencePiece model."""
        model = read_sentencepiece(path)
        check_convertible(model, special.values())
        pieces = tuple(piece.text for piece in model.pieces)
        count = len(self.replaced)
        if pieces[:count] != self.replaced:
            raise ModelError(f"{path}: the first pieces are {pieces[:count]}, expected {self.replaced}")
        tokens = (*self.before(special), *pieces[count:], *self.after(special))
        if len({*tokens}) < len(tokens) or special["unk"] not in tokens:
            raise ModelError(f"{path}: a special token is repeated, or {special['unk']!r:.60} is missing")
        converted = tokenizer_model(model, tokens, special["unk"])
        if converted["type"] == "Unigram":
            lower_scores(converted, self.is_avoided)
        return converted_document(converted, normalizer_steps(model))


def _is_number_with_comma(piece: str) -> bool:
    return len(piece) > 1 and piece.endswith(",") and piece[-2].isdigit()


_SENTENCEPIECE = {
    # The ids of fairseq: its own four special tokens, then the pieces, shifted by one.
    "XLMRobertaTokenizer": _SentencePieceRule(
        before=lambda special: (special["bos"], special["pad"], special["eos"], special["unk"]),
        replaced=("<unk>", "<s>", "</s>"),
    ),
    # fairseq's special tokens, of which some are not used, before the model's own.
    "CamembertTokenizer": _SentencePieceRule(
        before=lambda special: ("<s>NOTUSED", special["pad"], "</s>NOTUSED", special["unk"], "<unk>NOTUSED"),
        replaced=("<unk>",),
    ),
    # Google's tokenizer splits `9,` where it is one piece.
    "AlbertTokenizer": _SentencePieceRule(after=lambda special: (), is_avoided=_is_number_with_comma),
}


def convert_slow(folder: Path, classes: tuple[str, ...], special: _Tokens) -> SlowTokenizer:
    """Convert the slow tokenizer of a folder by the rule of the first of `classes` that has one.

    `special` are the special tokens by role. Raises DataError or ModelError, naming the file, for missing and damaged
    files, and for settings with which a document can't give the same ids.
    """
    found = [name for name in SLOW_FILES if (folder / name).exists()]
    if "RobertaTokenizer" in classes and found[:1] == [VOCAB_JSON]:
        return SlowTokenizer(_byte_level_bpe(folder), (folder / VOCAB_JSON, folder / MERGES))
    rule = next((_SENTENCEPIECE[name] for name in classes if name in _SENTENCEPIECE), None)
    file = next((folder / name for name in _MODELS if name in found), None)
    if rule is None or file is None:
        raise ModelError(
            f"{folder}: {', '.join(found)} can't be converted for a {classes[0]}; save a tokenizer.json with "
            "transformers"
        )
    return SlowTokenizer(rule.convert(file, special), (file,))


def _byte_level_bpe(folder: Path) -> Component:
    """Return the document of RoBERTa's vocab.json and merges.txt; its class adds the components."""
    vocabulary = read_json(folder / VOCAB_JSON, DataError)
    path = folder / MERGES
    try:
        lines = read_bytes(path).decode().removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start}") from None
    merges = []
    for number, line in enumerate(lines, 1):
        merge = line.rstrip("\r")
        parts = merge.split(" ")
        if line.startswith("#version"):
            continue
        if len(parts) != 2 or not all(parts):
            raise DataError(f"{path}, line {number}: {line!r:.60} is not two tokens")
        merges.append(merge)  # which all versions of `tokenizers` read
    model = {"type": "BPE", "dropout": None, **BYTE_LEVEL_BPE, "vocab": vocabulary.object(), "merges": merges}
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {**converted_document(model, ()), "pre_tokenizer": None, "decoder": decoder}


def add_class_steps(document: Component, normalizer: Component | None) -> None:
    """Put the steps of a class's `normalizer`, such as ALBERT's lower-casing, before those of a converted document."""
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    own = [step for step in steps if step["type"] != "Precompiled"]
    if own and document["pre_tokenizer"] is not None:
        rest = (document["normalizer"] or {"normalizers": []})["normalizers"]
        document["normalizer"] = {"type": "Sequence", "normalizers": [*own, *rest]}
