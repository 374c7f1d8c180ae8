"""BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805)."""

from __future__ import annotations

import dataclasses

from bertsym.families.family import REQUIRED, Family, HeadClass, Key, dense, heads, masked_lm
from bertsym.families.name_table import PRETRAINING_HEADS, TASK_HEAD, NameTable, names_in_order

#: keys of config.json that most families share
KEYS: dict[str, Key] = {
    "num_layers": ("num_hidden_layers", REQUIRED),
    "units": ("hidden_size", REQUIRED),
    "hidden_size": ("intermediate_size", REQUIRED),
    "num_heads": ("num_attention_heads", REQUIRED),
    "vocab_size": ("vocab_size", REQUIRED),
    "max_length": ("max_position_embeddings", 512),
    "token_type_vocab_size": ("type_vocab_size", 2),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "activation": ("hidden_act", "gelu"),
}
SUPPORTED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
NAMES = names_in_order(
    "embeddings.word_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.LayerNorm.weight",
    "embeddings.LayerNorm.bias",
    "encoder.layer.{i}.attention.self.query.weight",
    "encoder.layer.{i}.attention.self.query.bias",
    "encoder.layer.{i}.attention.self.key.weight",
    "encoder.layer.{i}.attention.self.key.bias",
    "encoder.layer.{i}.attention.self.value.weight",
    "encoder.layer.{i}.attention.self.value.bias",
    "encoder.layer.{i}.attention.output.dense.weight",
    "encoder.layer.{i}.attention.output.dense.bias",
    "encoder.layer.{i}.attention.output.LayerNorm.weight",
    "encoder.layer.{i}.attention.output.LayerNorm.bias",
    "encoder.layer.{i}.intermediate.dense.weight",
    "encoder.layer.{i}.intermediate.dense.bias",
    "encoder.layer.{i}.output.dense.weight",
    "encoder.layer.{i}.output.dense.bias",
    "encoder.layer.{i}.output.LayerNorm.weight",
    "encoder.layer.{i}.output.LayerNorm.bias",
    "pooler.dense.weight",
    "pooler.dense.bias",
)
#: checkpoints converted from TensorFlow keep its names for LayerNorm
SPELLINGS = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
CONSTANTS = {r"embeddings\.(position_ids|token_type_ids)": "constant"}

_PREDICTIONS = "cls.predictions"
_MASKED_LM = masked_lm(
    f"{_PREDICTIONS}.transform.dense",
    f"{_PREDICTIONS}.transform.LayerNorm",
    f"{_PREDICTIONS}.bias",
    f"{_PREDICTIONS}.decoder.weight",
)

BERT_HEADS = {
    "SequenceClassification": HeadClass(None, "pooled", dense("classifier")),
    "TokenClassification": HeadClass("tagging", "sequence", dense("classifier")),
    "QuestionAnswering": HeadClass("qa", "sequence", dense("qa_outputs"), dropout=None),
    "MaskedLM": _MASKED_LM,
    "PreTraining": dataclasses.replace(_MASKED_LM, left_out=(*dense("cls.seq_relationship"),)),
}

BERT = Family(
    "bert",
    "BERT",
    {"bert": "Bert"},
    KEYS,
    NameTable(
        "Hugging Face",
        NAMES,
        SPELLINGS,
        {**CONSTANTS, r"cls\..*": PRETRAINING_HEADS, r"(classifier|qa_outputs|score)\..*": TASK_HEAD},
    ),
    heads("Bert", BERT_HEADS),
    SUPPORTED,
)
