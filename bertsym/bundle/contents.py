"""Read the files of a bundle: each is opened once, so that the bytes that were digested are the bytes that are used."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.bundle.files import (
    FILE_NAMES,
    MANIFEST,
    PARAMS,
    SIGNATURE,
    SYMBOL,
    TOKENIZER,
    VOCAB_JSON,
    VOCAB_TXT,
    decoded,
    file_entry,
    file_path,
    open_params,
    read_checked,
)
from bertsym.encoders.config import BertConfig
from bertsym.errors import ModelError
from bertsym.file_reader import check_inside, read_bytes
from bertsym.json_reader import JsonValue, json_object
from bertsym.symbol.params import ParamsFile

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Contents:
    """The content of a bundle's files when it was opened; their paths are not read again."""

    manifest: dict[str, Any]
    config: BertConfig | None  #: None unless it is a BERT bundle
    manifest_digest: str  #: SHA-256 in hexadecimal
    texts: Mapping[str, str]  #: by file name, without MANIFEST, PARAMS and VOCAB_JSON
    params: ParamsFile


def read_contents(prefix: Path, digests: bool) -> Contents:
    """Read the manifest and open the files that it lists; raises ModelError for a file that differs from its entry.

    Without `digests`, the SHA-256 of large files is not compared.
    """
    path = file_path(prefix, MANIFEST)
    content = _read_manifest(prefix)
    document = json_object(decoded(content, path), str(path))
    config = _check_manifest(document)
    manifest = document.object()
    needed = [SYMBOL, PARAMS, SIGNATURE]
    if config is not None and TOKENIZER not in manifest["files"]:
        needed.append(VOCAB_TXT)
    for name in needed:
        if name not in manifest["files"]:
            raise ModelError(f"{path}: does not list {name}, which this bundle needs: write the bundle again")
    texts = {}
    for name, entry in manifest["files"].items():
        check_inside(file_path(prefix, name), [prefix.parent])
        if name == PARAMS:
            params = open_params(file_path(prefix, name), entry, digests)
        else:
            text = read_checked(file_path(prefix, name), entry)
            if name != VOCAB_JSON:
                texts[name] = text
    return Contents(manifest, config, hashlib.sha256(content).hexdigest(), texts, params)


def file_states(prefix: Path) -> dict[str, object]:
    """Return the manifest's bytes and the identity of each file, which change when a bundle is replaced."""
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
        raise ModelError(f"{prefix} is not a bundle: {path.name} does not exist in {path.parent}") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def _check_manifest(manifest: JsonValue) -> BertConfig | None:
    """Check the types of the manifest's values and return its config; raises ModelError, naming the key."""
    version = manifest["format_version"].integer()
    if version < FORMAT_VERSION:
        raise ModelError(f"{manifest.where}: bundle format {version} is too old: export the model again")
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{manifest.where}: bundle format {version} is newer than {FORMAT_VERSION}, the format of this bertsym: "
            "update bertsym"
        )
    for name, entry in manifest["files"].items():
        if name not in FILE_NAMES:
            raise manifest.fault(f"unknown file {name!r:.80}")
        file_entry(entry)
    manifest["source"].object()
    manifest["command"].optional(JsonValue.elements)
    if "base" in manifest:
        manifest["base"].get("config").optional(_read_config)
    return manifest["config"].optional(_read_config)


def _read_config(value: JsonValue) -> BertConfig:
    values = value.object()
    try:
        return BertConfig.from_dict(values)
    except ModelError as error:
        raise value.fault(str(error)) from None
