"""The names of a bundle's files, their digests and their JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertsym.errors import ModelError

SYMBOL, TRAIN_SYMBOL, PARAMS = "symbol.json", "train-symbol.json", "0000.params"
VOCAB_TXT, VOCAB_JSON = "vocab.txt", "vocab.json"
SIGNATURE, MANIFEST = "signature.json", "manifest.json"
FILE_NAMES = (SYMBOL, TRAIN_SYMBOL, PARAMS, VOCAB_TXT, VOCAB_JSON, SIGNATURE, MANIFEST)


def file_path(prefix: Path, name: str) -> Path:
    """PREFIX-NAME."""
    return prefix.with_name(f"{prefix.name}-{name}")


def bundle_paths(prefix: Path) -> list[Path]:
    """The paths of all files that a bundle at `prefix` may have."""
    return [file_path(prefix, name) for name in FILE_NAMES]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_file(path: Path, entry: Mapping[str, Any], digest: bool = True) -> None:
    """Raise ModelError unless a file has the size, and the digest, that the manifest says."""
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            raise ModelError(f"{path}: {size} bytes, the manifest says {entry['size']}")
        if digest and file_digest(path) != entry["sha256"]:
            raise ModelError(f"{path}: its SHA-256 is not the one in the manifest, the file has changed")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def json_text(document: Any) -> str:
    """A document as the bundle's JSON files are written."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ModelError, and OSError when it can't be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not JSON") from None
    if not isinstance(document, dict):
        raise ModelError(f"{path}: not a JSON object")
    return document
