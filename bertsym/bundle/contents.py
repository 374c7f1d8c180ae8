"""What the files of a bundle hold: each is opened once, and what was digested is what is used."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.bundle.files import (
    FILE_NAMES,
    MANIFEST,
    PARAMS,
    SIGNATURE,
    SYMBOL,
    VOCAB_JSON,
    VOCAB_TXT,
    decoded,
    file_path,
    open_params,
    read_checked,
)
from bertsym.errors import ModelError
from bertsym.files import check_inside, read_bytes
from bertsym.json_reader import json_object
from bertsym.signature import of_type
from bertsym.symbol.params import ParamsFile

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Contents:
    """The files of a bundle as they were when it was opened; their paths are not read again."""

    manifest: dict[str, Any]
    manifest_digest: str  #: SHA-256
    texts: Mapping[str, str]  #: of the files that are needed, but for the manifest and PARAMS
    params: ParamsFile


def read_contents(prefix: Path, digests: bool) -> Contents:
    """Read the manifest and open the files that it lists; raises ModelError for a file that is not the listed one.

    Without `digests`, the SHA-256 of large files is not compared.
    """
    path = file_path(prefix, MANIFEST)
    content = _read_manifest(prefix)
    manifest = json_object(decoded(content, path), str(path)).object()
    with damage(path):
        _check_format(manifest["format_version"], path)
        _check_manifest(manifest, path)
    needed = (SYMBOL, PARAMS, SIGNATURE) if manifest["config"] is None else (SYMBOL, PARAMS, VOCAB_TXT, SIGNATURE)
    for name in needed:
        if name not in manifest["files"]:
            raise ModelError(f"{path}: does not list {name}")
    texts = {}
    for name, entry in manifest["files"].items():
        check_inside(file_path(prefix, name), [prefix.parent])
        if name == PARAMS:
            params = open_params(file_path(prefix, name), entry, digests)
        else:
            text = read_checked(file_path(prefix, name), entry)
            if name != VOCAB_JSON:
                texts[name] = text
    return Contents(manifest, hashlib.sha256(content).hexdigest(), texts, params)


def file_states(prefix: Path) -> dict[str, object]:
    """What tells whether the files of a bundle were replaced: the manifest's bytes, and the identity of each file."""
    states: dict[str, object] = {}
    with contextlib.suppress(ModelError):
        states["manifest"] = _read_manifest(prefix)
    for name in FILE_NAMES:
        with contextlib.suppress(OSError):
            found = file_path(prefix, name).stat()
            states[name] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return states


def _read_manifest(prefix: Path) -> bytes:
    path = file_path(prefix, MANIFEST)
    try:
        return read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{prefix}: no bundle here, {path.name} is missing in {path.parent}") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def _check_format(version: Any, path: Path) -> None:
    """Raise ModelError for a bundle of another format."""
    if type(version) is int and version < FORMAT_VERSION:
        raise ModelError(f"{path}: bundle format {version}: export it again")
    if version != FORMAT_VERSION:
        raise ModelError(f"{path}: bundle format {version!r:.80}, this bertsym reads format {FORMAT_VERSION}")


def _check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise an error unless the values that others rely on are of the right type."""
    for name, entry in of_type(manifest["files"], dict).items():
        if name not in FILE_NAMES:
            raise ModelError(f"{path}: unknown file {name!r}")
        of_type(entry["sha256"], str)
        of_type(entry["size"], int)
    of_type(manifest["config"], dict, type(None))
    of_type(manifest["source"], dict)
    of_type(manifest["command"], list, type(None))
    of_type(of_type(manifest.get("base", {}), dict).get("config"), dict, type(None))


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn what code raises on a missing value, or one of another type, into a ModelError that names the file."""
    try:
        yield
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ModelError(f"{path}: damaged ({type(error).__name__}: {error})") from None
