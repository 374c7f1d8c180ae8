"""The metadata of an ONNX file, with which it can be used alone."""

from __future__ import annotations

import json
from typing import Any

from bertsym.bundle import VOCAB_TXT
from bertsym.model import Model

#: keys of a signature that are kept: how texts become inputs, and of a BERT what it answers
_TEXTS = ("family", "max_length", "pair", "pad_id", "special_tokens", "tokenizer")
_ANSWER = ("encoder_output", "task", "dataset", "class_names", "encoder_trained")


def input_meanings(model: Model) -> dict[str, str]:
    """What a bundle says of its inputs, by name."""
    return {tensor.name: tensor.meaning for tensor in model.bundle.signature.inputs} if model.bundle else {}


def metadata(model: Model) -> dict[str, str]:
    """``metadata_props``: of a BERT how texts become its inputs, and its classes; of all where it comes from.

    ``tokenizer_json`` and ``vocabulary`` are the texts of tokenizer.json and vocab.txt, every other value is JSON.
    ``sha256`` are the digests of the files that it was made of, ``source`` is that of the bundle's manifest.
    """
    found: dict[str, Any] = {"sha256": model.digests}
    if model.bundle is not None:
        signature = model.bundle.signature.to_json()
        found.update((key, signature[key]) for key in ("kind", "trained"))
        if signature["kind"] == "symbol":  # what it answers is no longer what its origin did
            found.update((key, value) for key, value in (signature["origin"] or {}).items() if key in _TEXTS)
        else:
            found.update((key, signature[key]) for key in (*_TEXTS, *_ANSWER))
        found["source"] = model.bundle.manifest["source"]
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in found.items()}
    if model.bundle is not None and model.bundle.has(VOCAB_TXT):
        texts["vocabulary"] = model.bundle.text(VOCAB_TXT)
    document = model.bundle.tokenizer_json() if model.bundle is not None else None
    if document is not None:
        texts["tokenizer_json"] = document
    return texts
