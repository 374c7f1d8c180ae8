"""Checkpoints of the tiny BERT with trained heads, as the classes of transformers save them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from conftest import CONFIG, hugging_face_weights, write_hugging_face

from bertsym.array import Array

UNITS, VOCAB = CONFIG["hidden_size"], CONFIG["vocab_size"]
LABELS = {"0": "neutral", "1": "entailment", "2": "contradiction"}

#: what is tested -> class of transformers and further keys of config.json
HEADS: dict[str, tuple[str, dict[str, object]]] = {
    "classification": (
        "BertForSequenceClassification",
        {"id2label": LABELS, "problem_type": "single_label_classification"},
    ),
    "multilabel": ("BertForSequenceClassification", {"id2label": LABELS, "problem_type": "multi_label_classification"}),
    "regression": ("BertForSequenceClassification", {"id2label": {"0": "LABEL_0"}, "classifier_dropout": 0.3}),
    "tagging": ("BertForTokenClassification", {"id2label": LABELS}),
    "qa": ("BertForQuestionAnswering", {}),
    "masked_lm": ("BertForMaskedLM", {}),
}


def head_shapes(architecture: str, num_labels: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the weights of a head."""
    if architecture == "BertForMaskedLM":
        transform = "cls.predictions.transform"
        return {
            "cls.predictions.bias": (VOCAB,),
            f"{transform}.dense.weight": (UNITS, UNITS),
            f"{transform}.dense.bias": (UNITS,),
            f"{transform}.LayerNorm.weight": (UNITS,),
            f"{transform}.LayerNorm.bias": (UNITS,),
        }
    layer = "qa_outputs" if architecture == "BertForQuestionAnswering" else "classifier"
    return {f"{layer}.weight": (num_labels, UNITS), f"{layer}.bias": (num_labels,)}


def headed_weights(task: str, seed: int = 1) -> dict[str, Array]:
    """Weights of the tiny BERT with a head, large enough that each of them matters."""
    architecture, config = HEADS[task]
    labels = config.get("id2label")
    shapes = head_shapes(architecture, len(labels) if isinstance(labels, dict) else 2)
    rng = np.random.default_rng(seed)
    encoder = {f"bert.{name}": array for name, array in hugging_face_weights().items()}
    if not architecture.endswith("SequenceClassification"):
        encoder = {name: array for name, array in encoder.items() if ".pooler." not in name}
    return {**encoder, **{name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}}


def write_headed(folder: Path, task: str, weights: dict[str, Array] | None = None, **changes: object) -> Path:
    """A folder of the tiny BERT with the head of a key of HEADS; keywords change config.json, None removes a key."""
    architecture, config = HEADS[task]
    write_hugging_face(folder, headed_weights(task) if weights is None else weights)
    keys = {**CONFIG, "architectures": [architecture], **config, **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in keys.items() if value is not None}))
    return folder
