"""The embedding of a text by the modules of sentence-transformers, float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.reference.checkpoint import Module
from bertsym.reference.functions import ACTIVATIONS, Float, dense, sigmoid

_SHORTEST = 1e-12  # length below which torch.nn.functional.normalize divides by this
#: keys of a Pooling module in the order in which it concatenates what they ask for -> name of the mode
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}


def embed(modules: Sequence[Module], sequence: Float, valid_length: Array) -> Float:
    """The embeddings (N, D) of texts from the encodings of their tokens (N, T, U)."""
    x = sequence
    for module in modules:
        if module.kind == "Pooling":
            x = _pool(module.config, sequence, valid_length)
        elif module.kind == "Dense":
            x = _dense(module, x)
        elif module.kind == "Normalize":
            x = x / np.maximum(np.sqrt((x**2).sum(axis=1, keepdims=True)), _SHORTEST)
        else:
            raise ValueError(module.kind)
    return x


def _pool(config: Mapping[str, Any], sequence: Float, valid_length: Array) -> Float:
    modes = config.get("pooling_mode") or [mode for key, mode in _FLAGS.items() if config.get(key)]
    vectors = []
    for tokens, count in zip(sequence, valid_length.astype(int)):
        found = {
            "cls": tokens[0],
            "max": tokens[:count].max(axis=0),
            "mean": tokens[:count].mean(axis=0),
            "mean_sqrt_len_tokens": tokens[:count].sum(axis=0) / np.sqrt(count),
        }
        vectors.append(np.concatenate([found[mode] for mode in ([modes] if isinstance(modes, str) else modes)]))
    return np.stack(vectors)


def _dense(module: Module, x: Float) -> Float:
    weight = module.weights["linear.weight"]
    bias = module.weights["linear.bias"] if module.config.get("bias", True) else np.zeros(len(weight))
    x = dense(x, weight, bias)
    name = module.config.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")[2]
    if name == "Identity":
        return x
    return sigmoid(x) if name == "Sigmoid" else ACTIVATIONS[name.lower()](x)


def bundle_modules(embedding: Mapping[str, Any], params: Mapping[str, Array]) -> tuple[Module, ...]:
    """The modules that the key ``embedding`` of a bundle's signature describes, with their parameters."""
    names = {"identity": "Identity", "tanh": "Tanh", "relu": "ReLU", "gelu": "GELU", "sigmoid": "Sigmoid"}
    modules = [Module("Pooling", {"pooling_mode": embedding["pooling"]}, {})]
    for i, layer in enumerate(embedding["layers"]):
        if layer["type"] == "normalize":
            modules.append(Module("Normalize", {}, {}))
            continue
        config = {"bias": layer["bias"], "activation_function": names[layer["activation"]]}
        parts = ("weight", "bias") if layer["bias"] else ("weight",)
        weights = {f"linear.{part}": params[f"embedding_layer{i}_{part}"] for part in parts}
        modules.append(Module("Dense", config, weights))
    return tuple(modules)
