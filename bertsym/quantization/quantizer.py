"""mxnet's quantization of one float32 graph, calibrated once, with any of its layers left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from bertsym.acceleration.graphs import to_symbol
from bertsym.passes.unfusing import unfuse_float32_layers
from bertsym.quantization.calibration import Range, tensor_ranges
from bertsym.runtime import mx, quiet_stderr
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array
from bertsym.symbol.quantized_layers import fused_layers

_BACKEND = "MKLDNN_QUANTIZE"


class Quantizer:
    """Makes int8 graphs of a float32 one, whose FullyConnecteds are `layers`.

    With `channel_wise` every output of a layer has a scale of its own; mxnet then keeps the weights in float32 and
    makes int8 of them when the graph is bound. Without, a weight is int8 in the file and has one scale.
    """

    def __init__(self, graph: SymbolGraph, arg_params: Mapping[str, Array], channel_wise: bool = True) -> None:
        self._arg_params = {name: mx.nd.array(array) for name, array in arg_params.items()}
        with quiet_stderr():
            self._symbol = to_symbol(graph).get_backend_symbol(_BACKEND)
        self._channel_wise = channel_wise
        fused = fused_layers(SymbolGraph.parse(self._symbol.tojson()))
        self._nodes = {layer.name: node.name for node, layer in fused.items()}
        self.layers = tuple(self._nodes)
        self._ranges: dict[str, Range] = {}

    def calibrate(self, batches: Iterable[tuple[Array, Array, Array]], calibration: str) -> None:
        """Find the ranges of all tensors that are quantized; `calibration` is a key of CALIBRATIONS."""
        tensors = sorted(self._quantize(())[2].include_layer)
        self._ranges = tensor_ranges(self._symbol, self._arg_params, tensors, batches, calibration)

    def quantized(self, kept: Collection[str]) -> tuple[SymbolGraph, dict[str, Array]]:
        """The graph whose layers are int8 but those of `kept`, and its parameters; after `calibrate`."""
        symbol, arg_params, _ = self._quantize(kept)
        # Ranges that were computed elsewhere: mxnet's collectors compute them again for each choice of layers.
        ranges = SimpleNamespace(min_max_dict=self._ranges)
        with quiet_stderr():
            symbol, arg_params, _ = mx.contrib.quantization.calib_graph(
                symbol, self._arg_params, {}, ranges, calib_mode="customize", logger=None
            )
            symbol = symbol.get_backend_symbol(_BACKEND)
        graph = SymbolGraph.parse(symbol.tojson())
        unfuse_float32_layers(graph)
        return graph, {name: arg_params[name].asnumpy() for name in graph.variables if name in arg_params}

    def _quantize(self, kept: Collection[str]) -> tuple[Any, Any, Any]:
        """Symbol, parameters and collector, not yet calibrated."""
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
