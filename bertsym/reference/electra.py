"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555), as in Hugging Face's ElectraModel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bertsym.reference.bert import NAMES
from bertsym.reference.transformer import Architecture, hugging_face_architecture


def electra(config: Mapping[str, Any]) -> Architecture:
    """The encoder of an ElectraModel: a BERT whose embeddings are projected where they have another width."""
    is_projected = config["embedding_size"] != config["hidden_size"]
    names = dataclasses.replace(NAMES, embedding_projection="embeddings_project" if is_projected else None)
    return hugging_face_architecture(names, config)
