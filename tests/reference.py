"""A BERT forward in numpy, float64, straight from Hugging Face's weights: shares no code with bertsym.

Source: Devlin et al. 2018 (https://arxiv.org/abs/1810.04805); names and config keys as in Hugging Face's BertModel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Outputs:
    """What can be read of a BERT; ``sequence`` is zero at padding, ``mean`` leaves padding out."""

    sequence: Float
    cls: Float
    pooled: Float
    mean: Float

    def __getitem__(self, output: str) -> Float:
        value: Float = getattr(self, output)
        return value


def bert_forward(
    weights: Weights,
    config: Mapping[str, Any],
    token_ids: NDArray[Any],
    token_types: NDArray[Any],
    valid_length: NDArray[Any],
) -> Outputs:
    """All outputs for token ids (N, T), token types (N, T) and the number of tokens before the padding (N,)."""
    length = token_ids.shape[1]
    heads = int(config["num_attention_heads"])
    eps = float(config["layer_norm_eps"])

    def weight(name: str) -> Float:
        return np.asarray(weights[name], np.float64)

    def dense(x: Float, name: str) -> Float:
        return x @ weight(f"{name}.weight").T + weight(f"{name}.bias")

    def layer_norm(x: Float, name: str) -> Float:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        normal: Float = centred / deviation
        return normal * weight(f"{name}.weight") + weight(f"{name}.bias")

    def split_heads(x: Float) -> Float:
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    x = layer_norm(
        weight("embeddings.word_embeddings.weight")[token_ids]
        + weight("embeddings.position_embeddings.weight")[:length]
        + weight("embeddings.token_type_embeddings.weight")[token_types],
        "embeddings.LayerNorm",
    )
    is_token = np.arange(length) < valid_length[:, None]
    for i in range(int(config["num_hidden_layers"])):
        layer = f"encoder.layer.{i}"
        query, key, value = (
            split_heads(dense(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        scores = np.where(is_token[:, None, None, :], scores, -np.inf)
        exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention = exponentials / exponentials.sum(axis=-1, keepdims=True)
        context = (attention @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = layer_norm(x + dense(context, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
        x = layer_norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

    sequence = x * is_token[:, :, None]
    first = x[:, 0]
    return Outputs(
        sequence=sequence,
        cls=first,
        pooled=np.tanh(dense(first, "pooler.dense")),
        mean=sequence.sum(axis=1) / valid_length[:, None],
    )
