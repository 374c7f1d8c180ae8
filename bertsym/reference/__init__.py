"""Encoders in numpy, float64, computed from a model as its source stores it: what a written graph is compared with.

Independent of everything that makes graphs: the names of weights and the keys of configs are written down here a second
time, so that a mistake in one place is found by the other. A family of encoders is one module and one row of FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bertsym.reference.albert import albert
from bertsym.reference.bert import bert, ernie
from bertsym.reference.checkpoint import HUGGING_FACE, Checkpoint, Encodings, Inputs, Module
from bertsym.reference.distilbert import distilbert
from bertsym.reference.electra import electra
from bertsym.reference.gluonnlp_names import exported, saved
from bertsym.reference.heads import HUGGING_FACE_HEADS, Readable, bundle_head, probabilities
from bertsym.reference.mpnet import mpnet
from bertsym.reference.roberta import roberta
from bertsym.reference.sentence_transformers import bundle_modules, embed
from bertsym.reference.transformer import Architecture, encode

_Reader = Callable[[Mapping[str, Any]], Architecture]

#: family -> what Hugging Face's config says of its encoder
FAMILIES: Mapping[str, _Reader] = {
    "bert": bert,
    "roberta": roberta,
    "distilbert": distilbert,
    "electra": electra,
    "ernie": ernie,
    "albert": albert,
    "mpnet": mpnet,
}
#: library whose names do not depend on the family -> what its config says of an encoder
_LIBRARIES: Mapping[str, _Reader] = {"GluonNLP export": exported, "GluonNLP save_parameters": saved}

__all__ = [
    "FAMILIES",
    "HUGGING_FACE_HEADS",
    "Checkpoint",
    "Encodings",
    "Inputs",
    "Module",
    "Readable",
    "bundle_head",
    "bundle_modules",
    "embed",
    "encoder_outputs",
    "probabilities",
]


def encoder_outputs(family: str, checkpoint: Checkpoint, batches: Sequence[Inputs]) -> list[Encodings]:
    """The encodings of each batch; `family` is a key of FAMILIES.

    Raises ModelError for a setting that the reference encoder does not have.
    """
    read = FAMILIES[family] if checkpoint.library == HUGGING_FACE else _LIBRARIES[checkpoint.library]
    return encode(read(checkpoint.config), checkpoint.weights, batches)
