"""What an encoder's graph is made from: its numbers, its inputs, and the names of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.parameters import Shape, parameter_shapes

TOKEN_TYPES = "bertmodel0_token_type_embed_embedding0_weight"
ACTIVATIONS = ("gelu", "relu")


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder that any form can express.

    ``token_types`` and ``valid_length`` are None where the encoder reads none; the table of token types is then no
    parameter, and its size in the config stands for nothing.
    """

    config: BertConfig
    token_ids: str = INPUT_NAMES[0]
    token_types: str | None = INPUT_NAMES[1]
    valid_length: str | None = INPUT_NAMES[2]
    #: names of parameters that are not those of `bert.parameters`: the latter -> the graph's
    names: Mapping[str, str] = field(default_factory=dict)
    activation: str = "gelu"  #: of the feed-forward layers, one of ACTIVATIONS
    #: GluonNLP 0.9 joined the biases of query, key and value one after the other, but their weights head by head,
    #: so that a head's bias lies in another place than its name says
    biases_in_turn: bool = False

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of the parameters, in the names of `bert.parameters`, without the pooler."""
        shapes = parameter_shapes(self.config, pooler=False)
        if self.token_types is None:
            del shapes[TOKEN_TYPES]
        return shapes

    def name(self, parameter: str) -> str:
        """The graph's name of a parameter."""
        return self.names.get(parameter, parameter)
