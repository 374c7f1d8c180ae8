"""A graph of a BERT by onnxruntime, with the encoder in its fused operators and the rest as the engine converts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bertsym.analysis.encoder_detachment import detach_encoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.errors import ModelError
from bertsym.execution.engines import Shape
from bertsym.execution.engines.onnxruntime import OpenSession, Session, load_model
from bertsym.onnx_export.fused_encoder import LENGTHS, TOKEN_IDS, TOKEN_TYPE_IDS, build_fused_encoder
from bertsym.onnx_export.libraries import onnx_errors
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array, shapes_of


class FusedSession:
    """A graph with its parameters, for inputs like those of the `shapes`, of other batch sizes and lengths too.

    Where the rest reads only [CLS], the last layer computes one query. Raises ModelError for a graph without a BERT,
    for an encoder that the fused operators can't express, and where the rest reads inner layers.
    """

    def __init__(
        self, graph: SymbolGraph, params: Mapping[str, Array], shapes: Mapping[str, Shape], where: str
    ) -> None:
        self._params, self._where = params, where
        known = shapes_of(params)
        encoder = require_encoder(graph, known)
        spec = extract_spec(graph, encoder, known)
        detached = detach_encoder(graph, encoder, first_only=True)
        if list(detached.placeholders) != [detached.num_layers]:
            raise ModelError(f"{where}: other layers than the last one are read")
        (self._encodings,) = detached.placeholders.values()
        self._spec, self._first_only = spec, detached.first_only
        self._session = OpenSession(self._open)
        read = {entry.name for entry in self._session.session.get_inputs()}
        names = {TOKEN_IDS: spec.token_ids, TOKEN_TYPE_IDS: spec.token_types, LENGTHS: spec.valid_length}
        self._names = {name: given for name, given in names.items() if given is not None and name in read}
        rows, length = shapes[spec.token_ids]
        placeholder = (rows, 1 if self._first_only else length, spec.config.units)
        self._rest = Session(detached.rest, params, {**shapes, self._encodings: placeholder}, where)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return all outputs of the graph, float32."""
        fed = {name: np.asarray(inputs[given]).astype(np.int32) for name, given in self._names.items()}
        with onnx_errors(self._where, "onnxruntime can't run it"), np.errstate(all="ignore"):
            (encodings,) = self._session.run(fed)
        return self._rest.run({**inputs, self._encodings: encodings})

    def _open(self) -> Any:
        with onnx_errors(self._where, "onnxruntime can't load it"):
            model = build_fused_encoder(self._spec, self._params, first_only=self._first_only)
        return load_model(model, self._where)
