"""What a head computes from the encodings of a text, float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bertsym.reference.functions import ACTIVATIONS, Array, Float, dense, layer_norm, sigmoid, softmax

Names = tuple[str, str]  # of a weight and a bias, or of a scale and a shift


class Readable(Protocol):
    """Encodings by the names of the outputs of an encoder."""

    def __getitem__(self, output: str) -> Float:
        """One of ``cls``, ``pooled``, ``mean`` and ``sequence``."""


@dataclass(frozen=True)
class Head:
    """What a head reads, and the names of its weights."""

    reads: str
    last: Names  #: of the last dense layer
    transform: Names | None = None  #: of a dense layer before it, followed by the activation of the config
    norm: Names | None = None  #: of a LayerNorm after that
    is_flat: bool = False  #: whether all tokens of a text are read as one vector

    def values(self, encodings: Readable, weights: Mapping[str, Array], config: Mapping[str, Any]) -> Float:
        """What the last layer gives, before softmax: (N, C), or (N, T, C) where each token is read by itself."""
        x = encodings[self.reads]
        if self.is_flat:
            x = x.reshape(len(x), -1)
        if self.transform is not None:
            x = dense(x, *(weights[name] for name in self.transform))
            x = ACTIVATIONS[config.get("hidden_act", config.get("activation", "gelu"))](x)
        if self.norm is not None:
            scale, shift = (weights[name] for name in self.norm)
            x = layer_norm(x, scale, shift, float(config.get("layer_norm_eps", 1e-12)))
        return dense(x, *(weights[name] for name in self.last))


_CLASSIFIER = ("classifier.weight", "classifier.bias")
_PREDICTIONS = "cls.predictions"

#: class of transformers -> its head
HUGGING_FACE_HEADS = {
    "BertForSequenceClassification": Head("pooled", _CLASSIFIER),
    "BertForTokenClassification": Head("sequence", _CLASSIFIER),
    "BertForQuestionAnswering": Head("sequence", ("qa_outputs.weight", "qa_outputs.bias")),
    "BertForMaskedLM": Head(
        "sequence",
        ("embeddings.word_embeddings.weight", f"{_PREDICTIONS}.bias"),
        (f"{_PREDICTIONS}.transform.dense.weight", f"{_PREDICTIONS}.transform.dense.bias"),
        (f"{_PREDICTIONS}.transform.LayerNorm.weight", f"{_PREDICTIONS}.transform.LayerNorm.bias"),
    ),
}


def bundle_head(task: str, reads: str, layer: str) -> Head:
    """The head of a bundle, with the names of its parameters; `layer` is that of its last layer."""
    if task == "masked_lm":
        transform, norm = f"{layer}-transform", f"{layer}-transform-norm"
        return Head(
            reads,
            ("bertmodel0_word_embed_embedding0_weight", f"{layer}_bias"),
            (f"{transform}_weight", f"{transform}_bias"),
            (f"{norm}_gamma", f"{norm}_beta"),
        )
    is_flat = reads == "sequence" and task == "classification"
    return Head(reads, (f"{layer}_weight", f"{layer}_bias"), is_flat=is_flat)


def probabilities(task: str, values: Float) -> Float:
    """Of the classes of a head for `task`: softmax over the last axis, or of each class by itself."""
    return sigmoid(values) if task == "multilabel" else softmax(values)
