"""MPNet (Song et al. 2020, https://arxiv.org/abs/2004.09297): relative positions beside absolute ones, no segments."""

from __future__ import annotations

from bertsym.families.bert import CONSTANTS, KEYS
from bertsym.families.family import Family, HeadClass, dense, heads, masked_lm, two_layer_classifier
from bertsym.families.name_table import PRETRAINING_HEADS, TASK_HEAD, NameTable, names_in_order

_BUCKETS = 32  # MPNetModel reads its table as one of 32 buckets, whatever the config says

MPNET = Family(
    "mpnet",
    "MPNet",
    {"mpnet": "MPNet"},
    {name: key for name, key in KEYS.items() if name != "token_type_vocab_size"},
    NameTable(
        "Hugging Face",
        names_in_order(
            "embeddings.word_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.bias",
            "encoder.relative_attention_bias.weight",
            "encoder.layer.{i}.attention.attn.q.weight",
            "encoder.layer.{i}.attention.attn.q.bias",
            "encoder.layer.{i}.attention.attn.k.weight",
            "encoder.layer.{i}.attention.attn.k.bias",
            "encoder.layer.{i}.attention.attn.v.weight",
            "encoder.layer.{i}.attention.attn.v.bias",
            "encoder.layer.{i}.attention.attn.o.weight",
            "encoder.layer.{i}.attention.attn.o.bias",
            "encoder.layer.{i}.attention.LayerNorm.weight",
            "encoder.layer.{i}.attention.LayerNorm.bias",
            "encoder.layer.{i}.intermediate.dense.weight",
            "encoder.layer.{i}.intermediate.dense.bias",
            "encoder.layer.{i}.output.dense.weight",
            "encoder.layer.{i}.output.dense.bias",
            "encoder.layer.{i}.output.LayerNorm.weight",
            "encoder.layer.{i}.output.LayerNorm.bias",
            "pooler.dense.weight",
            "pooler.dense.bias",
            segments=False,
            relative_positions=True,
        ),
        ignored={
            **CONSTANTS,
            r"lm_head\..*": PRETRAINING_HEADS,
            r"(classifier|qa_outputs)\..*": TASK_HEAD,
        },
        prefix="mpnet.",
    ),
    heads(
        "MPNet",
        {
            "SequenceClassification": two_layer_classifier(
                "classifier.dense",
                "classifier.out_proj",
                "tanh",
                drops_input=True,
                dropout=("hidden_dropout_prob", 0.1),
            ),
            "TokenClassification": HeadClass(
                "tagging", "sequence", dense("classifier"), dropout=("hidden_dropout_prob", 0.1)
            ),
            "QuestionAnswering": HeadClass("qa", "sequence", dense("qa_outputs"), dropout=None),
            "MaskedLM": masked_lm(
                "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight", activation="gelu"
            ),
        },
    ),
    supported={"relative_attention_num_buckets": _BUCKETS},
    settings={"token_type_vocab_size": 0, "relative_buckets": _BUCKETS},
    pad_id=1,
    padding_row=1,
)
