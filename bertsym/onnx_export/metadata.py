"""What an ONNX file tells of the model besides its graph, so that it can stand alone."""

from __future__ import annotations

import json
from typing import Any

from bertsym.bundle import MANIFEST, SIGNATURE, VOCAB_TXT, file_digest
from bertsym.files import read_json
from bertsym.model import Model

#: keys of a signature that are kept: how texts become inputs, and of a BERT what it answers
_TEXTS = ("family", "max_length", "pair", "pad_id", "special_tokens", "tokenizer")
_ANSWER = ("encoder_output", "task", "dataset", "class_names", "encoder_trained")


def input_meanings(model: Model) -> dict[str, str]:
    """What a bundle says of its inputs, by name."""
    if model.bundle is None:
        return {}
    tensors = read_json(model.bundle.path(SIGNATURE))["inputs"]
    return {tensor["name"]: tensor.get("meaning", "") for tensor in tensors}


def metadata(model: Model) -> dict[str, str]:
    """``metadata_props``: of a BERT how texts become its inputs and numbers labels; of all where it comes from.

    ``tokenizer_json`` and ``vocabulary`` are the texts of tokenizer.json and vocab.txt, every other value is JSON.
    ``sha256`` are the digests of the files that it was made of, ``source`` is that of the bundle's manifest.
    """
    found: dict[str, Any] = {}
    if model.bundle is None:
        paths = [path for path in (model.symbol_path, model.params_path) if path is not None]
        found["sha256"] = {path.name: file_digest(path) for path in paths}
    else:
        manifest = model.bundle.manifest
        signature = read_json(model.bundle.path(SIGNATURE))
        found.update((key, signature[key]) for key in ("kind", "trained"))
        if signature["kind"] == "symbol":  # what it answers is no longer what its origin did
            found.update((key, value) for key, value in (signature["origin"] or {}).items() if key in _TEXTS)
        else:
            found.update((key, signature[key]) for key in (*_TEXTS, *_ANSWER))
        found["sha256"] = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        found["sha256"][MANIFEST] = file_digest(model.bundle.path(MANIFEST))
        found["source"] = manifest["source"]
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in found.items()}
    if model.bundle is not None and model.bundle.has(VOCAB_TXT):
        # Not read as lines of text: a token may hold a carriage return.
        texts["vocabulary"] = model.bundle.vocabulary().to_text()
    document = model.bundle.tokenizer_json() if model.bundle is not None else None
    if document is not None:
        texts["tokenizer_json"] = document
    return texts
