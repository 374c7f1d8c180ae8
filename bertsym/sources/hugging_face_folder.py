"""Find the files of a Hugging Face model: in a folder or the hub, weights in one file or in shards."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bertsym.array import Array
from bertsym.compat.installing import install_command
from bertsym.errors import ModelError
from bertsym.file_reader import check_inside
from bertsym.json_reader import read_json
from bertsym.sources.hugging_face_tokenizer import TOKENIZER_FILES
from bertsym.sources.pytorch_files import PyTorchFiles, has_torch, missing_torch
from bertsym.sources.safetensors_file import MAX_HEADER, SafetensorsFiles
from bertsym.sources.slow_tokenizers.class_rules import SLOW_FILES

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE, _PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_FILES = (
    *("config.json", "*.safetensors", _INDEX, *TOKENIZER_FILES, "tokenizer*.json", *SLOW_FILES),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
)
# Each in the folder itself, and in the folders of sentence-transformers' modules: 0_Transformer, 1_Pooling.
_PATTERNS = (*_FILES, *(f"[0-9]_*/{name}" for name in _FILES))
# Pickles are fetched only where there are no safetensors.
_PICKLES = tuple(f"{folder}{name}" for folder in ("", "[0-9]_*/") for name in ("pytorch_model*.bin", _PICKLE_INDEX))


def find_folder(location: str) -> tuple[Path, tuple[str, ...]]:
    """Find the folder of a model, local or from the hub (``ORG/NAME`` or ``ORG/NAME@REVISION``); returns notes too.

    Raises ModelError for a location that is neither, and for a file that is a link to outside the folder.
    """
    folder, notes = _from_hub(location) if is_from_hub(location) else (_local_folder(location), ())
    for path in (path for pattern in (*_PATTERNS, *_PICKLES) for path in folder.glob(pattern)):
        # In the cache of the hub, the files of a snapshot are links to its folder blobs.
        check_inside(path, [folder, folder.parent.parent / "blobs"])
    return folder, notes


def is_from_hub(location: str) -> bool:
    """Whether a location is not a folder, and so a repository of the hub."""
    return not _local_folder(location).is_dir()


def _local_folder(location: str) -> Path:
    return Path(os.path.expanduser(location))  # Path.expanduser raises RuntimeError for a user that does not exist


def _from_hub(location: str) -> tuple[Path, tuple[str, ...]]:
    repo, _, revision = location.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or repo.startswith("."):
        raise ModelError(f"{location}: neither a folder nor a repository name like ORG/NAME")
    import huggingface_hub

    def fetch(local: bool) -> Path:
        patterns = list(_PATTERNS)
        while True:
            folder = Path(
                huggingface_hub.snapshot_download(
                    repo, revision=revision or None, allow_patterns=patterns, local_files_only=local
                )
            )
            pickles = [] if local or not has_torch() else _missing_pickles(folder)
            if set(pickles) <= set(patterns):
                return folder
            patterns += pickles

    try:
        return fetch(local=False), ()
    except Exception as online:
        # Offline, or the hub is unreachable: use the cache.
        try:
            return fetch(local=True), (f"{location}: read from the cache, because the hub is unreachable",)
        except Exception:
            reason = (str(online).strip().splitlines() or [""])[0]
            raise ModelError(
                f"{location}: neither a folder nor in the Hugging Face cache, and unavailable from the hub: "
                f"{type(online).__name__}: {reason}"
            ) from None


def _missing_pickles(folder: Path) -> list[str]:
    """The patterns of pickles for what has no safetensors: the whole model, or its dense layers alone.

    Repositories of sentence-transformers often have safetensors of the transformer and pickles of the dense layers.
    """
    if not any(folder.rglob("*.safetensors")):
        return list(_PICKLES)
    dense = [path for path in folder.glob("[0-9]_Dense") if not any(path.glob("*.safetensors"))]
    return [f"{path.name}/{_PICKLE}" for path in dense]


@dataclass(frozen=True)
class FoundWeights:
    """The weights of a folder by name, read on demand, and where they are."""

    tensors: Mapping[str, Array]
    files: tuple[Path, ...]
    where: Path  #: the file to name in errors about weights
    notes: tuple[str, ...] = ()


def find_weights(folder: Path, root: Path | None = None) -> FoundWeights:
    """Find the weights of a folder: safetensors or, where there are none and torch is installed, pickles of PyTorch.

    The files are model.safetensors, or the shards in its index, or all shards of one model without an index; else
    pytorch_model.bin, or the shards in its index. `root` is the folder of the whole model, where `folder` is that of
    one module in it. Raises ModelError for no file, for a damaged file, for a missing shard, and for an index that
    names something else than files of the folder.
    """
    if (folder / _WEIGHTS).exists():
        return _open_safetensors([folder / _WEIGHTS], folder / _WEIGHTS)
    if (folder / _INDEX).exists():
        return _open_safetensors(_indexed_shards(folder / _INDEX, ".safetensors"), folder / _INDEX)
    shards = _shards_by_name(folder)
    if shards:
        note = f"no {_INDEX}: read {shards[0].name} to {shards[-1].name}"
        return _open_safetensors(shards, shards[0], note)
    pickle = next((folder / name for name in (_PICKLE, _PICKLE_INDEX) if (folder / name).exists()), None)
    if pickle is not None and has_torch():
        files = [pickle] if pickle.name == _PICKLE else _indexed_shards(pickle, ".bin")
        opened = PyTorchFiles(files)
        return FoundWeights(opened, tuple(files), pickle, (f"weights read by torch from {pickle.name}", *opened.notes))
    if pickle is not None:
        raise ModelError(f"{pickle}: a pickle, which can run code when it is loaded: {missing_torch(root or folder)}")
    hint = "" if has_torch() else f"; a {_PICKLE} is read where torch is installed: {install_command('torch')}"
    raise ModelError(f"{folder}: no {_WEIGHTS}{hint}")


def _open_safetensors(files: list[Path], where: Path, *notes: str) -> FoundWeights:
    return FoundWeights(SafetensorsFiles(files), tuple(files), where, notes)


def _indexed_shards(index: Path, suffix: str) -> list[Path]:
    size = index.stat().st_size
    if size > MAX_HEADER:
        raise ModelError(f"{index}: {size} bytes, at most {MAX_HEADER} are supported")
    weight_map = read_json(index)["weight_map"]
    names = set()
    for _, shard in weight_map.items():
        names.add(shard.file_name())
        if not shard.text().endswith(suffix):
            raise shard.fault(f"the name of a shard must end in {suffix}")
    if not names:
        raise weight_map.fault("no weights")
    return [index.with_name(name) for name in sorted(names)]


def _shards_by_name(folder: Path) -> list[Path]:
    groups: dict[tuple[str, int], list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.safetensors")):
        match = _SHARD.fullmatch(path.name)
        if match:
            groups[match[1], int(match[3])].append(path)
    if len(groups) > 1:
        firsts = ", ".join(paths[0].name for paths in groups.values())
        raise ModelError(f"{folder}: no {_INDEX}, and shards of {len(groups)} models: {firsts}; keep those of one")
    for (stem, count), paths in groups.items():
        for number, path in enumerate(paths, 1):
            if path.name != f"{stem}-{number:05}-of-{count:05}.safetensors":
                break
        else:
            number = len(paths) + 1
        if number <= count:
            raise ModelError(f"{folder / stem}-{number:05}-of-{count:05}.safetensors: no such file")
        return paths
    return []
