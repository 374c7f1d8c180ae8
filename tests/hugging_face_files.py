"""Files of Hugging Face folders, with weights in several forms, and what is loaded from them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bertsym import Pretrained, SourceOptions, load_source

Weights = dict[str, NDArray[Any]]

INDEX = "model.safetensors.index.json"


def load(folder: Path, **options: Any) -> Pretrained:
    return load_source(f"hf:{folder}", SourceOptions(**options))


def assert_same_weights(pretrained: Pretrained, expected: Pretrained) -> None:
    assert list(pretrained.arg_params) == list(expected.arg_params)
    for name, array in expected.arg_params.items():
        assert pretrained.arg_params[name].dtype == np.float32
        np.testing.assert_array_equal(pretrained.arg_params[name], array, err_msg=name)


def write_shards(folder: Path, weights: Mapping[str, NDArray[Any]], shards: int = 3) -> None:
    """Replace model.safetensors by shards with an index, as save_pretrained does."""
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(weights)}
    for shard in set(weight_map.values()):
        save_file({name: weights[name] for name in weights if weight_map[name] == shard}, folder / shard)
    write_json(folder / INDEX, {"metadata": {}, "weight_map": weight_map})


def write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """The safetensors format by hand, for dtypes that numpy doesn't have."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (len(data), len(data) + len(raw))}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def without(weights: Weights, part: str) -> Weights:
    kept = {name: array for name, array in weights.items() if part not in name}
    assert len(kept) < len(weights)
    return kept
