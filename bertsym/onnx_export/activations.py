"""Converters of MXNet's activations."""

from __future__ import annotations

import math

from bertsym.onnx_export.builder import Builder, Result
from bertsym.symbol.node import Node
from bertsym.symbol.operator_traits import decimal_of

_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softrelu": "Softplus", "softsign": "Softsign", "tanh": "Tanh"}


def activation(b: Builder, node: Node, x: list[str]) -> Result:
    """One of the ``act_type`` of the operator Activation."""
    kind = node.attrs.get("act_type", "")
    if kind not in _ACTIVATIONS:
        b.refuse(f"has the activation {kind!r}, which does not convert")
    return b.add(_ACTIVATIONS[kind], x)


def leaky_relu(b: Builder, node: Node, x: list[str]) -> Result:
    """One of the ``act_type`` of the operator LeakyReLU."""
    kind, slope = node.attrs.get("act_type", "leaky"), decimal_of(node, "slope")
    if kind in ("leaky", "elu"):
        return b.add({"leaky": "LeakyRelu", "elu": "Elu"}[kind], x, alpha=slope)
    if kind != "gelu":
        b.refuse(f"has the activation {kind!r}, which does not convert")
    return gelu(b, x[0])


def gelu(b: Builder, x: str) -> str:
    """x/2 * (1 + erf(x / sqrt(2))), in the order that onnxruntime recognizes and fuses as gelu."""
    error = b.add("Erf", [b.add("Div", [x, b.number(math.sqrt(2))], "divided")], "erf")
    raised = b.add("Add", [error, b.number(1.0)], "raised")
    return b.add("Mul", [b.add("Mul", [x, raised], "product"), b.number(0.5)])
