"""Families of encoders: a module and a row of FAMILIES each."""

from __future__ import annotations

from bertsym.families.albert import ALBERT
from bertsym.families.bert import BERT
from bertsym.families.distilbert import DISTILBERT
from bertsym.families.electra import ELECTRA
from bertsym.families.ernie import ERNIE
from bertsym.families.family import ACTIVATIONS, REQUIRED, Family, HeadClass, Key, text_head
from bertsym.families.mpnet import MPNET
from bertsym.families.name_table import (
    PRETRAINING_HEADS,
    TASK_HEAD,
    NameTable,
    list_names,
    names_in_order,
    printable,
)
from bertsym.families.roberta import ROBERTA

#: name -> family
FAMILIES = {family.name: family for family in (BERT, ROBERTA, DISTILBERT, ELECTRA, ERNIE, ALBERT, MPNET)}

#: ``model_type`` of config.json -> family
MODEL_TYPES = {model_type: family for family in FAMILIES.values() for model_type in family.model_types}

__all__ = [
    "ACTIVATIONS",
    "ALBERT",
    "BERT",
    "DISTILBERT",
    "ELECTRA",
    "ERNIE",
    "FAMILIES",
    "MODEL_TYPES",
    "MPNET",
    "PRETRAINING_HEADS",
    "REQUIRED",
    "ROBERTA",
    "TASK_HEAD",
    "Family",
    "HeadClass",
    "Key",
    "NameTable",
    "list_names",
    "names_in_order",
    "printable",
    "text_head",
]
