"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692), XLM-RoBERTa and CamemBERT, as in Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.reference.bert import NAMES
from bertsym.reference.transformer import Architecture, hugging_face_architecture


def roberta(config: Mapping[str, Any]) -> Architecture:
    """The encoder of a RobertaModel: a BERT whose first position is the one after the id of the padding.

    Hugging Face counts positions without the tokens that have this id, which only padding has in a tokenized text.
    """
    pad_id = config.get("pad_token_id")
    return hugging_face_architecture(NAMES, config, position_offset=(1 if pad_id is None else int(pad_id)) + 1)
