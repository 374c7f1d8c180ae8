"""The encoder's graph, in any of its forms; all of them take the same parameters.

Source: Devlin et al. 2018 and GluonNLP 0.10's BERTEncoder, whose parameters they take unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertsym.bert.encoder.base import Encoder
from bertsym.bert.encoder.fast import FastEncoder
from bertsym.bert.encoder.gluonnlp import GluonNLPEncoder
from bertsym.bert.encoder.portable import PortableEncoder
from bertsym.bert.encoder_spec import EncoderSpec
from bertsym.bert.forms import Form
from bertsym.runtime import mx

_ENCODERS: dict[str, type[Encoder]] = {
    "portable": PortableEncoder,
    "gluonnlp": GluonNLPEncoder,
    "fast": FastEncoder,
}


def encoder_symbol(spec: EncoderSpec, form: Form = Form(), *, first_only: bool = False) -> Any:
    """The encoder's graph: an mx.sym.Symbol of shape (N, T, U), padding not yet zeroed.

    Where only position 0 is wanted, `first_only`, the fast form computes no other in its last layer: (N, 1, U).
    """
    return encoder_outputs(spec, form, [spec.config.num_layers], first_only=first_only)[0]


def encoder_outputs(spec: EncoderSpec, form: Form, places: Sequence[int], *, first_only: bool = False) -> list[Any]:
    """Outputs of the encoder's layers, each (N, T, U): place 0 is what the first layer reads, i that of layer i - 1.

    `first_only` as for `encoder_symbol`, of the last layer.
    """
    encoder = _ENCODERS[form.name](spec, form)
    outputs = encoder.build(first_only and form.name == "fast")
    if not encoder.time_major:
        return [outputs[place] for place in places]
    return [
        mx.sym.transpose(outputs[place], axes=(1, 0, 2), name=f"bertencoder0_batch_major{place}") for place in places
    ]
