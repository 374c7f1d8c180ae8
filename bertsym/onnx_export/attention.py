"""GluonNLP's own attention operators, new in MXNet 1.6, and what its encoder masks with."""

from __future__ import annotations

from onnx import TensorProto

from bertsym.onnx_export.builder import TO_THE_END, Builder, Result
from bertsym.symbol.attributes import decimal, integer
from bertsym.symbol.node import Node
from bertsym.symbol.operator_traits import flag_of, integer_of


def self_attention_scores(b: Builder, node: Node, x: list[str]) -> Result:
    """Scaled products of queries and keys, (T, N, 3*H*D) interleaved by head -> (N*H, T, T)."""
    query, key = (_part(b, node, x[0], place, order) for place, order in ((0, (1, 2, 0, 3)), (1, (1, 2, 3, 0))))
    size = b.add("Cast", [b.sizes(query, -1, TO_THE_END, "size")], "units", to=TensorProto.FLOAT)
    scaled = b.add("Div", [query, b.add("Sqrt", [size], "root")], "scaled")
    length = b.sizes(x[0], 0, 1, "length")
    shape = b.add("Concat", [b.ints(-1), length, length], "shape", axis=0)
    return b.add("Reshape", [b.add("MatMul", [scaled, key], "products"), shape])


def self_attention_values(b: Builder, node: Node, x: list[str]) -> Result:
    """Values weighted by (N*H, T, T), (T, N, 3*H*D) interleaved by head -> (T, N, H*D)."""
    value = _part(b, node, x[0], 2, (1, 2, 0, 3))
    heads = b.ints(-1, integer(node.attrs, "heads", 1))
    shape = b.add("Concat", [heads, b.sizes(x[1], 1, 3, "lengths")], "shape", axis=0)
    context = b.add("MatMul", [b.add("Reshape", [x[1], shape], "weights"), value], "context")
    tokens = b.add("Transpose", [context], "tokens", perm=[2, 0, 1, 3])
    return b.add("Reshape", [tokens, b.ints(0, 0, -1)])


def _part(b: Builder, node: Node, x: str, place: int, order: tuple[int, ...]) -> str:
    """Queries, keys or values, (T, N, 3*H*D) -> T, N, H, D in another `order`."""
    split = b.add("Reshape", [x, b.ints(0, 0, integer(node.attrs, "heads", 1), 3, -1)], f"split{place}")
    part = b.add("Gather", [split, b.scalar(place)], f"part{place}", axis=3)
    return b.add("Transpose", [part], f"heads{place}", perm=list(order))


def softmax(b: Builder, node: Node, x: list[str]) -> Result:
    """Over the last axis; with ``use_length`` the second input is the number of scores of each row that count."""
    temperature = decimal(node.attrs, "temperature", 1.0)
    data = b.add("Div", [x[0], b.number(temperature)], "cooled") if temperature != 1 else x[0]
    axis, rank = integer_of(node, "axis"), b.rank(node.inputs[0])
    if not flag_of(node, "use_length"):
        return b.add("Softmax", [data], axis=axis)
    if axis not in (-1, rank - 1):
        b.refuse("reads a length (use_length) along another axis than the last, which does not convert")
    lengths = b.add("Unsqueeze", [b.as_index(x[1]), b.ints(rank - 1)], "lengths")
    valid = b.add("Less", [_positions(b, x[0], rank - 1), lengths], "valid")
    return b.add("Softmax", [b.add("Where", [valid, data, b.number(float("-inf"))], "masked")], axis=-1)


def arange_like(b: Builder, node: Node, x: list[str]) -> Result:
    """The numbers from ``start`` in steps of ``step``, as many as an axis is long."""
    if "axis" not in node.attrs or integer_of(node, "repeat") != 1:
        b.refuse("numbers all elements or repeats numbers, which does not convert")
    positions = _positions(b, x[0], integer(node.attrs, "axis", 0))
    start, step = (decimal(node.attrs, key, default) for key, default in (("start", 0.0), ("step", 1.0)))
    if (start, step) == (0, 1):
        return b.add("Cast", [positions], to=TensorProto.FLOAT)
    steps = b.add("Mul", [b.add("Cast", [positions], "numbers", to=TensorProto.FLOAT), b.number(step)], "steps")
    return b.add("Add", [steps, b.number(start)])


def _positions(b: Builder, x: str, axis: int) -> str:
    """0, 1, ... along an axis, int64."""
    length = b.add("Gather", [b.shape(x), b.scalar(axis)], "length", axis=0)
    return b.add("Range", [b.scalar(0), length, b.scalar(1)], "positions")


def cast(b: Builder, node: Node, x: list[str]) -> Result:
    """To float32; to an integer as the float32 number without its fraction."""
    dtype = node.attrs.get("dtype")
    if dtype == "float32":
        return x[0]
    if dtype not in ("int32", "int64"):
        b.refuse(f"gives {dtype}: only float32, int32 and int64 convert")
    return b.add("Cast", [b.add("Cast", x, "whole", to=TensorProto.INT64)], to=TensorProto.FLOAT)
