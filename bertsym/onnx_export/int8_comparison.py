"""Compare an ONNX file in int8 with MXNet, layer by layer.

Both round the same data to the same integers, except at ties, where a difference of 1e-7 decides between two integers.
One such element changes those of all later layers, so a comparison of the outputs alone would have to allow almost any
difference. Here each layer is fed the integers of MXNet, and what it computes is compared as in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bertsym.array import Array
from bertsym.errors import VerificationError
from bertsym.execution.engines.onnxruntime import load_model
from bertsym.onnx_export.int8_layers import INTEGERS
from bertsym.onnx_export.libraries import onnx_errors
from bertsym.surgery.output_comparison import Difference, difference
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output
from bertsym.symbol.quantized_layers import int8_nodes

if TYPE_CHECKING:
    from onnx import ModelProto


_MEDIAN_DIFFERENCE = 0.1  # of the outputs of a whole file, relative to their scale


@dataclass(frozen=True)
class RoundedData:
    """The rounded data of an int8 layer."""

    integers: Output  #: in MXNet's graph
    data: str  #: the ONNX tensor before it is rounded
    rounded: str  #: the ONNX tensor of its integers
    given: str  #: the ONNX input with the integers that the layer reads instead of these
    scale: Array

    def find_nearest(self, data: Array, integers: Array) -> Array:
        """Return the float32 elements nearest to `data` that are rounded to `integers`."""
        limits = np.iinfo(integers.dtype)
        middle = integers.astype(np.float64)
        least = np.where(middle == limits.min, -np.inf, middle - 0.5) * self.scale
        greatest = np.where(middle == limits.max, np.inf, middle + 0.5) * self.scale
        nearest: Array = np.clip(data, least, greatest)
        return nearest


class CutFile:
    """An ONNX file, cut before each int8 layer of the graph that it was converted from."""

    def __init__(self, path: Path, graph: SymbolGraph, where: str) -> None:
        import onnx

        with onnx_errors(where, "onnx can't read the converted model"):
            model = onnx.load(str(path))
        self._where, self._names = where, [output.name for output in model.graph.output]
        self.layers = _cut(model, graph, where)
        self._session = load_model(model, where)

    def run(self, fed: Mapping[str, Array], integers: Sequence[Array]) -> tuple[list[Array], list[Difference]]:
        """Feed MXNet's integers to the layers; returns the outputs, and how far the data of each layer is from them.

        A difference is how much the data must change to be rounded to the integers of MXNet, or to its own.
        """
        given = {layer.given: array for layer, array in zip(self.layers, integers)}
        read = {entry.name for entry in self._session.get_inputs()}
        names = [output.name for output in self._session.get_outputs()]
        with onnx_errors(self._where, "onnxruntime can't run the converted model"):
            inputs = {name: array for name, array in {**fed, **given}.items() if name in read}
            found = dict(zip(names, self._session.run(names, inputs)))
        differences = []
        for layer, expected in zip(self.layers, integers):
            data = found[layer.data]
            for rounded in (expected, found[layer.rounded]):
                if rounded.shape != data.shape or rounded.dtype != expected.dtype:
                    raise VerificationError(f"{self._where}: {layer.rounded} has another shape or type than in MXNet")
                differences.append(difference(layer.data, layer.find_nearest(data, rounded), data))
        return [found[name] for name in self._names], differences


def check_rounded(expected: Sequence[Array], found: Sequence[Array], where: str) -> None:
    """Raise VerificationError where the outputs of a whole int8 file are not close to MXNet's.

    The median counts: ties change single rows as much as the quantization does.
    """
    for one, other in zip(expected, found):
        typical = float(np.median(np.abs(one - other))) / (float(np.abs(one).max()) or 1.0)
        if not typical <= _MEDIAN_DIFFERENCE:
            raise VerificationError(
                f"{where}: half of the outputs' elements differ from the original's by {typical:.1e} of their scale or "
                f"more; {_MEDIAN_DIFFERENCE:g} is allowed"
            )


def _cut(model: ModelProto, graph: SymbolGraph, where: str) -> list[RoundedData]:
    """Make data and integers of each int8 layer outputs, and the integers that it reads inputs, in place."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    rounding = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    layers = int8_nodes(graph)
    if [node.name for node in rounding] != [f"{layer.name}/{INTEGERS}" for layer in layers]:
        raise VerificationError(f"{where}: the ONNX graph does not round the data of each int8 layer once")
    found = []
    outputs = {output.name for output in model.graph.output}
    for node, layer in zip(rounding, layers):
        data, scale, zero = node.input
        (rounded,) = node.output
        given = f"{layer.name}/given"
        for reader in model.graph.node:
            reader.input[:] = [given if name == rounded else name for name in reader.input]
        dtype = constants[zero].data_type
        model.graph.input.append(helper.make_tensor_value_info(given, dtype, None))
        model.graph.output.append(helper.make_tensor_value_info(rounded, dtype, None))
        if data not in outputs:
            model.graph.output.append(helper.make_tensor_value_info(data, TensorProto.FLOAT, None))
            outputs.add(data)
        found.append(RoundedData(layer.inputs[0], data, rounded, given, numpy_helper.to_array(constants[scale])))
    return found
