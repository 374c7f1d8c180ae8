"""Hugging Face BERT: config.json, safetensors (one file or sharded), vocab.txt or tokenizer.json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bertsym.bert.config import BertConfig
from bertsym.bundle import file_digest
from bertsym.errors import ModelError
from bertsym.files import check_inside
from bertsym.sources.hugging_face_tokenizer import read_json, read_tokenizer
from bertsym.sources.names import HUGGING_FACE, describe_ignored, map_weights
from bertsym.sources.pretrained import Pretrained
from bertsym.sources.safetensors_file import SafetensorsFiles
from bertsym.text.vocabulary import check_fits

_FILES = ("config.json", "*.safetensors", "model.safetensors.index.json", "vocab.txt", "tokenizer*.json")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

# our field -> (key of config.json, value when the key is absent; None: the key is needed)
_CONFIG_KEYS: dict[str, tuple[str, Any]] = {
    "num_layers": ("num_hidden_layers", None),
    "units": ("hidden_size", None),
    "hidden_size": ("intermediate_size", None),
    "num_heads": ("num_attention_heads", None),
    "vocab_size": ("vocab_size", None),
    "max_length": ("max_position_embeddings", 512),
    "token_type_vocab_size": ("type_vocab_size", 2),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
}
# key -> (the values that the graph can express, the value when absent)
_SUPPORTED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "model_type": (("bert",), None),
    "hidden_act": (("gelu",), "gelu"),
    "position_embedding_type": (("absolute", None), "absolute"),
    "is_decoder": ((False,), False),
    "add_cross_attention": ((False,), False),
}


def load_hugging_face(location: str, pad_vocab: bool = False) -> Pretrained:
    """Read a BERT from a folder, or from the hub (``ORG/NAME`` or ``ORG/NAME@REVISION``).

    Raises ModelError or DataError, naming the file, for anything that is absent, damaged, or that the
    graph can't express.
    """
    folder = Path(location).expanduser()
    notes: tuple[str, ...] = ()
    if not folder.is_dir():
        folder, notes = _from_hub(location)
    for path in (path for pattern in _FILES for path in folder.glob(pattern)):
        # Of a snapshot in the cache of the hub, the files are links into its folder blobs.
        check_inside(path, [folder, folder.parent.parent / "blobs"])
    config = _read_config(folder / "config.json")
    weight_files = _weight_files(folder)
    named = weight_files[0] if len(weight_files) == 1 else folder / _INDEX
    arg_params, ignored = map_weights(SafetensorsFiles(weight_files), HUGGING_FACE, config, str(named))
    vocabulary, options, text_files = read_tokenizer(folder)
    if pad_vocab:
        vocabulary = vocabulary.padded_to(config.vocab_size)
    check_fits(vocabulary, config.vocab_size, str(text_files[0]))
    files = [folder / "config.json", *weight_files, *text_files]
    origin = {
        "kind": "hf",
        "pretrained": True,
        "files": {path.name: file_digest(path) for path in sorted(files)},
    }
    return Pretrained(config, arg_params, vocabulary, options, origin, (*notes, *describe_ignored(ignored)))


def _from_hub(location: str) -> tuple[Path, tuple[str, ...]]:
    """The folder of a repository in the cache, and what is to be said of it."""
    repo, _, revision = location.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or repo.startswith("."):
        raise ModelError(f"{location}: no such folder, and not a repository name like ORG/NAME")
    import huggingface_hub

    def fetch(local: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=revision or None, allow_patterns=list(_FILES), local_files_only=local
            )
        )

    try:
        return fetch(local=False), ()
    except Exception as online:
        # Offline, or the hub is not to be reached: what is in the cache will do.
        try:
            return fetch(local=True), (f"{location}: from the cache, the hub was not to be had",)
        except Exception:
            reason = (str(online).strip().splitlines() or [""])[0]
            raise ModelError(
                f"{location}: no such folder, not in the Hugging Face cache, and not to be had from the hub: "
                f"{type(online).__name__}: {reason}"
            ) from None


def _read_config(path: Path) -> BertConfig:
    document = read_json(path)
    for key, (supported, default) in _SUPPORTED.items():
        value = document.get(key, default)
        if value not in supported:
            raise ModelError(f"{path}: {key} is {value!r}, only {supported[0]!r} is supported")
    values = {}
    for field, (key, default) in _CONFIG_KEYS.items():
        value = document.get(key, default)
        if value is None:
            raise ModelError(f"{path}: no {key}")
        values[field] = value
    try:
        return BertConfig(**values)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).exists():
        return [folder / _WEIGHTS]
    if (folder / _INDEX).exists():
        weight_map = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{folder / _INDEX}: no weight_map")
        shards = sorted({str(name) for name in weight_map.values()})
        for name in shards:
            if name != Path(name).name or not name.endswith(".safetensors"):
                raise ModelError(f"{folder / _INDEX}: shard {name!r} is not the plain name of a .safetensors file")
        return [folder / name for name in shards]
    pickle = folder / "pytorch_model.bin"
    found = f"{pickle} is a pickle" if pickle.exists() else f"{folder}: no {_WEIGHTS}; a pytorch_model.bin is a pickle"
    raise ModelError(
        f"{found}, which can run code when it is loaded, and is not read; convert it where you trust it: python -c "
        "\"from transformers import AutoModel; AutoModel.from_pretrained('DIR').save_pretrained('DIR', "
        'safe_serialization=True)"'
    )
