"""What every source delivers: a config, named weights, a vocabulary and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.encoders.config import BertConfig
from bertsym.encoders.parameters import POOLER
from bertsym.reference import Checkpoint
from bertsym.sources.names import list_names
from bertsym.symbol.params import Array
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TaskHead:
    """The trained task head that a source has beside its encoder, and that is not exported."""

    weights: tuple[str, ...]
    settings: tuple[str, ...] = ()  #: settings of the source that belong to the head, such as its class names

    def __str__(self) -> str:
        settings = f" (with {'; '.join(self.settings)})" if self.settings else ""
        return list_names(self.weights) + settings


@dataclass(frozen=True)
class Pooling:
    """How a source makes one vector of the encodings of a text's tokens."""

    module: str  #: the folder of its settings
    description: str
    output: str | None  #: the output of ``bert.catalogue.OUTPUTS`` that is equal, if there is one


@dataclass(frozen=True)
class Pretrained:
    """Weights of one BERT under bertsym's parameter names (``bert.parameters``), all float32.

    ``arg_params`` reads an array from its file whenever it is asked for, where the source allows it.
    ``tokenizer_document`` is the whole tokenizer in the format of Hugging Face's ``tokenizers``; None where texts can't
    be tokenised. ``checkpoint`` is the model as the source stores it, for the reference encoder. ``origin`` goes into
    the manifest; ``notes`` list what was assumed and left out, one line each.
    """

    config: BertConfig
    arg_params: Mapping[str, Array]
    vocabulary: Vocabulary
    tokenizer: TokenizerOptions
    tokenizer_document: Mapping[str, Any] | None
    origin: dict[str, Any]
    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()
    task_head: TaskHead | None = None
    pooling: Pooling | None = None

    @property
    def trained(self) -> bool:
        """Whether the weights were trained: False of random ones."""
        return bool(self.origin.get("pretrained"))

    @property
    def has_pooler(self) -> bool:
        """Whether the weights of BERT's pooler are there."""
        return all(name in self.arg_params for name in POOLER)
