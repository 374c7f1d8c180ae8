"""A graph of a BERT by onnxruntime, with the encoder in its fused operators and the rest as the engine converts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bertsym.analysis.encoder_detachment import detach_encoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import FOLDED_NAME, PARTS, is_folded, query_scale, unfold_parameters
from bertsym.errors import ModelError
from bertsym.execution.engines import Shape
from bertsym.execution.engines.onnxruntime import OpenSession, Session, load_model
from bertsym.onnx_export.fused_encoder import LENGTHS, TOKEN_IDS, TOKEN_TYPE_IDS, WITHOUT, build_fused_encoder
from bertsym.onnx_export.libraries import masks_single_queries, onnx_errors
from bertsym.passes import apply_to_copy
from bertsym.passes.qkv_folding import unfold_qkv
from bertsym.passes.unfusing import dequantize_layers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.int8_arithmetic import Int8Layer, int8_layer
from bertsym.symbol.params import shapes_of
from bertsym.symbol.quantized_layers import FUSED, FusedLayer


class FusedSession:
    """A graph with its parameters, for inputs like those of the `shapes`, of other batch sizes and lengths too.

    Where the rest reads only [CLS], the last layer computes one query, if onnxruntime can. `config` is that of the
    encoder. Raises ModelError for a graph without a BERT, for an encoder that the fused operators can't express, and
    where the rest reads inner layers or has int8 layers.
    """

    def __init__(
        self,
        graph: SymbolGraph,
        params: Mapping[str, Array],
        config: BertConfig,
        shapes: Mapping[str, Shape],
        where: str,
    ) -> None:
        graph, params, self._int8_layers = _unfold(graph, params, config)
        self._params, self._where = params, where
        known = {**shapes_of(params), **{name: layer.weight.shape for name, layer in self._int8_layers.items()}}
        encoder = require_encoder(graph, known)
        spec = extract_spec(graph, encoder, known)
        detached = detach_encoder(graph, encoder, first_only=masks_single_queries())
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
            model = build_fused_encoder(self._spec, self._params, self._int8_layers, first_only=self._first_only)
        return load_model(model, self._where, WITHOUT)


def _unfold(
    graph: SymbolGraph, params: Mapping[str, Array], config: BertConfig
) -> tuple[SymbolGraph, Mapping[str, Array], dict[str, Int8Layer]]:
    """Copy a graph without quantization, and with query, key and value apart.

    Returns the copy, its float32 parameters, and the layers that were int8, by the names of their weights.
    """
    fused = [node for node in graph.find(op=FUSED) if FusedLayer.of(node).quantized]
    if not fused and not is_folded(graph.variables):
        return graph, params, {}
    layers = {node.inputs[1].node.name: int8_layer(node, params) for node in fused}
    if len(layers) < len(fused):
        raise ModelError("layers that share int8 weights differ in their ranges")
    graph = apply_to_copy(graph, dequantize_layers)
    read = [name for name in graph.variables if name in params and name not in layers]
    unfolded = unfold_parameters({name: params[name] for name in read}, config)
    unfold_qkv(graph, config)
    for name in filter(lambda name: is_folded([name]), [*layers]):
        layer = layers.pop(name)
        for part, rows in zip(PARTS, np.split(np.arange(len(layer.weight)), len(PARTS))):
            scale = query_scale(config) if part == "query" else np.float32(1)
            layers[name.replace(FOLDED_NAME, part)] = layer.part(rows, scale)
    return graph, unfolded, layers
