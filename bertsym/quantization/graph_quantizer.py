"""Quantize one float32 graph with mxnet, calibrated once, with any subset of its layers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from bertsym.acceleration.graphs import to_symbol
from bertsym.array import Array
from bertsym.mxnet_runtime import mx, quiet_stderr
from bertsym.passes.unfusing import unfuse_float32_layers
from bertsym.quantization.calibration import Range, tensor_ranges
from bertsym.quantization.weight_pairs import limit_pairs
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.quantized_layers import fused_layers, int8_nodes

_BACKEND = "MKLDNN_QUANTIZE"


class GraphQuantizer:
    """Makes int8 graphs from a float32 graph, whose FullyConnecteds are `layers`.

    With `channel_wise`, every output of a layer has its own scale; mxnet then keeps the weights in float32 and
    quantizes them when it binds the graph. Without, a weight has one scale and is int8 in the file. With
    `limits_pairs`, the products of the weights saturate on no processor.
    """

    def __init__(
        self, graph: SymbolGraph, arg_params: Mapping[str, Array], channel_wise: bool = True, limits_pairs: bool = False
    ) -> None:
        self._arg_params = {name: mx.nd.array(array) for name, array in arg_params.items()}
        with quiet_stderr():
            self._symbol = to_symbol(graph).get_backend_symbol(_BACKEND)
        self._channel_wise, self._limits_pairs = channel_wise, limits_pairs
        fused = fused_layers(SymbolGraph.parse(self._symbol.tojson()))
        self._nodes = {layer.name: node.name for node, layer in fused.items()}
        self.layers = tuple(self._nodes)
        self._ranges: dict[str, Range] = {}

    def calibrate(self, batches: Iterable[Mapping[str, Array]], calibration: str) -> None:
        """Find the ranges of all quantized tensors; `calibration` is a key of CALIBRATIONS."""
        tensors = sorted(self._quantize(())[2].include_layer)
        self._ranges = tensor_ranges(self._symbol, self._arg_params, tensors, batches, calibration)

    def quantized(self, kept: Collection[str]) -> tuple[SymbolGraph, dict[str, Array]]:
        """Return the graph with all layers in int8 except `kept`, and its parameters. Call `calibrate` first."""
        symbol, arg_params, _ = self._quantize(kept)
        # Use our own ranges: mxnet's collectors would recompute them for each subset of layers.
        ranges = SimpleNamespace(min_max_dict=self._ranges)
        with quiet_stderr():
            symbol, arg_params, _ = mx.contrib.quantization.calib_graph(
                symbol, self._arg_params, {}, ranges, calib_mode="customize", logger=None
            )
            symbol = symbol.get_backend_symbol(_BACKEND)
        graph = SymbolGraph.parse(symbol.tojson())
        unfuse_float32_layers(graph)
        arrays = {name: arg_params[name].asnumpy() for name in graph.variables if name in arg_params}
        if self._limits_pairs:
            for name in {node.inputs[1].node.name for node in int8_nodes(graph)}:
                arrays[name] = limit_pairs(arrays[name])
        return graph, arrays

    def _quantize(self, kept: Collection[str]) -> tuple[Any, Any, Any]:
        """Return the uncalibrated symbol, its parameters and the collector."""
        with quiet_stderr():
            symbol, arg_params, _, collector = mx.contrib.quantization.quantize_graph(
                self._symbol,
                self._arg_params,
                {},
                excluded_sym_names=[self._nodes[name] for name in kept],
                calib_mode="naive",
                quantized_dtype="auto",
                quantize_mode="smart",
                quantize_granularity="channel-wise" if self._channel_wise else "tensor-wise",
                logger=None,
            )
        return symbol, arg_params, collector
