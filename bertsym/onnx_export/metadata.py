"""Metadata in an ONNX file, with which it can be used without its bundle."""

from __future__ import annotations

import json
from typing import Any

from bertsym.bundle import VOCAB_TXT
from bertsym.model import Model

#: keys of a signature that are kept: the preprocessing of texts, and the classes of a classifier
_TEXTS = ("family", "max_length", "pair", "pad_id", "special_tokens", "special_ids", "tokenizer")
_ANSWER = ("encoder_output", "embedding", "task", "dataset", "class_names", "encoder_trained")


def input_meanings(model: Model) -> dict[str, str]:
    """Return the meanings of a bundle's inputs by name."""
    return {tensor.name: tensor.meaning for tensor in model.bundle.signature.inputs} if model.bundle else {}


def metadata(model: Model) -> dict[str, str]:
    """Build ``metadata_props``: the origin, and for a BERT also the preprocessing of texts and the classes.

    ``tokenizer_json`` and ``vocabulary`` are the texts of tokenizer.json and vocab.txt, every other value is JSON.
    ``sha256`` has the digests of the source files, ``source`` is copied from the bundle's manifest.
    """
    found: dict[str, Any] = {"sha256": model.digests}
    if model.bundle is not None:
        signature = model.bundle.signature.to_json()
        found.update((key, signature[key]) for key in ("kind", "trained"))
        if signature["kind"] == "symbol":  # its outputs are no longer those of its origin
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
