"""A sentence embedding as data: pooling of the tokens' encodings, the layers after it, and prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

EMBEDDING = "embedding"  #: name of the output node, and of the encoder output in a signature

#: mode of sentence-transformers -> description; each gives (N, U)
POOLING_MODES = {
    "cls": "the encoding of the first token",
    "max": "the largest element of the encodings of the valid tokens",
    "mean": "the mean of the encodings of the valid tokens",
    "mean_sqrt_len_tokens": "the sum of the encodings of the valid tokens, divided by the square root of their number",
}
ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "sigmoid")  #: of dense layers
MAX_LAYERS = 64
_SHOWN_PROMPTS = 8
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")  #: functions of sentence-transformers


@dataclass(frozen=True)
class DenseLayer:
    """A dense layer on a vector, (N, inputs) -> (N, units), and its activation."""

    units: int
    activation: str  #: one of ACTIVATIONS
    bias: bool = True

    def __str__(self) -> str:
        return f"dense {self.units}{'' if self.activation == 'identity' else f' {self.activation}'}"


@dataclass(frozen=True)
class Normalization:
    """Scales each vector to the length 1."""

    def __str__(self) -> str:
        return "normalized"


EmbeddingLayer = Union[DenseLayer, Normalization]


@dataclass(frozen=True)
class SentenceEmbedding:
    """How the encodings of a text's tokens become its embedding (N, D), and what the embedding is meant for."""

    pooling: tuple[str, ...]  #: keys of POOLING_MODES, whose vectors are concatenated in this order
    layers: tuple[EmbeddingLayer, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)  #: name -> text that is put before each text
    default_prompt_name: str | None = None  #: prompt of texts for which no other is chosen
    similarity: str | None = None  #: one of SIMILARITIES; None: not recorded, cosine by default

    @property
    def normalized(self) -> bool:
        """Whether every embedding has the length 1."""
        return bool(self.layers) and isinstance(self.layers[-1], Normalization)

    def width(self, units: int) -> int:
        """The number of elements of an embedding, for an encoder with `units`."""
        widths = [layer.units for layer in self.layers if isinstance(layer, DenseLayer)]
        return widths[-1] if widths else len(self.pooling) * units

    def shapes(self, units: int) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the parameters of the dense layers, for an encoder with `units`."""
        shapes: dict[str, tuple[int, ...]] = {}
        width = len(self.pooling) * units
        for i, layer in enumerate(self.layers):
            if isinstance(layer, DenseLayer):
                shapes[f"{layer_name(i)}_weight"] = (layer.units, width)
                if layer.bias:
                    shapes[f"{layer_name(i)}_bias"] = (layer.units,)
                width = layer.units
        return shapes

    def __str__(self) -> str:
        return ", ".join([f"{' + '.join(self.pooling)} pooling", *map(str, self.layers)])

    def describe_prompts(self) -> str:
        """List the prompts by name, and the default one."""
        shown = [f"{name} {text!r}" for name, text in self.prompts.items()]
        more = f" and {len(shown) - _SHOWN_PROMPTS} more" if len(shown) > _SHOWN_PROMPTS else ""
        default = f"; by default {self.default_prompt_name}" if self.default_prompt_name is not None else ""
        return f"{', '.join(shown[:_SHOWN_PROMPTS])}{more}{default}" if shown else "none"


def layer_name(i: int) -> str:
    """The name of the node, and prefix of the parameters, of layer `i` of an embedding."""
    return f"{EMBEDDING}_layer{i}"
