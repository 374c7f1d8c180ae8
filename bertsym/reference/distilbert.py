"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108), as in Hugging Face's DistilBertModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.reference.transformer import Architecture, Names

EPSILON = 1e-12  #: of all LayerNorms: no key of the config sets it

NAMES = Names(
    token="embeddings.word_embeddings.weight",
    position="embeddings.position_embeddings.weight",
    segment=None,
    embedding_norm="embeddings.LayerNorm",
    attention=(
        "transformer.layer.{i}.attention.q_lin",
        "transformer.layer.{i}.attention.k_lin",
        "transformer.layer.{i}.attention.v_lin",
    ),
    projection="transformer.layer.{i}.attention.out_lin",
    attention_norm="transformer.layer.{i}.sa_layer_norm",
    feed_forward=("transformer.layer.{i}.ffn.lin1", "transformer.layer.{i}.ffn.lin2"),
    output_norm="transformer.layer.{i}.output_layer_norm",
    pooler="pooler.dense",  # which no DistilBERT has
)


def distilbert(config: Mapping[str, Any]) -> Architecture:
    """The encoder of a DistilBertModel; sinusoidal positions are stored as a table, as learned ones are."""
    return Architecture(
        NAMES, int(config["n_layers"]), int(config["n_heads"]), EPSILON, config.get("activation", "gelu")
    )
