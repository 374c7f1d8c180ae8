"""A family of encoders as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_NORM, HEAD_TRANSFORM
from bertsym.families.name_table import NameTable

REQUIRED = object()  #: default of a key that config.json must have
Key = tuple[str, Union[object, float, int, str, None]]  #: key of config.json, and its default in transformers

#: activation in config.json -> our name
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


@dataclass(frozen=True)
class HeadClass:
    """The head of a class of transformers: its task, what it reads, and its weights."""

    task: str | None  #: None: what ``problem_type`` and the number of labels say
    reads: str  #: a key of ``encoders.catalogue.OUTPUTS``
    #: name in the checkpoint -> name of the parameter, the last layer's last; empty: the encoder alone is exported
    weights: Mapping[str, str]
    #: of the layer before the last one: one of ``config.ACTIVATIONS`` or ``tanh``; None: that of the config
    activation: str | None = None
    drops_input: bool = False  #: whether dropout comes before that layer too
    #: key of its dropout, with its default, None for that of the encoder; None: no dropout
    dropout: Key | None = ("classifier_dropout", None)
    #: weight that a checkpoint may hold a second time -> the weight that it must be equal to
    tied: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  #: weights of a head for pretraining that is not exported

    @property
    def has_transform(self) -> bool:
        """Whether there is a layer before the last one."""
        return f"{HEAD_TRANSFORM}_weight" in self.weights.values()


@dataclass(frozen=True)
class Family:
    """Encoders that differ from BERT in the same way, and how transformers stores them."""

    name: str  #: in signatures and configs
    title: str  #: as its authors write it
    model_types: Mapping[str, str]  #: ``model_type`` of config.json -> beginning of the names of its classes
    keys: Mapping[str, Key]  #: field of BertConfig -> where config.json has it
    names: NameTable
    heads: Mapping[str, HeadClass]  #: by the name of the class
    #: key of config.json -> the only supported value, which is also the default of transformers
    supported: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  #: fields of BertConfig that config.json does not have
    pad_id: int = 0  #: default of ``pad_token_id``
    always_projects: bool = False  #: whether embeddings are projected even where they are as wide as the layers
    starts_after_padding: bool = False  #: whether the first token has the position ``pad_token_id`` + 1
    padding_row: int | None = None  #: the row of positions before that of the first token, if it is always the same


def dense(theirs: str, ours: str = FULLY_CONNECTED) -> dict[str, str]:
    """Names of the weight and bias of a dense layer in a checkpoint -> the parameters of a head."""
    return {f"{theirs}.weight": f"{ours}_weight", f"{theirs}.bias": f"{ours}_bias"}


def norm(theirs: str) -> dict[str, str]:
    """Names of the weight and bias of a LayerNorm in a checkpoint -> the parameters of a head."""
    return {f"{theirs}.weight": f"{HEAD_NORM}_gamma", f"{theirs}.bias": f"{HEAD_NORM}_beta"}


def two_layer_classifier(transform: str, last: str, activation: str, **settings: Any) -> HeadClass:
    """The head of sequence classification that reads the first token through a layer of its own."""
    weights = {**dense(transform, HEAD_TRANSFORM), **dense(last)}
    return HeadClass(None, "cls", weights, activation=activation, **settings)


def masked_lm(transform: str, layer_norm: str, bias: str, decoder: str, **settings: Any) -> HeadClass:
    """The head of masked language modelling, whose last weight is that of the token embedding."""
    last = {decoder.replace(".weight", ".bias"): bias} if bias != decoder.replace(".weight", ".bias") else {}
    return HeadClass(
        "masked_lm",
        "sequence",
        {**dense(transform, HEAD_TRANSFORM), **norm(layer_norm), bias: f"{FULLY_CONNECTED}_bias"},
        dropout=None,
        tied={decoder: "embeddings.word_embeddings.weight", **last},
        **settings,
    )


def text_head(family: Family) -> HeadClass:
    """The head of the family's class for texts, ``ForSequenceClassification``."""
    return next(head for name, head in family.heads.items() if name.endswith("ForSequenceClassification"))


def heads(prefix: str, by_class: Mapping[str, HeadClass]) -> dict[str, HeadClass]:
    """Name -> head of the classes with this prefix, such as ``Roberta`` in ``RobertaForMaskedLM``."""
    return {f"{prefix}For{name}": head for name, head in by_class.items()}
