"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): a BERT without segments and without a pooler."""

from __future__ import annotations

from bertsym.families.family import REQUIRED, Family, HeadClass, dense, heads, masked_lm, two_layer_classifier
from bertsym.families.name_table import PRETRAINING_HEADS, TASK_HEAD, NameTable, names_in_order

DISTILBERT = Family(
    "distilbert",
    "DistilBERT",
    {"distilbert": "DistilBert"},
    {
        "num_layers": ("n_layers", REQUIRED),
        "units": ("dim", REQUIRED),
        "hidden_size": ("hidden_dim", REQUIRED),
        "num_heads": ("n_heads", REQUIRED),
        "vocab_size": ("vocab_size", REQUIRED),
        "max_length": ("max_position_embeddings", 512),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.1),
        "activation": ("activation", "gelu"),
    },
    NameTable(
        "Hugging Face",
        names_in_order(
            "embeddings.word_embeddings.weight",
            "embeddings.position_embeddings.weight",
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.bias",
            "transformer.layer.{i}.attention.q_lin.weight",
            "transformer.layer.{i}.attention.q_lin.bias",
            "transformer.layer.{i}.attention.k_lin.weight",
            "transformer.layer.{i}.attention.k_lin.bias",
            "transformer.layer.{i}.attention.v_lin.weight",
            "transformer.layer.{i}.attention.v_lin.bias",
            "transformer.layer.{i}.attention.out_lin.weight",
            "transformer.layer.{i}.attention.out_lin.bias",
            "transformer.layer.{i}.sa_layer_norm.weight",
            "transformer.layer.{i}.sa_layer_norm.bias",
            "transformer.layer.{i}.ffn.lin1.weight",
            "transformer.layer.{i}.ffn.lin1.bias",
            "transformer.layer.{i}.ffn.lin2.weight",
            "transformer.layer.{i}.ffn.lin2.bias",
            "transformer.layer.{i}.output_layer_norm.weight",
            "transformer.layer.{i}.output_layer_norm.bias",
            segments=False,
            pooler=False,
        ),
        ignored={
            r"embeddings\.position_ids": "constant",
            r"vocab_(transform|layer_norm|projector)\..*": PRETRAINING_HEADS,
            r"(pre_classifier|classifier|qa_outputs)\..*": TASK_HEAD,
        },
        prefix="distilbert.",
    ),
    heads(
        "DistilBert",
        {
            "SequenceClassification": two_layer_classifier(
                "pre_classifier",
                "classifier",
                "relu",
                dropout=("seq_classif_dropout", 0.2),
            ),
            "TokenClassification": HeadClass("tagging", "sequence", dense("classifier"), dropout=("dropout", 0.1)),
            "QuestionAnswering": HeadClass("qa", "sequence", dense("qa_outputs"), dropout=("qa_dropout", 0.1)),
            "MaskedLM": masked_lm(
                "vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight"
            ),
        },
    ),
    settings={"token_type_vocab_size": 0, "layer_norm_eps": 1e-12},
)
