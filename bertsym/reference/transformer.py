"""A transformer encoder in numpy, float64: LayerNorm after each residual (Vaswani et al. 2017, Devlin et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.reference.checkpoint import Encodings, Float, Inputs
from bertsym.reference.functions import ACTIVATIONS, dense, layer_norm, relative_buckets, softmax


@dataclass(frozen=True)
class Names:
    """How a library names the weights of an encoder; ``{i}`` is the layer."""

    token: str  #: embedding tables, as position and segment
    position: str
    segment: str | None
    embedding_norm: str
    attention: tuple[str, str, str]  #: query, key and value
    projection: str
    attention_norm: str
    feed_forward: tuple[str, str]
    output_norm: str
    pooler: str
    dense: tuple[str, str] = (".weight", ".bias")  #: endings of a dense layer's weight and bias
    norm: tuple[str, str] = (".weight", ".bias")  #: endings of a LayerNorm's scale and shift
    embedding_projection: str | None = None  #: dense layer from the width of the embeddings to that of the layers
    relative_bias: str | None = None  #: table (buckets, H) that is added to the scores of each head


@dataclass(frozen=True)
class Architecture:
    """The weights and the settings of one encoder."""

    names: Names
    layers: int
    heads: int
    epsilon: float
    activation: str
    position_offset: int = 0  #: row of the position table for the first token
    shares_layers: bool = False  #: whether all layers have the weights of layer 0


def hugging_face_architecture(names: Names, config: Mapping[str, Any], **settings: Any) -> Architecture:
    """An encoder with the keys that most families have in Hugging Face's config.json; `settings` replace them."""
    common = {
        "layers": int(config["num_hidden_layers"]),
        "heads": int(config["num_attention_heads"]),
        "epsilon": float(config.get("layer_norm_eps", 1e-12)),
        "activation": config.get("hidden_act", "gelu"),
    }
    return Architecture(names, **{**common, **settings})


def encode(architecture: Architecture, weights: Mapping[str, Array], batches: Sequence[Inputs]) -> list[Encodings]:
    """The encodings of each batch.

    Each weight is converted to float64 once, when its layer is computed for all batches: little more memory than one
    layer takes in float64. Raises ModelError for an activation that is not in the table.
    """
    name = architecture.activation
    if name not in ACTIVATIONS:
        raise ModelError(f"activation {name!r} is not one that the reference encoder has: {', '.join(ACTIVATIONS)}")
    encoder = _Encoder(architecture, weights)
    biases = [encoder.score_bias(inputs) for inputs in batches]
    states = encoder.embeddings(batches)
    for i in range(architecture.layers):
        states = encoder.layer(0 if architecture.shares_layers else i, states, biases)
    return [encoder.encodings(x, inputs) for x, inputs in zip(states, batches)]


def _is_token(inputs: Inputs) -> Any:
    """(N, T): False at padding."""
    return np.arange(inputs.token_ids.shape[1]) < inputs.valid_length[:, None]


class _Encoder:
    """The parts of one model."""

    def __init__(self, architecture: Architecture, weights: Mapping[str, Array]) -> None:
        self._architecture, self._names, self._weights = architecture, architecture.names, weights
        self._activation = ACTIVATIONS[architecture.activation]

    def embeddings(self, batches: Sequence[Inputs]) -> list[Float]:
        """What the first layer reads of each batch, (N, T, U)."""
        states = self._layer_norm([self._embedded(inputs) for inputs in batches], self._names.embedding_norm)
        projection = self._names.embedding_projection
        return states if projection is None else self._dense(states, projection)

    def _embedded(self, inputs: Inputs) -> Float:
        names, offset, length = self._names, self._architecture.position_offset, inputs.token_ids.shape[1]
        x: Float = self._weights[names.token][inputs.token_ids.astype(np.int64)].astype(np.float64)
        x = x + self._weights[names.position][offset : offset + length].astype(np.float64)
        if names.segment is not None:
            x = x + self._weights[names.segment][inputs.token_types.astype(np.int64)].astype(np.float64)
        return x

    def score_bias(self, inputs: Inputs) -> Float:
        """What is added to the scores of all layers: (N, H or 1, T or 1, T), minus infinity at padding."""
        bias: Float = np.where(_is_token(inputs), 0.0, -np.inf)[:, None, None, :]
        name = self._names.relative_bias
        if name is not None:
            table = self._weights[name].astype(np.float64)
            bias = bias + table[relative_buckets(inputs.token_ids.shape[1], len(table))].transpose(2, 0, 1)
        return bias

    def layer(self, i: int, states: list[Float], biases: list[Float]) -> list[Float]:
        """One transformer layer for all batches, (N, T, U) each."""
        names = self._names
        projected = [self._dense(states, name.format(i=i)) for name in names.attention]
        contexts = [self._attention(q, k, v, bias) for q, k, v, bias in zip(*projected, biases)]
        added = self._added(states, self._dense(contexts, names.projection.format(i=i)))
        attended = self._layer_norm(added, names.attention_norm.format(i=i))
        inner, outer = (name.format(i=i) for name in names.feed_forward)
        activated = [self._activation(x) for x in self._dense(attended, inner)]
        return self._layer_norm(self._added(attended, self._dense(activated, outer)), names.output_norm.format(i=i))

    def encodings(self, x: Float, inputs: Inputs) -> Encodings:
        """What can be read of the last layer."""
        sequence = x * _is_token(inputs)[:, :, None]
        first = x[:, 0]
        pooler = self._names.pooler
        has_pooler = pooler + self._names.dense[0] in self._weights
        return Encodings(
            sequence=sequence,
            cls=first,
            pooled=np.tanh(self._dense([first], pooler)[0]) if has_pooler else None,
            mean=sequence.sum(axis=1) / inputs.valid_length.astype(np.float64)[:, None],
        )

    def _attention(self, query: Float, key: Float, value: Float, bias: Float) -> Float:
        heads = self._architecture.heads
        query, key, value = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (query, key, value))
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        context = softmax(scores + bias) @ value
        batch, heads, length, width = context.shape
        result: Float = context.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)
        return result

    def _dense(self, states: list[Float], name: str) -> list[Float]:
        weight, bias = (self._weights[name + ending].astype(np.float64) for ending in self._names.dense)
        return [dense(x, weight, bias) for x in states]

    def _layer_norm(self, states: list[Float], name: str) -> list[Float]:
        scale, shift = (self._weights[name + ending] for ending in self._names.norm)
        return [layer_norm(x, scale, shift, self._architecture.epsilon) for x in states]

    @staticmethod
    def _added(states: list[Float], others: list[Float]) -> list[Float]:
        return [x + y for x, y in zip(states, others)]
