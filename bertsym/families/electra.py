"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): a BERT whose embeddings may have another width."""

from __future__ import annotations

from bertsym.encoders.parameters import POOLER
from bertsym.families.bert import CONSTANTS, KEYS, NAMES, SPELLINGS, SUPPORTED
from bertsym.families.family import REQUIRED, Family, HeadClass, dense, heads, masked_lm, two_layer_classifier
from bertsym.families.name_table import PRETRAINING_HEADS, TASK_HEAD, NameTable, projection_names

ELECTRA = Family(
    "electra",
    "ELECTRA",
    {"electra": "Electra"},
    {**KEYS, "embedding_size": ("embedding_size", REQUIRED)},
    NameTable(
        "Hugging Face",
        {ours: name for ours, name in NAMES.items() if ours not in POOLER} | projection_names("embeddings_project"),
        SPELLINGS,
        {
            **CONSTANTS,
            r"(generator_predictions|generator_lm_head|discriminator_predictions)\..*": PRETRAINING_HEADS,
            r"(classifier|qa_outputs)\..*": TASK_HEAD,
        },
        prefix="electra.",
    ),
    heads(
        "Electra",
        {
            "SequenceClassification": two_layer_classifier(
                "classifier.dense", "classifier.out_proj", "gelu", drops_input=True
            ),
            "TokenClassification": HeadClass("tagging", "sequence", dense("classifier")),
            "QuestionAnswering": HeadClass("qa", "sequence", dense("qa_outputs"), dropout=None),
            "MaskedLM": masked_lm(
                "generator_predictions.dense",
                "generator_predictions.LayerNorm",
                "generator_lm_head.bias",
                "generator_lm_head.weight",
                activation="gelu",
            ),
            "PreTraining": HeadClass(
                None,
                "cls",
                weights={},
                left_out=(
                    *dense("discriminator_predictions.dense"),
                    *dense("discriminator_predictions.dense_prediction"),
                ),
            ),
        },
    ),
    SUPPORTED,
)
