"""MPNet (Song et al. 2020, https://arxiv.org/abs/2004.09297), as in Hugging Face's MPNetModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.errors import ModelError
from bertsym.reference.transformer import Architecture, Names, hugging_face_architecture

NAMES = Names(
    token="embeddings.word_embeddings.weight",
    position="embeddings.position_embeddings.weight",
    segment=None,
    embedding_norm="embeddings.LayerNorm",
    attention=(
        "encoder.layer.{i}.attention.attn.q",
        "encoder.layer.{i}.attention.attn.k",
        "encoder.layer.{i}.attention.attn.v",
    ),
    projection="encoder.layer.{i}.attention.attn.o",
    attention_norm="encoder.layer.{i}.attention.LayerNorm",
    feed_forward=("encoder.layer.{i}.intermediate.dense", "encoder.layer.{i}.output.dense"),
    output_norm="encoder.layer.{i}.output.LayerNorm",
    pooler="pooler.dense",
    relative_bias="encoder.relative_attention_bias.weight",
)


def mpnet(config: Mapping[str, Any]) -> Architecture:
    """The encoder of an MPNetModel, whose first position is 2 whatever the config says.

    Raises ModelError unless there are 32 buckets: MPNetModel makes a table of another size, but reads it as 32.
    """
    buckets = config.get("relative_attention_num_buckets", 32)
    if buckets != 32:
        raise ModelError(f"mpnet: {buckets} relative_attention_num_buckets, the reference encoder has 32")
    return hugging_face_architecture(NAMES, config, position_offset=2)
