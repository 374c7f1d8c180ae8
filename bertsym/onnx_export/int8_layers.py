"""Converters of the operators that MXNet's quantization adds, to the QDQ form: QuantizeLinear and DequantizeLinear.

Runtimes fuse a MatMul between DequantizeLinears into a product of integers; without fusion, the same is computed in
float32.
"""

from __future__ import annotations

import numpy as np

from bertsym.errors import ModelError
from bertsym.onnx_export.activations import gelu
from bertsym.onnx_export.builder import Builder, Result
from bertsym.symbol.int8_arithmetic import int8_layer
from bertsym.symbol.node import Node
from bertsym.symbol.operator_traits import flag_of
from bertsym.symbol.quantized_layers import FusedLayer

INTEGERS = "integers"  #: part of the name of each QuantizeLinear, after that of the MXNet node


def quantize(b: Builder, node: Node, x: list[str]) -> Result:
    """Return the float32 tensor, which each layer that reads it rounds for itself, and no ends of its range.

    onnxruntime 1.32 does not fuse two layers that read one QuantizeLinear of int8.
    """
    return [x[0], "", ""]


def dense(b: Builder, node: Node, x: list[str]) -> Result:
    """A product of rounded data and int8 weights, with its bias and activation."""
    try:
        fused, layer = FusedLayer.of(node), int8_layer(node, b.parameters)
    except ModelError as error:
        raise ModelError(f"{b.where}: {error}") from None
    operator, data = fused.operators[0], x[0]
    if flag_of(operator, "flatten") and b.rank(node.inputs[0]) != 2:
        data = b.add("Flatten", [data], "flat", axis=1)
    scale, zero = b.array(np.array(layer.data.scale), "scale"), b.array(np.array(0, layer.data.dtype), "zero")
    integers = b.add("QuantizeLinear", [data, scale, zero], INTEGERS)
    rounded = b.add("DequantizeLinear", [integers, scale, zero], "rounded")
    weight = b.array_of(node.inputs[1].node.name, np.ascontiguousarray(layer.weight.T), "int8")
    scales, zeros = b.array(layer.scales, "scales"), b.array(np.zeros(len(layer.scales), np.int8), "zeros")
    weights = b.add("DequantizeLinear", [weight, scales, zeros], "weights", axis=1)
    product, bias = b.add("MatMul", [rounded, weights], "matmul"), b.array(layer.bias, "bias")
    if fused.activation is None:
        found = b.add("Add", [product, bias])
    elif fused.activation == "relu":
        found = b.add("Relu", [b.add("Add", [product, bias], "sum")])
    elif fused.activation == "gelu":
        found = gelu(b, b.add("Add", [product, bias], "sum"))
    else:
        b.refuse(f"has the activation {fused.activation!r}, which does not convert in int8")
    return [found, "", ""]  # without the ends of its range
