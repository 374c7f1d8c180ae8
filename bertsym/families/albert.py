"""ALBERT (Lan et al. 2019, https://arxiv.org/abs/1909.11942): all layers have the same parameters."""

from __future__ import annotations

import dataclasses

from bertsym.families.bert import CONSTANTS, KEYS, SUPPORTED
from bertsym.families.family import REQUIRED, Family, HeadClass, dense, heads, masked_lm
from bertsym.families.name_table import (
    PRETRAINING_HEADS,
    TASK_HEAD,
    NameTable,
    names_in_order,
    projection_names,
)

_LAYER = "encoder.albert_layer_groups.0.albert_layers.0."
_DROPOUT = ("classifier_dropout_prob", 0.1)
_MASKED_LM = masked_lm("predictions.dense", "predictions.LayerNorm", "predictions.bias", "predictions.decoder.weight")

ALBERT = Family(
    "albert",
    "ALBERT",
    {"albert": "Albert"},
    {
        **KEYS,
        "embedding_size": ("embedding_size", REQUIRED),
        "dropout": ("hidden_dropout_prob", 0.0),
        "attention_dropout": ("attention_probs_dropout_prob", 0.0),
        "activation": ("hidden_act", "gelu_new"),
    },
    NameTable(
        "Hugging Face",
        names_in_order(
            "embeddings.word_embeddings.weight",
            "embeddings.token_type_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.bias",
            f"{_LAYER}attention.query.weight",
            f"{_LAYER}attention.query.bias",
            f"{_LAYER}attention.key.weight",
            f"{_LAYER}attention.key.bias",
            f"{_LAYER}attention.value.weight",
            f"{_LAYER}attention.value.bias",
            f"{_LAYER}attention.dense.weight",
            f"{_LAYER}attention.dense.bias",
            f"{_LAYER}attention.LayerNorm.weight",
            f"{_LAYER}attention.LayerNorm.bias",
            f"{_LAYER}ffn.weight",
            f"{_LAYER}ffn.bias",
            f"{_LAYER}ffn_output.weight",
            f"{_LAYER}ffn_output.bias",
            f"{_LAYER}full_layer_layer_norm.weight",
            f"{_LAYER}full_layer_layer_norm.bias",
            "pooler.weight",
            "pooler.bias",
        )
        | projection_names("encoder.embedding_hidden_mapping_in"),
        ignored={
            **CONSTANTS,
            r"(predictions|sop_classifier)\..*": PRETRAINING_HEADS,
            r"(classifier|qa_outputs)\..*": TASK_HEAD,
        },
        prefix="albert.",
    ),
    heads(
        "Albert",
        {
            "SequenceClassification": HeadClass(None, "pooled", dense("classifier"), dropout=_DROPOUT),
            "TokenClassification": HeadClass("tagging", "sequence", dense("classifier"), dropout=_DROPOUT),
            "QuestionAnswering": HeadClass("qa", "sequence", dense("qa_outputs"), dropout=None),
            "MaskedLM": _MASKED_LM,
            "PreTraining": dataclasses.replace(_MASKED_LM, left_out=(*dense("sop_classifier.classifier"),)),
        },
    ),
    {**SUPPORTED, "num_hidden_groups": 1, "inner_group_num": 1},
    settings={"shares_layers": True},
    always_projects=True,
)
