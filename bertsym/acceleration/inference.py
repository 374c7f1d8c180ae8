"""Symbols rewritten in memory for inference on a CPU, with parameters made of those that the files hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bertsym.acceleration.graphs import to_symbol
from bertsym.bert.encoder.inference import inference_parameters
from bertsym.bert.encoder_spec import EncoderSpec
from bertsym.bert.forms import Form
from bertsym.errors import ModelError
from bertsym.recognition.matching import match
from bertsym.recognition.recognise import find_bert
from bertsym.surgery.replacing import replace_encoder
from bertsym.symbol import gelu
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array

_INFERENCE = Form("inference", erf=False)


class InferenceSymbol:
    """The same function as a symbol's, whose parameters have the `shapes`: quick, and forward only.

    A symbol without a BERT that can be written in another form keeps its encoder.
    """

    def __init__(self, symbol: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        graph = SymbolGraph.parse(symbol.tojson())
        self._spec: EncoderSpec | None = None
        try:
            self._spec = match(graph, find_bert(graph, shapes), shapes)
            self.padded = _rewritten(graph, shapes, self._spec)  #: takes batches with padding
            #: takes batches without padding: no mask is made
            self.unpadded = _rewritten(graph, shapes, dataclasses.replace(self._spec, valid_length=None))
        except ModelError:
            self._spec = None
            graph = graph.copy()
            gelu.join(graph)
            self.padded = self.unpadded = to_symbol(graph)

    def parameters(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """The arrays that both symbols read, made of `params`; views of them where possible."""
        wanted = set(self.padded.list_arguments())
        made = inference_parameters(self._spec, params, wanted) if self._spec is not None else {}
        return {**made, **{name: array for name, array in params.items() if name in wanted}}


def _rewritten(graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]], spec: EncoderSpec) -> Any:
    graph = replace_encoder(graph, shapes, spec, _INFERENCE)
    gelu.join(graph)
    return to_symbol(graph)
