"""Build the encoder's graph in any of its forms; all forms take the same parameters.

Source: Devlin et al. 2018 and GluonNLP 0.10's BERTEncoder, whose parameters they take unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertsym.encoders.forms import Form
from bertsym.encoders.graph.base import Encoder
from bertsym.encoders.graph.fast import FastEncoder
from bertsym.encoders.graph.gluonnlp import GluonNLPEncoder
from bertsym.encoders.graph.interleaved import InterleavedEncoder
from bertsym.encoders.graph.pointwise_conv import PixelsEncoder
from bertsym.encoders.graph.portable import PortableEncoder
from bertsym.encoders.graph.training_form import TrainingEncoder
from bertsym.encoders.spec import EncoderSpec
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.recorder import sym

_ENCODERS: dict[str, type[Encoder]] = {
    "portable": PortableEncoder,
    "gluonnlp": GluonNLPEncoder,
    "fast": FastEncoder,
    "training": TrainingEncoder,
    "interleaved": InterleavedEncoder,
    "pixels": PixelsEncoder,
}


def encoder_graph(
    spec: EncoderSpec, form: Form = Form(), places: Sequence[int] | None = None, *, first_only: bool = False
) -> SymbolGraph:
    """Build the encoder's graph; arguments and outputs are those of `record_encoder`."""
    graph: SymbolGraph = record_encoder(spec, form, places, first_only=first_only).graph()
    return graph


def record_encoder(
    spec: EncoderSpec, form: Form = Form(), places: Sequence[int] | None = None, *, first_only: bool = False
) -> Any:
    """Build the encoder as a RecordedSymbol of shape (N, T, U); padding is not zeroed.

    `places` selects the outputs, by default the last layer: 0 is the input of the first layer, i the output of layer
    i - 1. With `first_only`, forms that can (`Form.first_only`) compute only position 0 in the last layer: (N, 1, U).
    """
    encoder = _ENCODERS[form.name](spec, form)
    outputs = encoder.build(first_only and form.first_only)
    chosen = [spec.config.num_layers] if places is None else places
    symbols = [_batch_major(outputs[place], place) if encoder.time_major else outputs[place] for place in chosen]
    return symbols[0] if len(symbols) == 1 else sym.Group(symbols)


def _batch_major(output: Any, place: int) -> Any:
    return sym.transpose(output, axes=(1, 0, 2), name=f"bertencoder0_batch_major{place}")
