"""Leave the token types out of the inputs of a BERT in which every token has the type 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.encoders.forms import Form
from bertsym.errors import ModelError
from bertsym.passes.encoder_replacement import replace_encoder
from bertsym.symbol.graph import SymbolGraph


def drop_token_types(graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]], form: Form) -> int:
    """Let every token have the type 0, without an input for it, in place; returns the number of inputs removed.

    `shapes` are the shapes of the parameters, and `form` is that of the encoder. Raises ModelError if the encoder has
    several token types, or if no specification describes it.
    """
    encoder = require_encoder(graph, shapes)
    spec = extract_spec(graph, encoder, shapes)
    if spec.config.segments > 1:
        raise ModelError(f"{spec.config.segments} token types, which {spec.token_types} selects")
    replace_encoder(graph, shapes, dataclasses.replace(spec, token_types=None), form, encoder)
    return int(spec.token_types is not None)
