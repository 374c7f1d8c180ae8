"""Symbols for fast inference on a CPU, with parameters computed from those of a file."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from bertsym.acceleration.graphs import rewrite_encoder, to_symbol
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.array import Array
from bertsym.encoders.graph.inference_form import inference_parameters
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.passes.attention_interleaving import InterleavedAttention, interleave_attention
from bertsym.passes.gelu import fuse_gelu
from bertsym.passes.input_guard import remove_input_guard
from bertsym.symbol.graph import SymbolGraph


@dataclasses.dataclass(frozen=True)
class InferenceSymbols:
    """Symbols of the same function for different batches."""

    padded: Any  #: for any batch
    unpadded: Any  #: for batches without padding
    few: Any  #: for any batch of few tokens


class FastInference:
    """Fast symbols for inference, made from a symbol whose parameters have the `shapes`.

    A symbol without a BERT encoder that can be written in another form keeps its nodes; in int8, its attention is
    interleaved.
    """

    def __init__(self, symbol: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        graph = SymbolGraph.parse(symbol.tojson())
        remove_input_guard(graph)  # the inputs were checked
        #: names of the embedding tables
        self.tables = frozenset(node.inputs[1].node.name for node in graph.find(op="Embedding"))
        self._spec: EncoderSpec | None = None
        self._interleaved: InterleavedAttention | None = None
        try:
            encoder = require_encoder(graph, shapes)
            spec = extract_spec(graph, encoder, shapes)
            unpadded = dataclasses.replace(spec, valid_length=None)
            self.symbols = InferenceSymbols(
                to_symbol(rewrite_encoder(graph, encoder, shapes, spec, "interleaved")),
                to_symbol(rewrite_encoder(graph, encoder, shapes, unpadded, "interleaved")),
                to_symbol(rewrite_encoder(graph, encoder, shapes, spec, "pixels")),
            )
            self._spec = spec
        except ModelError:
            fuse_gelu(graph)
            with contextlib.suppress(ModelError):
                self._interleaved = interleave_attention(graph, shapes)
            self.symbols = InferenceSymbols(*[to_symbol(graph)] * 3)

    def parameters(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the arrays that the symbols read from `params`; they are views where possible."""
        wanted = {name for symbol in vars(self.symbols).values() for name in symbol.list_arguments()}
        made = inference_parameters(self._spec, params, wanted) if self._spec is not None else {}
        made |= self._interleaved.parameters(params) if self._interleaved is not None else {}
        return {**made, **{name: array for name, array in params.items() if name in wanted}}
