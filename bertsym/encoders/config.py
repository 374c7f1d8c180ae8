"""The configuration of an encoder: a BERT, or one of the families that differ from it in a few places."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.errors import ModelError

INITIALIZER_RANGE = 0.02  #: standard deviation of new weights (Devlin et al. 2018)

# No BERT is larger: a damaged file is refused before anything of its size is allocated.
_LARGEST = 1 << 24
_HUGE = 1e300  # an int of hundreds of digits compares with a float, but does not convert to one
MAX_LAYERS = 256
ACTIVATIONS = ("gelu", "relu", "gelu_tanh")  #: gelu_tanh approximates gelu by tanh (Hendrycks and Gimpel 2016)
_SMALLEST = {"token_type_vocab_size": 0, "position_offset": 0, "relative_buckets": 0}  # of other integers: 1
# Fields that were added later: a JSON that was written before lacks them and means their defaults.
_LATER = {"activation", "family", "position_offset", "embedding_size", "shares_layers", "relative_buckets"}


@dataclass(frozen=True)
class BertConfig:
    """Configuration of an encoder (Devlin et al. 2018, https://arxiv.org/abs/1810.04805).

    The defaults are BERT's; ``families`` has those of other families. Raises ModelError when a value is out of range
    or ``units`` is not a multiple of ``num_heads``.
    """

    num_layers: int
    units: int
    hidden_size: int  #: width of the feed-forward layer
    num_heads: int
    vocab_size: int
    token_type_vocab_size: int = 2  #: rows of the segment table; 0 without segments
    max_length: int = 512  #: tokens of the longest text
    dropout: float = 0.1  #: after the embeddings, the attention projection and the feed-forward layer
    attention_dropout: float = 0.1  #: on the attention probabilities
    layer_norm_eps: float = 1e-12
    activation: str = "gelu"  #: of the feed-forward layers, one of ACTIVATIONS
    family: str = "bert"  #: a key of ``families.FAMILIES``
    position_offset: int = 0  #: row of the position table that the first token reads
    #: width of the embeddings, which a dense layer projects to `units`; None: they have `units` and no such layer
    embedding_size: int | None = None
    shares_layers: bool = False  #: whether all layers have the parameters of the first layer
    relative_buckets: int = 0  #: buckets of relative positions with a bias for each head; 0 without relative positions

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "family":
                if not isinstance(value, str):
                    raise ModelError(f"BERT config: family is {value!r:.80}, a name is needed")
            elif field.name == "activation":
                if value not in ACTIVATIONS:
                    raise ModelError(f"BERT config: {field.name} is {value!r:.80}, not one of {', '.join(ACTIVATIONS)}")
            elif field.type == "bool":
                if not isinstance(value, bool):
                    raise ModelError(f"BERT config: {field.name} is {value!r:.80}, true or false is needed")
            elif field.type.startswith("int"):
                smallest = _SMALLEST.get(field.name, 1)
                is_integer = isinstance(value, int) and not isinstance(value, bool)
                if not (is_integer and smallest <= value <= _LARGEST) and (value is not None or field.type == "int"):
                    needed = "a positive integer" if smallest else "an integer of 0 or more"
                    raise ModelError(f"BERT config: {field.name} is {value!r:.80}, {needed} is needed")
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not -_HUGE < value < _HUGE:
                raise ModelError(f"BERT config: {field.name} is {value!r:.80}, a number is needed")
        if self.num_layers > MAX_LAYERS:
            raise ModelError(f"BERT config: {self.num_layers} layers, at most {MAX_LAYERS} are supported")
        if self.units % self.num_heads:
            raise ModelError(f"BERT config: units {self.units} is not a multiple of num_heads {self.num_heads}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelError(f"BERT config: {name} is {getattr(self, name)}, it must be in [0, 1)")
        if self.layer_norm_eps <= 0:
            raise ModelError(f"BERT config: layer_norm_eps is {self.layer_norm_eps}, it must be above 0")

    @classmethod
    def from_model_name(cls, name: str, vocab_size: int) -> BertConfig:
        """Create the config of a GluonNLP model name, ``bert_LAYERS_UNITS_HEADS``; hidden_size is 4 * units.

        Raises ModelError when the name has another form.
        """
        match = re.fullmatch(r"bert_(\d{1,4})_(\d{1,6})_(\d{1,4})", name)
        if not match:
            raise ModelError(f"{name!r} is not a model name of the form bert_LAYERS_UNITS_HEADS")
        layers, units, heads = map(int, match.groups())
        return cls(layers, units, 4 * units, heads, vocab_size)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BertConfig:
        """Create a config from the result of `to_dict`; raises ModelError on unknown or missing keys."""
        names = {field.name for field in dataclasses.fields(cls)}
        if {*_LATER, *values} != names:
            raise ModelError(f"BERT config: keys differ from the known ones: {sorted({*_LATER, *values} ^ names)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Convert the fields to plain numbers, for JSON."""
        return dataclasses.asdict(self)

    @property
    def position_rows(self) -> int:
        """Rows of the position table."""
        return self.position_offset + self.max_length

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings."""
        return self.units if self.embedding_size is None else self.embedding_size

    @property
    def segments(self) -> int:
        """Token types that texts can have: 1 without a segment table, where every token has the type 0."""
        return max(1, self.token_type_vocab_size)

    def __str__(self) -> str:
        return (
            f"{self.num_layers} layers, {self.units} units, {self.num_heads} heads, "
            f"vocabulary {self.vocab_size}, max length {self.max_length}"
        )
