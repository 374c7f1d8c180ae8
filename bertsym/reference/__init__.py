"""Encoders in numpy, float64, computed from a model as its source stores it: what a written graph is compared with.

Independent of everything that makes graphs: the names of weights and the keys of configs are written down here a second
time, so that a mistake in one place is found by the other. A family of encoders is one module and one row of FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bertsym.reference.bert import bert_outputs
from bertsym.reference.checkpoint import Checkpoint, Encodings, Inputs
from bertsym.reference.heads import HUGGING_FACE_HEADS, Readable, bundle_head, probabilities

#: family -> function from a checkpoint and batches of inputs to the encodings of each batch
FAMILIES: dict[str, Callable[[Checkpoint, Sequence[Inputs]], list[Encodings]]] = {"bert": bert_outputs}

__all__ = [
    "FAMILIES",
    "HUGGING_FACE_HEADS",
    "Checkpoint",
    "Encodings",
    "Inputs",
    "Readable",
    "bert_outputs",
    "bundle_head",
    "probabilities",
]
