"""Tokenizers of 400 tokens, trained on a small corpus with the pipelines of RoBERTa and XLM-R."""

from __future__ import annotations

import functools
import json
from typing import Any

from tokenizer_documents import TEXTS

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_SPACE = "\u2581"
CORPUS = (
    *TEXTS,
    "def main(argv):\n    for x in range(10):\n\t\treturn x  # ok\n\n",
    "The quick brown fox jumps over the lazy dog; it's what we've got, they'll say it's 42.",
    "안녕하세요 세계, 日本語のテキスト。 Les élèves français à l'école.",
    "<s> a </s> <mask> b   <mask>c <unk>",
)

#: SentencePiece's table of a few characters: U+3000, U+A0 and U+85 to a space, U+A8 to a space and U+308, U+FB01 to fi,
#: U+2026 to three full stops, U+600 to x, e with U+301 to U+E9
CHARSMAP = (
    "AAQAAACQAQBlPAMAzAACAIEdAAAQAACAhQ0AAAEAAIADAACAgAUAAA4AAICALAIAAAAAgI0dAAAHAACAgAQCAIAlAACsAAIAgQ0A"
    "AAsAAIASAAAAFQAAABQAAAAXAAAAFgAAABkAAAAYAAAAGwAAABoAAAAdAAAAHAAAAB8AAAAeAAAAoJkAACAAAAAjAAAAIgAAACUA"
    "AAAkAAAAJwAAAKapAACovQAAKAAAACsAAAAqAAAALQAAACwAAAAvAAAALgAAADEAAAAwAAAAMwAAADIAAAA1AAAANAAAADcAAAA2"
    "AAAAOQAAADgAAAA7AAAAOgAAAD0AAAA8AAAAPwAAAD4AAABBAAAAQAAAAEMAAABCAAAARQAAAEQAAABHAAAARgAAAEkAAABIAAAA"
    "SwAAAEoAAABNAAAATAAAAE8AAABOAAAAUQAAAFAAAABTAAAAUgAAAFUAAABUAAAAVwAAAFYAAABZAAAAWAAAAFsAAABaAAAAXQAA"
    "AFwAAABfAAAAXgAAAGEAAABgAAAAYwAAAGIAAABlAAAAZAAAAGcAAABmAAAAaQAAAGgAAABrAAAAagAAAG0AAABsAAAAbwAAAG4A"
    "AABxAAAAcAAAAHMAAAByAAAAdQAAAHQAAAB3AAAAdgAAAHkAAAB4AAAAewAAAHoAAAB9AAAAfAAAAH8AAAB+AAAAgQAAAIAAAACD"
    "AAAAggAAAIUAAACEAAAA4jAAAOMkAACJAAAAiAAAAIsAAADv3AAAjQAAAIwAAACPAAAAjgAAAJEAAACQAAAAkwAAAJIAAACVAAAA"
    "lAAAAJcAAACWAAAAmQAAAJgAAACbAAAAmgAAAJ0AAACcAAAAnwAAAJ4AAAChAAAAoAAAAKMAAACiAAAApQAAAKQAAADCmAAApgAA"
    "AKkAAACoAAAAqwAAAKoAAACtAAAArAAAAK8AAACuAAAAsQAAALAAAACzAAAAsgAAALUAAAC0AAAAtwAAALYAAAC5AAAAuAAAALsA"
    "AAC6AAAA2NAAALwAAAC/AAAAvgAAAMEAAADAAAAAwwAAAMIAAADFAAAAxAAAAMcAAADGAAAAyQAAAMgAAADLAAAAygAAAM0AAADM"
    "AAAAzwAAAM4AAADRAAAA0AAAANMAAADSAAAA1QAAANQAAADXAAAA1gAAANkAAADYAAAA2wAAANoAAADdAAAA3AAAAN8AAADeAAAA"
    "4QAAAOAAAADjAAAA4gAAAOUAAADkAAAA5wAAAOYAAADpAAAA6AAAAOsAAADqAAAA7QAAAOwAAADvAAAA7gAAAPEAAADwAAAA8wAA"
    "APIAAAD1AAAA9AAAAPcAAAD2AAAA+QAAAPgAAAD7AAAA+gAAAP0AAAD8AAAA/wAAAP4AAAAAIAAgzIgALi4uAGZpAHgAw6kA"
)


@functools.cache
def _trained(model: str, special: tuple[str, ...]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any
    trainer: Any
    if model == "BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=[*special], initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(_SPACE, "always")]
        )
        tokenizer.decoder = decoders.Metaspace(_SPACE, "always")
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=[*special], unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    text: str = tokenizer.to_str()
    return text


def trained(model: str, special: tuple[str, ...] = SPECIAL, **parts: Any) -> dict[str, Any]:
    """A tokenizer.json whose model, ``BPE`` or ``Unigram``, was trained; `parts` replace those of the document.

    The post-processor is RoBERTa's, of the special tokens ``<s>`` and ``</s>``.
    """
    document: dict[str, Any] = json.loads(_trained(model, special))
    start, end = special.index(special[0]), special.index(special[2])
    processor = {"type": "RobertaProcessing", "cls": [special[0], start], "sep": [special[2], end]}
    document["post_processor"] = {**processor, "trim_offsets": True, "add_prefix_space": False}
    return {**document, **parts}


def metaspace(scheme: str = "always") -> dict[str, Any]:
    """SentencePiece's pre-tokenizer, at the start of whose words there is a space."""
    return {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": True}


def byte_level(add_prefix_space: bool = False) -> dict[str, Any]:
    """RoBERTa's pre-tokenizer."""
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}


PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}
#: what transformers 4 writes for a SentencePiece model
SLOW: list[dict[str, Any]] = [
    PRECOMPILED,
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": _SPACE},
]
#: ALBERT's normalizers
ALBERT: list[dict[str, Any]] = [
    *({"type": "Replace", "pattern": {"String": quotes}, "content": '"'} for quotes in ("``", "''")),
    *({"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")),
    PRECOMPILED,
]
