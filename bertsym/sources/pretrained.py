"""The result of every source: config, named weights, tokenizer and origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bertsym.array import Array
from bertsym.encoders.catalogue import HeadTransform
from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import POOLER
from bertsym.encoders.sentence_embedding import SentenceEmbedding
from bertsym.families import list_names
from bertsym.reference import Checkpoint
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TaskHead:
    """The trained task head of a source, which is left out."""

    weights: tuple[str, ...]
    settings: tuple[str, ...] = ()  #: settings of the source that belong to the head, such as its class names

    def __str__(self) -> str:
        settings = f" (with {'; '.join(self.settings)})" if self.settings else ""
        return list_names(self.weights) + settings


@dataclass(frozen=True)
class TrainedHead:
    """A trained head that is exported with its encoder, under bertsym's parameter names, all float32."""

    architecture: str  #: the class of the source that has it
    task: str  #: a key of ``datasets.registry.TASK_KINDS``
    reads: str  #: the output of ``encoders.catalogue.OUTPUTS`` that it reads
    num_outputs: int  #: for a text or for a token
    class_names: tuple[str, ...]  #: in the order of the outputs; empty where the outputs are not classes with names
    dropout: float
    arg_params: Mapping[str, Array]
    transform: HeadTransform | None = None  #: its layer before the last
    settings: Mapping[str, Any] = field(default_factory=dict)  #: of the task, as a signature keeps them
    max_length: int | None = None  #: tokens at which its texts are truncated; None: the positions of the encoder
    notes: tuple[str, ...] = ()  #: what was assumed


@dataclass(frozen=True)
class TrainedEmbedding:
    """A sentence embedding that is exported with its encoder."""

    embedding: SentenceEmbedding
    arg_params: Mapping[str, Array]  #: of its dense layers, under bertsym's parameter names, float32
    max_length: int  #: tokens at which its texts are truncated


@dataclass(frozen=True)
class Pooling:
    """How a source pools the encodings of a text's tokens into one vector."""

    module: str  #: folder with the settings
    description: str
    output: str | None  #: the equivalent in ``encoders.catalogue.POOLINGS``, if there is one


@dataclass(frozen=True)
class Pretrained:
    """Weights of one BERT under bertsym's parameter names (``encoders.parameters``), all float32.

    ``arg_params`` reads arrays from their files on demand where the source allows it. ``tokenizer_document`` is the
    whole tokenizer in the format of Hugging Face's ``tokenizers``; None when texts cannot be tokenized. ``checkpoint``
    is the model as the source stores it, for the reference encoder. ``origin`` goes into the manifest; ``notes`` list
    assumptions and omissions, one line each.
    """

    config: BertConfig
    arg_params: Mapping[str, Array]
    vocabulary: Vocabulary
    tokenizer: TokenizerOptions
    tokenizer_document: Mapping[str, Any] | None
    origin: dict[str, Any]
    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()
    task_head: TaskHead | None = None  #: that is left out
    head: TrainedHead | None = None  #: that is exported
    pooling: Pooling | None = None  #: that is left out
    embedding: TrainedEmbedding | None = None

    @property
    def trained(self) -> bool:
        """Whether the weights were trained; False for random weights."""
        return bool(self.origin.get("pretrained"))

    @property
    def has_pooler(self) -> bool:
        """Whether the source has the weights of BERT's pooler."""
        return all(name in self.arg_params for name in POOLER)
