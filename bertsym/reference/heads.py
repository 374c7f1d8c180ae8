"""What a head computes from the encodings of a text, float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bertsym.array import Array
from bertsym.reference.distilbert import EPSILON
from bertsym.reference.functions import ACTIVATIONS, Float, dense, layer_norm, sigmoid, softmax

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
    transform: Names | None = None  #: of a dense layer before it, followed by an activation
    activation: str | None = None  #: after the transform; None: that of the config
    default_activation: str = "gelu"  #: where the config has none
    norm: Names | None = None  #: of a LayerNorm after that
    epsilon: float | None = None  #: of the LayerNorm; None: that of the config
    is_flat: bool = False  #: whether all tokens of a text are read as one vector

    def values(self, encodings: Readable, weights: Mapping[str, Array], config: Mapping[str, Any]) -> Float:
        """What the last layer gives, before softmax: (N, C), or (N, T, C) where each token is read by itself."""
        x = encodings[self.reads]
        if self.is_flat:
            x = x.reshape(len(x), -1)
        if self.transform is not None:
            x = dense(x, *(weights[name] for name in self.transform))
            named = config.get("hidden_act", config.get("activation", self.default_activation))
            x = ACTIVATIONS[self.activation or named](x)
        if self.norm is not None:
            scale, shift = (weights[name] for name in self.norm)
            epsilon = float(config.get("layer_norm_eps", 1e-12)) if self.epsilon is None else self.epsilon
            x = layer_norm(x, scale, shift, epsilon)
        return dense(x, *(weights[name] for name in self.last))


_TOKENS = "embeddings.word_embeddings.weight"  # what a head of masked language modelling multiplies with last


def _layer(name: str) -> Names:
    return f"{name}.weight", f"{name}.bias"


def _masked_lm(transform: str, norm: str, bias: str, **settings: Any) -> Head:
    """A head whose last weight is that of the token embedding."""
    return Head("sequence", (_TOKENS, bias), transform=_layer(transform), norm=_layer(norm), **settings)


_BERT_CLASSIFIER = Head("pooled", _layer("classifier"))
_BERT_MASKED_LM = _masked_lm(
    "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"
)
_ROBERTA_CLASSIFIER = Head(
    "cls", _layer("classifier.out_proj"), transform=_layer("classifier.dense"), activation="tanh"
)
_ROBERTA_MASKED_LM = _masked_lm("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", activation="gelu")

#: family -> its heads of sequence classification and of masked language modelling
_FAMILY_HEADS = {
    "bert": (_BERT_CLASSIFIER, _BERT_MASKED_LM),
    "ernie": (_BERT_CLASSIFIER, _BERT_MASKED_LM),
    "roberta": (_ROBERTA_CLASSIFIER, _ROBERTA_MASKED_LM),
    "mpnet": (_ROBERTA_CLASSIFIER, _ROBERTA_MASKED_LM),
    "distilbert": (
        Head("cls", _layer("classifier"), transform=_layer("pre_classifier"), activation="relu"),
        _masked_lm("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", epsilon=EPSILON),
    ),
    "electra": (
        Head("cls", _layer("classifier.out_proj"), transform=_layer("classifier.dense"), activation="gelu"),
        _masked_lm(
            "generator_predictions.dense",
            "generator_predictions.LayerNorm",
            "generator_lm_head.bias",
            activation="gelu",
        ),
    ),
    "albert": (
        _BERT_CLASSIFIER,
        _masked_lm("predictions.dense", "predictions.LayerNorm", "predictions.bias", default_activation="gelu_new"),
    ),
}
_PRETRAINED_WITH_MASKED_LM = ("bert", "ernie", "albert")
#: how the names of transformers' classes begin -> family
_CLASSES = {
    "Bert": "bert",
    "Ernie": "ernie",
    "Roberta": "roberta",
    "XLMRoberta": "roberta",
    "Camembert": "roberta",
    "MPNet": "mpnet",
    "DistilBert": "distilbert",
    "Electra": "electra",
    "Albert": "albert",
}


def _heads(prefix: str, family: str) -> dict[str, Head]:
    classification, masked_lm = _FAMILY_HEADS[family]
    return {
        f"{prefix}ForSequenceClassification": classification,
        f"{prefix}ForTokenClassification": Head("sequence", _layer("classifier")),
        f"{prefix}ForQuestionAnswering": Head("sequence", _layer("qa_outputs")),
        f"{prefix}ForMaskedLM": masked_lm,
        # Has a second head, which is not exported; that of ELECTRA is the only one.
        **({f"{prefix}ForPreTraining": masked_lm} if family in _PRETRAINED_WITH_MASKED_LM else {}),
    }


#: class of transformers -> its head
HUGGING_FACE_HEADS: Mapping[str, Head] = {
    name: head for prefix, family in _CLASSES.items() for name, head in _heads(prefix, family).items()
}


def bundle_head(family: str, task: str, reads: str, layer: str, has_transform: bool = False) -> Head:
    """The head of a bundle, with the names of its parameters.

    `layer` is the name of its last layer; `has_transform`: whether there is a layer before it, as masked language
    modelling always has.
    """
    classification, masked_lm = _FAMILY_HEADS[family]
    transform, norm = f"{layer}-transform", f"{layer}-transform-norm"
    transform_names = f"{transform}_weight", f"{transform}_bias"
    if task == "masked_lm":
        return Head(
            reads,
            ("bertmodel0_word_embed_embedding0_weight", f"{layer}_bias"),
            transform=transform_names,
            activation=masked_lm.activation,
            norm=(f"{norm}_gamma", f"{norm}_beta"),
        )
    return Head(
        reads,
        (f"{layer}_weight", f"{layer}_bias"),
        transform=transform_names if has_transform else None,
        activation=classification.activation,
        is_flat=reads == "sequence" and task == "classification",
    )


def probabilities(task: str, values: Float) -> Float:
    """Of the classes of a head for `task`: softmax over the last axis, or of each class by itself."""
    return sigmoid(values) if task == "multilabel" else softmax(values)
