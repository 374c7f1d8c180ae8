"""Names, digests and JSON format of a bundle's files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from bertsym.errors import ModelError
from bertsym.file_reader import open_regular, read_bytes
from bertsym.json_reader import JsonValue
from bertsym.symbol.params import ParamsFile

SYMBOL, TRAIN_SYMBOL, PARAMS = "symbol.json", "train-symbol.json", "0000.params"
TOKENIZER, VOCAB_TXT, VOCAB_JSON = "tokenizer.json", "vocab.txt", "vocab.json"
CARD, SIGNATURE, MANIFEST = "card.md", "signature.json", "manifest.json"
FILE_NAMES = (SYMBOL, TRAIN_SYMBOL, PARAMS, TOKENIZER, VOCAB_TXT, VOCAB_JSON, CARD, SIGNATURE, MANIFEST)

_SMALL = 1 << 24  # bytes; smaller files are always digested


def file_path(prefix: Path, name: str) -> Path:
    """Return the path PREFIX-NAME."""
    return prefix.with_name(f"{prefix.name}-{name}")


def bundle_paths(prefix: Path) -> list[Path]:
    """Return the paths of all files that a bundle at `prefix` may have."""
    return [file_path(prefix, name) for name in FILE_NAMES]


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a regular file, in hexadecimal; raises OSError, and ModelError for a pipe or device."""
    with open_regular(path) as file:
        return _digest(file)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_checked(path: Path, entry: Mapping[str, Any]) -> str:
    """Read a text file and compare it with its `entry` in a manifest; raises ModelError if they differ."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None
    _check(path, entry, len(content), hashlib.sha256(content).hexdigest())
    return decoded(content, path)


def decoded(content: bytes, path: Path) -> str:
    """Decode the UTF-8 content of a file; raises ModelError."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8 text at byte {error.start}") from None


def open_params(path: Path, entry: Mapping[str, Any], digest: bool = True) -> ParamsFile:
    """Open a parameter file and compare it with its `entry` in a manifest; raises ModelError if they differ.

    The file is opened once, digested and mapped. Without `digest`, the SHA-256 of a large file is not compared.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            sha256 = _digest(file) if size == entry["size"] and (digest or size <= _SMALL) else None
            _check(path, entry, size, sha256)
            return ParamsFile(path, file.fileno())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def _check(path: Path, entry: Mapping[str, Any], size: int, sha256: str | None) -> None:
    if size != entry["size"]:
        raise ModelError(f"{path}: {size} bytes, but {entry['size']} in the manifest: the file was changed")
    if sha256 not in (None, entry["sha256"]):
        raise ModelError(f"{path}: its SHA-256 differs from the manifest: the file was changed")


def file_entry(entry: JsonValue) -> dict[str, Any]:
    """Check the entry of a file in a manifest; raises ModelError unless it is a size and a digest."""
    return {"sha256": entry["sha256"].text(), "size": entry["size"].integer(0)}


def json_text(document: Any) -> str:
    """Format a document as one of the bundle's JSON files."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
