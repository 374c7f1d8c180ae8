"""BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805), with the names of Hugging Face's BertModel.

ERNIE 1.0 (Sun et al. 2019, https://arxiv.org/abs/1904.09223) is a BERT with another activation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.errors import ModelError
from bertsym.reference.transformer import Architecture, Names, hugging_face_architecture

NAMES = Names(
    token="embeddings.word_embeddings.weight",
    position="embeddings.position_embeddings.weight",
    segment="embeddings.token_type_embeddings.weight",
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
)


def bert(config: Mapping[str, Any]) -> Architecture:
    """The encoder of a BertModel with this config.json."""
    return hugging_face_architecture(NAMES, config)


def ernie(config: Mapping[str, Any]) -> Architecture:
    """The encoder of an ErnieModel; raises ModelError for the task embeddings of ERNIE 2.0 and 3.0."""
    if config.get("use_task_id"):
        raise ModelError("ernie: use_task_id is not one that the reference encoder has")
    return hugging_face_architecture(NAMES, config)
