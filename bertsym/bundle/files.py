"""The names of a bundle's files, their digests and their JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertsym.errors import ModelError
from bertsym.files import open_regular
from bertsym.json_reader import JsonValue

SYMBOL, TRAIN_SYMBOL, PARAMS = "symbol.json", "train-symbol.json", "0000.params"
TOKENIZER, VOCAB_TXT, VOCAB_JSON = "tokenizer.json", "vocab.txt", "vocab.json"
SIGNATURE, MANIFEST = "signature.json", "manifest.json"
FILE_NAMES = (SYMBOL, TRAIN_SYMBOL, PARAMS, TOKENIZER, VOCAB_TXT, VOCAB_JSON, SIGNATURE, MANIFEST)

_SMALL = 1 << 24  # bytes whose digest takes no time worth sparing


def file_path(prefix: Path, name: str) -> Path:
    """PREFIX-NAME."""
    return prefix.with_name(f"{prefix.name}-{name}")


def bundle_paths(prefix: Path) -> list[Path]:
    """The paths of all files that a bundle at `prefix` may have."""
    return [file_path(prefix, name) for name in FILE_NAMES]


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file, in hexadecimal; raises OSError, and ModelError for no such one."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_file(path: Path, entry: Mapping[str, Any], digest: bool = True) -> None:
    """Raise ModelError unless a file has the size and the digest that the manifest says.

    Without `digest` that of a large file is taken on trust.
    """
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            raise ModelError(f"{path}: {size} bytes, the manifest says {entry['size']}")
        if (digest or size <= _SMALL) and file_digest(path) != entry["sha256"]:
            raise ModelError(f"{path}: its SHA-256 is not the one in the manifest, the file has changed")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def file_entry(entry: JsonValue) -> dict[str, Any]:
    """The size and digest of a file in a manifest; raises ModelError for anything else."""
    return {"sha256": entry["sha256"].text(), "size": entry["size"].integer(0)}


def json_text(document: Any) -> str:
    """A document as the bundle's JSON files are written."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
