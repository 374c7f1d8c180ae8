"""What every source delivers: a config, named weights, a vocabulary and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.bert.config import BertConfig
from bertsym.bert.parameters import POOLER
from bertsym.symbol.params import Array
from bertsym.text.tokenizer import TokenizerOptions
from bertsym.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Pretrained:
    """Weights of one BERT under bertsym's parameter names (``bert.parameters``), all float32.

    ``arg_params`` reads an array from its file whenever it is asked for, where the source allows it.
    ``origin`` goes into the manifest; ``notes`` are said on the screen, one line each.
    """

    config: BertConfig
    arg_params: Mapping[str, Array]
    vocabulary: Vocabulary
    tokenizer: TokenizerOptions
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether the weights were trained: False of random ones."""
        return bool(self.origin.get("pretrained"))

    @property
    def has_pooler(self) -> bool:
        """Whether the weights of BERT's pooler are there."""
        return all(name in self.arg_params for name in POOLER)
