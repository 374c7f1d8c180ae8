"""ALBERT (Lan et al. 2019, https://arxiv.org/abs/1909.11942), as in Hugging Face's AlbertModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.errors import ModelError
from bertsym.reference.transformer import Architecture, Names, hugging_face_architecture

_LAYER = "encoder.albert_layer_groups.{i}.albert_layers.0."

NAMES = Names(
    token="embeddings.word_embeddings.weight",
    position="embeddings.position_embeddings.weight",
    segment="embeddings.token_type_embeddings.weight",
    embedding_norm="embeddings.LayerNorm",
    embedding_projection="encoder.embedding_hidden_mapping_in",
    attention=(_LAYER + "attention.query", _LAYER + "attention.key", _LAYER + "attention.value"),
    projection=_LAYER + "attention.dense",
    attention_norm=_LAYER + "attention.LayerNorm",
    feed_forward=(_LAYER + "ffn", _LAYER + "ffn_output"),
    output_norm=_LAYER + "full_layer_layer_norm",
    pooler="pooler",
)


def albert(config: Mapping[str, Any]) -> Architecture:
    """The encoder of an AlbertModel; raises ModelError unless all layers have the same weights."""
    for key in ("num_hidden_groups", "inner_group_num"):
        if config.get(key, 1) != 1:
            raise ModelError(f"albert: {key} {config[key]} is not one that the reference encoder has: 1")
    return hugging_face_architecture(NAMES, config, activation=config.get("hidden_act", "gelu_new"), shares_layers=True)
