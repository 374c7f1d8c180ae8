"""What MXNet's int8 operators compute: how they round data, weights and biases to integers.

The rules are those of mxnet 1.9.1 with oneDNN (src/operator/subgraph/mkldnn/mkldnn_fc.cc), each confirmed against the
outputs of its operators. Where mxnet's Python code divides a range by 127, these divide by 127.5: tensor-wise weights,
which that code rounded by 127, are read as 0.4 % smaller than they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.symbol.attributes import decimal, flag
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.quantized_layers import FUSED, QUANTIZE, FusedLayer, int8_nodes

_LIMITS = {"int8": 127.5, "uint8": 255.5}  #: dtype -> what the end of a range is mapped to
#: Largest sum of two neighbouring weights of one sign whose products never saturate. Without VNNI, vpmaddubsw
#: multiplies the data, as 0 to 255, and adds the products of inputs 0 and 1, 2 and 3, ... in int16: 128 * 255 fits.
#: Seen in mxnet 1.9.1 with DNNL_MAX_CPU_ISA of SSE41, AVX2 and AVX512_CORE: weights within it gave exact sums for int8
#: and uint8 data of 1 to 300 rows; with the pairs 1 and 2, 3 and 4, ... limited instead, most sums were wrong.
PAIR_LIMIT = 128
_LARGEST_BIAS = np.float32(2**30)  # as an int32; oneDNN does not take larger ones


@dataclass(frozen=True)
class Rounding:
    """How float32 elements become integers: multiplied by a factor, rounded half to even, saturated."""

    factor: np.float32
    dtype: str  #: ``int8`` or ``uint8``

    @property
    def scale(self) -> np.float32:
        """The difference between the elements of neighbouring integers."""
        return np.float32(1) / self.factor


@dataclass(frozen=True)
class Int8Layer:
    """A FullyConnected in int8: data as integers times `weight`, summed exactly, plus the bias, as float32.

    With the integers x of `data`, its outputs are ``(x @ weight.T) * data.scale * scales + bias``.
    """

    data: Rounding
    weight: Array  #: (O, I) int8
    scales: Array  #: of the rows of the weight, (O,) float32
    bias: Array  #: (O,) float32, rounded to integers times ``data.scale * scales``

    def part(self, rows: Array, factor: np.float32) -> Int8Layer:
        """Return the layer of some of the outputs, multiplied by a factor."""
        return Int8Layer(self.data, self.weight[rows], self.scales[rows] * factor, self.bias[rows] * factor)


def rounding_of(output: Output) -> Rounding:
    """Return how the integers of an operator's output are made; raises ModelError, naming the node, if it varies."""
    node = output.node
    if node.op not in (QUANTIZE, FUSED) or output.index:
        raise ModelError(f"node {node.name!r} ({node.op}) gives no int8 tensor with a constant range")
    if not {"min_calib_range", "max_calib_range"} <= node.attrs.keys():
        raise ModelError(f"node {node.name!r} ({node.op}) was not calibrated: its range depends on the data")
    ends = [decimal(node.attrs, f"{end}_calib_range", np.nan) for end in ("min", "max")]
    if node.op == QUANTIZE:
        if node.attrs.get("out_type") != "auto":
            raise ModelError(f"node {node.name!r} ({node.op}) has another out_type than auto")
        dtype = "uint8" if ends[0] >= 0 else "int8"
    else:
        dtype = "uint8" if FusedLayer.of(node).activation == "relu" else "int8"
    return Rounding(_factor(ends, dtype, node.name), dtype)


def int8_layer(node: Node, params: Mapping[str, Array]) -> Int8Layer:
    """Read a fused operator in int8 as MXNet does when it binds it; raises ModelError, naming the node.

    Weights with a scale for each output are float32 in `params`; else they are int8, with their ranges.
    """
    data = rounding_of(node.inputs[0])
    weight, bias = (np.asarray(params[entry.node.name]) for entry in node.inputs[1:3])
    if not flag(node.attrs, "channel_wise_quantize", False):
        return _tensor_wise(node, data, weight, bias, params)
    factors = weight_factors(weight)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # A bias must not overflow: its row then has fewer levels.
        most = _LARGEST_BIAS / np.abs(bias) / data.factor
        factors = np.where(bias != 0, np.minimum(factors, most), factors).astype(np.float32)
    factors[~np.isfinite(factors)] = 1  # a row of zeros
    rounded = np.clip(np.rint(weight * factors[:, np.newaxis]), -128, 127).astype(np.int8)
    sums = factors * data.factor
    return Int8Layer(data, rounded, 1 / factors, np.rint(bias * sums) / sums)


def weight_factors(weight: Array) -> Array:
    """Return the factor of each row of a float32 weight (O, I), if no bias limits it, (O,) float32; inf for zeros."""
    with np.errstate(divide="ignore", over="ignore"):
        factors: Array = np.float32(_LIMITS["int8"]) / np.abs(weight).max(axis=1)
    return factors


def saturating_layers(graph: SymbolGraph, params: Mapping[str, Array]) -> list[str]:
    """List the int8 layers whose products may saturate on x86-64 processors without VNNI.

    Raises ModelError as `int8_layer` does.
    """
    return [node.name for node in int8_nodes(graph) if _largest_pair(int8_layer(node, params).weight) > PAIR_LIMIT]


def _largest_pair(weight: Array) -> int:
    """Return the largest sum of two neighbours of one sign, or of an element alone."""
    inputs = weight.shape[1]
    pairs = np.pad(weight, ((0, 0), (0, inputs % 2))).astype(np.int16).reshape(len(weight), -1, 2)
    parts = (np.maximum(sign * pairs, 0).sum(axis=-1) for sign in (1, -1))
    return int(max(part.max() for part in parts))


def _tensor_wise(node: Node, data: Rounding, weight: Array, bias: Array, params: Mapping[str, Array]) -> Int8Layer:
    """One factor for all weights, and one for the bias."""
    if len(node.inputs) != 9 or weight.dtype != np.int8 or bias.dtype != np.int8:
        raise ModelError(f"node {node.name!r} ({node.op}) has neither float32 nor int8 weights with their ranges")
    ends = [float(params[entry.node.name].reshape(-1)[0]) for entry in node.inputs[5:9]]
    factor, bias_factor = (_factor(pair, "int8", node.name) for pair in (ends[:2], ends[2:]))
    sums = data.factor * factor
    rescaled = bias * (sums / bias_factor)
    if np.abs(rescaled).max() > _LARGEST_BIAS:  # MXNet would then change the array of the weights
        raise ModelError(f"node {node.name!r} ({node.op}): its bias is too large for its weights")
    # Halves away from zero, by C's round.
    rounded = np.trunc(rescaled + np.copysign(np.float32(0.5), rescaled)) / sums
    return Int8Layer(data, weight, np.full(len(weight), 1 / factor, np.float32), rounded)


def _factor(ends: Sequence[float], dtype: str, name: str) -> np.float32:
    """Return the factor that maps the end of a range to that of the integers."""
    limit = np.float32(np.abs(ends).max())
    if not 0 < limit < np.inf:
        raise ModelError(f"node {name!r}: its range ends in {limit}, not in a finite number above 0")
    return np.float32(_LIMITS[dtype]) / limit
