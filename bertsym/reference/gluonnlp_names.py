"""Encoders with the names of GluonNLP 0.10's BERTModel: bundles of any family, and files of ``save_parameters``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bertsym.reference.transformer import Architecture, Names

_TRANSFORMER = "bertencoder0_transformer{i}_"
_CELLS = "encoder.transformer_cells.{i}."

EXPORTED = Names(
    token="bertmodel0_word_embed_embedding0_weight",
    position="bertencoder0_position_weight",
    segment="bertmodel0_token_type_embed_embedding0_weight",
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
)
SAVED = Names(
    token="word_embed.0.weight",
    position="encoder.position_weight",
    segment="token_type_embed.0.weight",
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
    norm=(".gamma", ".beta"),
)


def exported(config: Mapping[str, Any]) -> Architecture:
    """The encoder of a bundle with this config."""
    names = dataclasses.replace(
        EXPORTED,
        segment=EXPORTED.segment if config["token_type_vocab_size"] else None,
        embedding_projection=None if config.get("embedding_size") is None else "bertencoder0_embed_projection",
        relative_bias="bertencoder0_relative_attention_bias_weight" if config.get("relative_buckets") else None,
    )
    return _architecture(names, config)


def saved(config: Mapping[str, Any]) -> Architecture:
    """The encoder of a file of ``save_parameters``."""
    return _architecture(SAVED, config)


def _architecture(names: Names, config: Mapping[str, Any]) -> Architecture:
    return Architecture(
        names,
        layers=int(config["num_layers"]),
        heads=int(config["num_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=config.get("activation", "gelu"),
        position_offset=int(config.get("position_offset", 0)),
        shares_layers=bool(config.get("shares_layers")),
    )
