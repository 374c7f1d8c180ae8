"""Values in a graph that are the same for every input: indices such as those at which [CLS] is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.symbol.attributes import decimal, integers
from bertsym.symbol.node import Output

Shape = tuple[int, ...]
_SAME = frozenset(
    {"Cast", "cast", "_copy", "identity", "BlockGrad", "expand_dims", "Reshape", "reshape", "squeeze"}
) | {
    "broadcast_axis",
    "broadcast_axes",
    "broadcast_to",
    "broadcast_like",
    "tile",
    "repeat",
    "slice_like",
    "slice_axis",
    "slice",
    "transpose",
    "Flatten",
}
_FILLED = {"_zeros": 0.0, "zeros": 0.0, "_ones": 1.0, "ones": 1.0}
_LIKE = {"zeros_like": 0.0, "ones_like": 1.0, "_zeros_like": 0.0}


@dataclass(frozen=True)
class Constant:
    """An array that holds one number everywhere; the shape is None where it is unknown."""

    value: float
    shape: Shape | None = None


def constant(output: Output, params: Mapping[str, Any] | None = None) -> Constant | None:
    """The constant that an output is, or None. `params` are arrays by name, for constants kept as parameters."""
    node = output.node
    if node.is_variable:
        return _parameter(node.name, params) if params is not None and node.name in params else None
    if node.op in _FILLED:
        return Constant(_FILLED[node.op], _known(integers(node.attrs, "shape")))
    if node.op == "_full":
        return Constant(decimal(node.attrs, "value", 0.0), _known(integers(node.attrs, "shape")))
    if node.op == "_arange":
        start, stop = decimal(node.attrs, "start", 0.0), node.attrs.get("stop", "None")
        # arange(k, k + 1) is the one number k; arange(n) alone counts from 0.
        if stop in ("None", ""):
            return Constant(0.0, (1,)) if start == 1 else None
        return Constant(start, (1,)) if decimal(node.attrs, "stop", 0.0) - start == 1 else None
    if not node.inputs:
        return None
    if node.op in _LIKE:
        return Constant(_LIKE[node.op])
    inner = constant(node.inputs[0], params)
    if node.op == "_mul_scalar" and decimal(node.attrs, "scalar", 1.0) == 0:
        return Constant(0.0, inner.shape if inner else None)
    if inner is None:
        return None
    if node.op in _SAME:
        shape = inner.shape
        if node.op in ("Reshape", "reshape"):
            shape = _known(integers(node.attrs, "shape"))
        return Constant(inner.value, shape if node.op in ("Reshape", "reshape", "Cast", "cast", "_copy") else None)
    scalar = decimal(node.attrs, "scalar", 0.0)
    arithmetic = {
        "_plus_scalar": inner.value + scalar,
        "_minus_scalar": inner.value - scalar,
        "_mul_scalar": inner.value * scalar,
    }
    return Constant(arithmetic[node.op], inner.shape) if node.op in arithmetic else None


def _parameter(name: str, params: Mapping[str, Any]) -> Constant | None:
    array = params[name]
    if array.size > 4096 or (array != array.flat[0]).any():
        return None
    return Constant(float(array.flat[0]), tuple(array.shape))


def _known(shape: tuple[int | None, ...]) -> Shape | None:
    return (
        tuple(size for size in shape if size is not None)
        if shape and all(size and size > 0 for size in shape)
        else None
    )
