"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692), and those with its graph: XLM-RoBERTa, CamemBERT."""

from __future__ import annotations

from bertsym.families.bert import CONSTANTS, KEYS, NAMES, SPELLINGS, SUPPORTED
from bertsym.families.family import Family, HeadClass, dense, heads, masked_lm, two_layer_classifier
from bertsym.families.name_table import PRETRAINING_HEADS, TASK_HEAD, NameTable

_MODEL_TYPES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
_HEADS = {
    "SequenceClassification": two_layer_classifier("classifier.dense", "classifier.out_proj", "tanh", drops_input=True),
    "TokenClassification": HeadClass("tagging", "sequence", dense("classifier")),
    "QuestionAnswering": HeadClass("qa", "sequence", dense("qa_outputs"), dropout=None),
    "MaskedLM": masked_lm(
        "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight", activation="gelu"
    ),
}

ROBERTA = Family(
    "roberta",
    "RoBERTa",
    _MODEL_TYPES,
    KEYS,
    NameTable(
        "Hugging Face",
        NAMES,
        SPELLINGS,
        {**CONSTANTS, r"lm_head\..*": PRETRAINING_HEADS, r"(classifier|qa_outputs)\..*": TASK_HEAD},
        prefix="roberta.",
    ),
    {name: head for prefix in _MODEL_TYPES.values() for name, head in heads(prefix, _HEADS).items()},
    SUPPORTED,
    pad_id=1,
    starts_after_padding=True,
)
