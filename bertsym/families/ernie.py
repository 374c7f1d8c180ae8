"""ERNIE 1.0 (Sun et al. 2019, https://arxiv.org/abs/1904.09223): a BERT with ReLU.

The task embeddings of ERNIE 2.0 and 3.0 are not supported.
"""

from __future__ import annotations

import dataclasses

from bertsym.families.bert import BERT, BERT_HEADS, SUPPORTED
from bertsym.families.family import Family, heads

ERNIE = Family(
    "ernie",
    "ERNIE",
    {"ernie": "Ernie"},
    BERT.keys,
    dataclasses.replace(BERT.names, prefix="ernie."),
    heads("Ernie", BERT_HEADS),
    {**SUPPORTED, "use_task_id": False},
)
