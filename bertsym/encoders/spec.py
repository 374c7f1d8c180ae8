"""The specification of an encoder's graph: configuration, inputs, and names of parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.parameters import Shape, parameter_shapes, shared_name


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder that any form can express.

    ``token_types`` and ``valid_length`` are None when the encoder does not read them. Without token types, every token
    has the type 0. With token types and without a segment table, or one of a single row, the input changes nothing.
    """

    config: BertConfig
    token_ids: str = INPUT_NAMES[0]
    token_types: str | None = INPUT_NAMES[1]
    valid_length: str | None = INPUT_NAMES[2]
    #: name in `encoders.parameters` -> name in the graph, where they differ
    names: Mapping[str, str] = field(default_factory=dict)
    activation: str = "gelu"  #: one of ``config.ACTIVATIONS``, in the feed-forward layers
    #: GluonNLP 0.9 concatenated the biases of query, key and value, but interleaved their weights head by head, so that
    #: heads get the biases of other heads
    concatenated_biases: bool = False

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name in `encoders.parameters` -> shape of the parameters of every layer, without the pooler."""
        return parameter_shapes(dataclasses.replace(self.config, shares_layers=False), pooler=False)

    def name(self, parameter: str) -> str:
        """Return the name of a parameter in the graph."""
        own = shared_name(parameter) if self.config.shares_layers else parameter
        return self.names.get(parameter, own)
