"""BERT in numpy, float64.

Source: Devlin et al. 2018 (https://arxiv.org/abs/1810.04805); names of weights and keys of the config as in Hugging
Face's BertModel and in GluonNLP 0.10's BERTModel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertsym.errors import ModelError
from bertsym.reference.checkpoint import Checkpoint, Encodings, Float, Inputs
from bertsym.reference.functions import ACTIVATIONS, dense, layer_norm, softmax


@dataclass(frozen=True)
class _Library:
    """How a library names the weights and the settings of a BERT; ``{i}`` is the layer."""

    tables: tuple[str, str, str]  #: token, position and segment embedding
    embedding_norm: str
    attention: tuple[str, str, str]  #: query, key and value
    projection: str
    attention_norm: str
    feed_forward: tuple[str, str]
    output_norm: str
    pooler: str
    dense: tuple[str, str]  #: endings of a dense layer's weight and bias
    norm: tuple[str, str]  #: endings of a LayerNorm's scale and shift
    layers: str  #: key of the config: number of layers
    heads: str
    epsilon: str
    activation: str  #: gelu where there is no key


_CELLS = "encoder.transformer_cells.{i}."
_TRANSFORMER = "bertencoder0_transformer{i}_"

LIBRARIES: Mapping[str, _Library] = {
    "Hugging Face": _Library(
        tables=(
            "embeddings.word_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "embeddings.token_type_embeddings.weight",
        ),
        embedding_norm="embeddings.LayerNorm",
        attention=(
            "encoder.layer.{i}.attention.self.query",
            "encoder.layer.{i}.attention.self.key",
            "encoder.layer.{i}.attention.self.value",
        ),
        projection="encoder.layer.{i}.attention.output.dense",
        attention_norm="encoder.layer.{i}.attention.output.LayerNorm",
        feed_forward=("encoder.layer.{i}.intermediate.dense", "encoder.layer.{i}.output.dense"),
        output_norm="encoder.layer.{i}.output.LayerNorm",
        pooler="pooler.dense",
        dense=(".weight", ".bias"),
        norm=(".weight", ".bias"),
        layers="num_hidden_layers",
        heads="num_attention_heads",
        epsilon="layer_norm_eps",
        activation="hidden_act",
    ),
    "GluonNLP export": _Library(
        tables=(
            "bertmodel0_word_embed_embedding0_weight",
            "bertencoder0_position_weight",
            "bertmodel0_token_type_embed_embedding0_weight",
        ),
        embedding_norm="bertencoder0_layernorm0",
        attention=(
            _TRANSFORMER + "dotproductselfattentioncell0_query",
            _TRANSFORMER + "dotproductselfattentioncell0_key",
            _TRANSFORMER + "dotproductselfattentioncell0_value",
        ),
        projection=_TRANSFORMER + "proj",
        attention_norm=_TRANSFORMER + "layernorm0",
        feed_forward=(_TRANSFORMER + "positionwiseffn0_ffn_1", _TRANSFORMER + "positionwiseffn0_ffn_2"),
        output_norm=_TRANSFORMER + "positionwiseffn0_layernorm0",
        pooler="bertmodel0_pooler",
        dense=("_weight", "_bias"),
        norm=("_gamma", "_beta"),
        layers="num_layers",
        heads="num_heads",
        epsilon="layer_norm_eps",
        activation="activation",
    ),
    "GluonNLP save_parameters": _Library(
        tables=("word_embed.0.weight", "encoder.position_weight", "token_type_embed.0.weight"),
        embedding_norm="encoder.layer_norm",
        attention=(
            _CELLS + "attention_cell.proj_query",
            _CELLS + "attention_cell.proj_key",
            _CELLS + "attention_cell.proj_value",
        ),
        projection=_CELLS + "proj",
        attention_norm=_CELLS + "layer_norm",
        feed_forward=(_CELLS + "ffn.ffn_1", _CELLS + "ffn.ffn_2"),
        output_norm=_CELLS + "ffn.layer_norm",
        pooler="pooler",
        dense=(".weight", ".bias"),
        norm=(".gamma", ".beta"),
        layers="num_layers",
        heads="num_heads",
        epsilon="layer_norm_eps",
        activation="activation",
    ),
}


def bert_outputs(checkpoint: Checkpoint, batches: Sequence[Inputs]) -> list[Encodings]:
    """The encodings of each batch.

    Each weight is converted to float64 once, when its layer is computed for all batches: little more memory than one
    layer takes in float64. Raises ModelError for an activation that is not in the table.
    """
    library, config = LIBRARIES[checkpoint.library], checkpoint.config
    name = config.get(library.activation, "gelu")
    if name not in ACTIVATIONS:
        raise ModelError(f"activation {name!r} is not one that the reference encoder has: {', '.join(ACTIVATIONS)}")
    encoder = _Bert(checkpoint, library, ACTIVATIONS[name])
    # Of each batch (N, 1, 1, T): whether a token is read.
    masks = [_is_token(inputs)[:, None, None, :] for inputs in batches]
    states = [encoder.embeddings(inputs) for inputs in batches]
    for i in range(int(config[library.layers])):
        states = encoder.layer(i, states, masks)
    return [encoder.encodings(x, inputs) for x, inputs in zip(states, batches)]


def _is_token(inputs: Inputs) -> Any:
    """(N, T): False at padding."""
    return np.arange(inputs.token_ids.shape[1]) < inputs.valid_length[:, None]


class _Bert:
    """The parts of one model."""

    def __init__(self, checkpoint: Checkpoint, library: _Library, activation: Callable[[Float], Float]) -> None:
        self._weights, self._library, self._activation = checkpoint.weights, library, activation
        self._heads = int(checkpoint.config[library.heads])
        self._epsilon = float(checkpoint.config.get(library.epsilon, 1e-12))

    def embeddings(self, inputs: Inputs) -> Float:
        """What the first layer reads, (N, T, U)."""
        token, position, segment = self._library.tables
        ids, types = (array.astype(np.int64) for array in (inputs.token_ids, inputs.token_types))
        x = self._weights[token][ids].astype(np.float64)
        x = x + self._weights[position][: ids.shape[1]].astype(np.float64)
        x = x + self._weights[segment][types].astype(np.float64)
        return self._layer_norm([x], self._library.embedding_norm)[0]

    def layer(self, i: int, states: list[Float], masks: list[Any]) -> list[Float]:
        """One transformer layer for all batches, (N, T, U) each."""
        library = self._library
        projected = [self._dense(states, name.format(i=i)) for name in library.attention]
        contexts = [self._attention(q, k, v, mask) for q, k, v, mask in zip(*projected, masks)]
        added = self._added(states, self._dense(contexts, library.projection.format(i=i)))
        attended = self._layer_norm(added, library.attention_norm.format(i=i))
        inner, outer = (name.format(i=i) for name in library.feed_forward)
        activated = [self._activation(x) for x in self._dense(attended, inner)]
        return self._layer_norm(self._added(attended, self._dense(activated, outer)), library.output_norm.format(i=i))

    def encodings(self, x: Float, inputs: Inputs) -> Encodings:
        """What can be read of the last layer."""
        sequence = x * _is_token(inputs)[:, :, None]
        first = x[:, 0]
        pooler = self._library.pooler
        has_pooler = pooler + self._library.dense[0] in self._weights
        return Encodings(
            sequence=sequence,
            cls=first,
            pooled=np.tanh(self._dense([first], pooler)[0]) if has_pooler else None,
            mean=sequence.sum(axis=1) / inputs.valid_length.astype(np.float64)[:, None],
        )

    def _attention(self, query: Float, key: Float, value: Float, mask: Any) -> Float:
        query, key, value = (
            x.reshape(*x.shape[:2], self._heads, -1).transpose(0, 2, 1, 3) for x in (query, key, value)
        )
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        context = softmax(np.where(mask, scores, -np.inf)) @ value
        batch, heads, length, width = context.shape
        result: Float = context.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)
        return result

    def _dense(self, states: list[Float], name: str) -> list[Float]:
        weight, bias = (self._weights[name + ending].astype(np.float64) for ending in self._library.dense)
        return [dense(x, weight, bias) for x in states]

    def _layer_norm(self, states: list[Float], name: str) -> list[Float]:
        scale, shift = (self._weights[name + ending] for ending in self._library.norm)
        return [layer_norm(x, scale, shift, self._epsilon) for x in states]

    @staticmethod
    def _added(states: list[Float], others: list[Float]) -> list[Float]:
        return [x + y for x, y in zip(states, others)]
