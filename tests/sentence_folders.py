"""Sentence-transformers folders around the tiny BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_hugging_face
from safetensors.numpy import save_file

from bertsym.array import Array

POOLING = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
LEGACY = "sentence_transformers.models."  #: where the classes of modules are before version 5.4
#: kind of module -> its class in version 6
NEWER = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def dense(inputs: int, outputs: int, activation: str = "activation.Tanh", **changes: Any) -> dict[str, Any]:
    """The config.json of a Dense module."""
    path = f"torch.nn.modules.{activation}"
    return {"in_features": inputs, "out_features": outputs, "bias": True, "activation_function": path, **changes}


def dense_weights(config: dict[str, Any], seed: int) -> dict[str, Array]:
    """Random weights of a Dense module."""
    rng = np.random.default_rng(seed)
    shapes = {
        "linear.weight": (config["out_features"], config["in_features"]),
        "linear.bias": (config["out_features"],),
    }
    kept = shapes if config["bias"] else {"linear.weight": shapes["linear.weight"]}
    return {name: rng.standard_normal(shape, np.float32) / 4 for name, shape in kept.items()}


def write_sentence_folder(
    folder: Path,
    *modules: tuple[str, dict[str, Any]],
    transformer: str = "",
    newer: bool = False,
    settings: dict[str, Any] | None = None,
    prompts: dict[str, Any] | None = None,
) -> Path:
    """The tiny BERT, and after it `modules`: kind and config.json of each; Dense modules get random weights."""
    write_hugging_face(folder / transformer)
    listed = [("Transformer", transformer), *((kind, f"{i}_{kind}") for i, (kind, _) in enumerate(modules, 1))]
    names = [NEWER[kind] if newer else f"{LEGACY}{kind}" for kind, _ in listed]
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": names[i]} for i, (_, path) in enumerate(listed)],
    )
    for i, (kind, config) in enumerate(modules, 1):
        if kind != "Normalize" or config:
            write_json(folder / f"{i}_{kind}" / "config.json", config)
        if kind == "Dense":
            save_file(dense_weights(config, i), folder / f"{i}_{kind}" / "model.safetensors")
    if settings is not None:
        write_json(folder / transformer / "sentence_bert_config.json", settings)
    if prompts is not None:
        write_json(folder / "config_sentence_transformers.json", prompts)
    return folder
