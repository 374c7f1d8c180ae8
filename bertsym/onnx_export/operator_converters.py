"""Converters of MXNet operators to ONNX nodes of opset 13 that compute the same at inference.

A converter takes the builder, the MXNet node and the names of its inputs, and returns the names of its outputs.
Sources: the operators' documentation and shape functions in MXNet 1.9.1 (src/operator), ONNX's Operators.md.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from bertsym.onnx_export import activations, attention, int8_layers, movement
from bertsym.onnx_export.builder import TO_THE_END, Builder, Converter, Result
from bertsym.symbol.attributes import decimal, integers
from bertsym.symbol.node import Node
from bertsym.symbol.operator_traits import decimal_of, flag_of, integer_of

#: operator -> positions of the inputs that it reads as integers, or only for their shape
INTEGER_INPUTS = {"Embedding": (0,), "SequenceMask": (1,), "ones_like": (0,), "zeros_like": (0,)}


def _renamed(op: str, **attributes: Any) -> Converter:
    """One ONNX node with the same inputs."""
    return lambda b, node, x: b.add(op, x, **attributes)


def _identity(b: Builder, node: Node, x: list[str]) -> Result:
    """The operator returns its first input at inference."""
    return x[0]


def _dropout(b: Builder, node: Node, x: list[str]) -> Result:
    if node.attrs.get("mode") == "always":
        b.refuse("also drops at inference (mode=always), which does not convert")
    return x[0]


# Layers


def _dense(b: Builder, node: Node, x: list[str]) -> Result:
    rank = b.rank(node.inputs[0])
    data = x[0]
    if rank != 2 and flag_of(node, "flatten"):
        data, rank = b.add("Flatten", [data], "flat", axis=1), 2
    if rank == 2:
        return b.add("Gemm", [data, *x[1:]], transB=1)
    weight = b.transpose_of(node.inputs[1], x[1])
    if len(x) == 2:
        return b.add("MatMul", [data, weight])
    return b.add("Add", [b.add("MatMul", [data, weight], "product"), x[2]])


def _embedding(b: Builder, node: Node, x: list[str]) -> Result:
    return b.add("Gather", [x[1], b.as_index(x[0])], axis=0)


def _layer_norm(b: Builder, node: Node, x: list[str]) -> Result:
    data, gamma, beta = x
    rank = b.rank(node.inputs[0])
    axis = integer_of(node, "axis") % rank
    if axis != rank - 1:
        b.refuse(f"normalizes axis {axis} of {rank}, only the last one converts")
    centred = b.add("Sub", [data, b.add("ReduceMean", [data], "mean", axes=[-1])], "centred")
    square = b.add("Pow", [centred, b.number(2.0)], "square")
    variance = b.add("ReduceMean", [square], "variance", axes=[-1])
    raised = b.add("Add", [variance, b.number(decimal_of(node, "eps"))], "variance_eps")
    normal = b.add("Div", [centred, b.add("Sqrt", [raised], "deviation")], "normal")
    return b.add("Add", [b.add("Mul", [normal, gamma], "scaled"), beta])


def _l2_normalization(b: Builder, node: Node, x: list[str]) -> Result:
    rank, mode = b.rank(node.inputs[0]), node.attrs.get("mode", "instance")
    axes = {"instance": range(1, rank), "channel": range(1, 2), "spatial": range(2, rank)}[mode]
    square = b.add("ReduceSumSquare", x, "square", axes=list(axes))
    raised = b.add("Add", [square, b.number(decimal_of(node, "eps"))], "square_eps")
    return b.add("Div", [x[0], b.add("Sqrt", [raised], "norm")])


def _log_softmax(b: Builder, node: Node, x: list[str]) -> Result:
    if len(x) > 1 or flag_of(node, "use_length"):
        b.refuse("reads a length (use_length), which does not convert")
    temperature = decimal(node.attrs, "temperature", 1.0)
    data = b.add("Div", [x[0], b.number(temperature)], "cooled") if temperature != 1 else x[0]
    return b.add("LogSoftmax", [data], axis=integer_of(node, "axis"))


def _softmax_output(b: Builder, node: Node, x: list[str]) -> Result:
    if flag_of(node, "multi_output"):
        return b.add("Softmax", x[:1], axis=1)
    if not flag_of(node, "preserve_shape") and b.rank(node.inputs[0]) != 2:
        # MXNet 1.9.1: the last axis with oneDNN, all but the first without.
        b.refuse("has more than two axes and no preserve_shape: what MXNet computes depends on how it was built")
    return b.add("Softmax", x[:1], axis=-1)


def _softmax_activation(b: Builder, node: Node, x: list[str]) -> Result:
    return b.add("Softmax", x, axis=1 if node.attrs.get("mode") == "channel" else -1)


def _sequence_mask(b: Builder, node: Node, x: list[str]) -> Result:
    if not flag_of(node, "use_sequence_length"):
        return x[0]
    rank, axis = b.rank(node.inputs[0]), integer_of(node, "axis")
    length = b.add("Gather", [b.shape(x[0]), b.scalar(axis)], "length", axis=0)
    positions = b.add("Range", [b.scalar(0), length, b.scalar(1)], "positions")
    # Lengths along the batch axis, positions along the token axis; both are broadcast to the axes that follow.
    across = b.add("Unsqueeze", [positions, b.ints(1 - axis, *range(2, rank))], "tokens")
    lengths = b.add("Unsqueeze", [b.as_index(x[1]), b.ints(axis, *range(2, rank))], "lengths")
    valid = b.add("Less", [across, lengths], "valid")
    return b.add("Where", [valid, x[0], b.number(decimal_of(node, "value"))])


def _batch_dot(b: Builder, node: Node, x: list[str]) -> Result:
    factors = []
    for place, key in enumerate(("transpose_a", "transpose_b")):
        factor = x[place]
        if flag_of(node, key):
            rank = b.rank(node.inputs[place])
            order = [*range(rank - 2), rank - 1, rank - 2]
            factor = b.add("Transpose", [factor], key, perm=order)
        factors.append(factor)
    return b.add("MatMul", factors)


def _div_sqrt_dim(b: Builder, node: Node, x: list[str]) -> Result:
    size = b.add("Cast", [b.sizes(x[0], -1, TO_THE_END, "size")], "units", to=TensorProto.FLOAT)
    return b.add("Div", [x[0], b.add("Sqrt", [size], "root")])


# Arithmetic


def _reduce(op: str) -> Converter:
    def convert(b: Builder, node: Node, x: list[str]) -> Result:
        keep = flag_of(node, "keepdims")
        rank = b.rank(node.inputs[0])
        axes = sorted({axis % rank for axis in integers(node.attrs, "axis") if axis is not None})
        if flag_of(node, "exclude"):
            axes = [axis for axis in range(rank) if axis not in axes]
        axes = axes or list(range(rank))
        bare = len(axes) == rank and not keep  # MXNet does not have tensors without axes
        part = "all" if bare else ""
        if op == "ReduceSum":  # the only reduction whose axes are an input in opset 13
            found = b.add(op, [x[0], b.ints(*axes)], part, keepdims=int(keep))
        else:
            found = b.add(op, x, part, axes=axes, keepdims=int(keep))
        return b.add("Reshape", [found, b.ints(1)]) if bare else found

    return convert


def _with_scalar(op: str, *, first: bool = False) -> Converter:
    """Arithmetic with a number, which is the `first` operand of ``_rminus_scalar`` and ``_rdiv_scalar``."""

    def convert(b: Builder, node: Node, x: list[str]) -> Result:
        operands = [x[0], b.number(decimal_of(node, "scalar"))]
        return b.add(op, operands[::-1] if first else operands)

    return convert


def _compared(op: str) -> Converter:
    """A comparison, 0 or 1 in float32."""
    return lambda b, node, x: b.add("Cast", [b.add(op, x, "bool")], to=TensorProto.FLOAT)


def _at_least(b: Builder, node: Node, x: list[str]) -> Result:
    scalar = b.number(decimal_of(node, "scalar"))
    return b.add("Cast", [b.add("GreaterOrEqual", [x[0], scalar], "bool")], to=TensorProto.FLOAT)


def _clip(b: Builder, node: Node, x: list[str]) -> Result:
    return b.add("Clip", [x[0], *(b.number(decimal(node.attrs, key, 0.0)) for key in ("a_min", "a_max"))])


def _where(b: Builder, node: Node, x: list[str]) -> Result:
    if b.rank(node.inputs[0]) != b.rank(node.inputs[1]):
        b.refuse("chooses whole rows, which does not convert")
    return b.add("Where", [b.add("Cast", x[:1], "bool", to=TensorProto.BOOL), *x[1:]])


CONVERTERS: dict[str, Converter] = {
    "Activation": activations.activation,
    "BlockGrad": _identity,
    "Cast": attention.cast,
    "Concat": movement.concat,
    "Dropout": _dropout,
    "Embedding": _embedding,
    "Flatten": _renamed("Flatten", axis=1),
    "FullyConnected": _dense,
    "L2Normalization": _l2_normalization,
    "LayerNorm": _layer_norm,
    "LeakyReLU": activations.leaky_relu,
    "LinearRegressionOutput": _identity,
    "LogisticRegressionOutput": lambda b, node, x: b.add("Sigmoid", x[:1]),
    "Reshape": movement.reshape,
    "SequenceMask": _sequence_mask,
    "SliceChannel": movement.split,
    "SoftmaxActivation": _softmax_activation,
    "SoftmaxOutput": _softmax_output,
    "SwapAxis": movement.swap_axes,
    "_arange": movement.arange,
    "_contrib_arange_like": attention.arange_like,
    "_contrib_div_sqrt_dim": _div_sqrt_dim,
    "_contrib_interleaved_matmul_selfatt_qk": attention.self_attention_scores,
    "_contrib_interleaved_matmul_selfatt_valatt": attention.self_attention_values,
    "_contrib_quantize_v2": int8_layers.quantize,
    "_copy": _identity,
    "_div_scalar": _with_scalar("Div"),
    "_greater_equal_scalar": _at_least,
    "_maximum_scalar": _with_scalar("Max"),
    "_minimum_scalar": _with_scalar("Min"),
    "_minus_scalar": _with_scalar("Sub"),
    "_mul_scalar": _with_scalar("Mul"),
    "_plus_scalar": _with_scalar("Add"),
    "_power_scalar": _with_scalar("Pow"),
    "_rdiv_scalar": _with_scalar("Div", first=True),
    "_rminus_scalar": _with_scalar("Sub", first=True),
    "_sg_mkldnn_fully_connected": int8_layers.dense,
    "abs": _renamed("Abs"),
    "batch_dot": _batch_dot,
    "broadcast_add": _renamed("Add"),
    "broadcast_axis": movement.broadcast_axis,
    "broadcast_div": _renamed("Div"),
    "broadcast_greater": _compared("Greater"),
    "broadcast_lesser": _compared("Less"),
    "broadcast_like": movement.broadcast_like,
    "broadcast_maximum": _renamed("Max"),
    "broadcast_minimum": _renamed("Min"),
    "broadcast_mul": _renamed("Mul"),
    "broadcast_power": _renamed("Pow"),
    "broadcast_sub": _renamed("Sub"),
    "broadcast_to": movement.broadcast_to,
    "clip": _clip,
    "elemwise_add": _renamed("Add"),
    "elemwise_div": _renamed("Div"),
    "elemwise_mul": _renamed("Mul"),
    "elemwise_sub": _renamed("Sub"),
    "erf": _renamed("Erf"),
    "exp": _renamed("Exp"),
    "expand_dims": movement.expand_dims,
    "log": _renamed("Log"),
    "log_softmax": _log_softmax,
    "max": _reduce("ReduceMax"),
    "mean": _reduce("ReduceMean"),
    "min": _reduce("ReduceMin"),
    "negative": _renamed("Neg"),
    "ones_like": movement.filled(1.0),
    "relu": _renamed("Relu"),
    "sigmoid": _renamed("Sigmoid"),
    "slice": movement.slice_ranges,
    "slice_axis": movement.slice_axis,
    "slice_like": movement.slice_like,
    "softmax": attention.softmax,
    "sqrt": _renamed("Sqrt"),
    "square": lambda b, node, x: b.add("Mul", [x[0], x[0]]),
    "squeeze": movement.squeeze,
    "stack": movement.stack,
    "sum": _reduce("ReduceSum"),
    "tanh": _renamed("Tanh"),
    "tile": movement.tile,
    "transpose": movement.transpose,
    "where": _where,
    "zeros_like": movement.filled(0.0),
}
