"""Converters of operators that only move elements: reshape, transpose, slice, concatenate, broadcast."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from bertsym.onnx_export.builder import TO_THE_END, Builder, Converter, Result
from bertsym.symbol.attributes import decimal, integer, integers
from bertsym.symbol.node import Node
from bertsym.symbol.operator_traits import decimal_of, flag_of, integer_of


def reshape(b: Builder, node: Node, x: list[str]) -> Result:
    """Reshape; MXNet's codes are sizes, 0 (keep this axis), -1 (infer) and -2 (keep all axes that follow)."""
    codes = [code for code in integers(node.attrs, "shape") if code is not None]
    if not codes or min(codes) < -2:
        b.refuse(f"has the shape {node.attrs.get('shape', '')!r}: only sizes, 0, -1 and -2 convert")
    axes = range(b.rank(node.inputs[0]))
    backwards = flag_of(node, "reverse")
    if backwards:
        axes, codes = axes[::-1], codes[::-1]
    wanted: list[tuple[bool, int]] = []  # an axis of the input, or a size
    for place, code in enumerate(codes):
        if code == -2:
            wanted += [(True, axis) for axis in axes[place:]]
        else:
            wanted.append((True, axes[place]) if code == 0 else (False, code))
    if backwards:
        wanted.reverse()
    return b.add("Reshape", [x[0], _shape(b, x[0], wanted)])


def _shape(b: Builder, x: str, wanted: Sequence[tuple[bool, int]]) -> str:
    """Build a shape from sizes and axes of `x`; an axis that keeps its position is 0 in ONNX too."""
    sizes = [(False, 0) if size == (True, place) else size for place, size in enumerate(wanted)]
    pieces = []
    place = 0
    # Adjacent axes are read together.
    for is_axis, group in itertools.groupby(sizes, lambda size: size[0]):
        values = [value for _, value in group]
        if is_axis:
            pieces.append(b.sizes(x, values[0], values[-1] + 1, f"size{place}"))
        else:
            pieces.append(b.ints(*values))
        place += len(values)
    return pieces[0] if len(pieces) == 1 else b.add("Concat", pieces, "shape", axis=0)


def transpose(b: Builder, node: Node, x: list[str]) -> Result:
    """Permute the axes, by default reverse them."""
    axes = integers(node.attrs, "axes") or range(b.rank(node.inputs[0]))[::-1]
    return b.add("Transpose", x, perm=list(axes))


def swap_axes(b: Builder, node: Node, x: list[str]) -> Result:
    """Swap two axes."""
    order = list(range(b.rank(node.inputs[0])))
    one, other = (integer_of(node, key) for key in ("dim1", "dim2"))
    order[one], order[other] = order[other], order[one]
    return b.add("Transpose", x, perm=order)


def expand_dims(b: Builder, node: Node, x: list[str]) -> Result:
    """Add an axis of size 1."""
    return b.add("Unsqueeze", [x[0], b.ints(integer(node.attrs, "axis", 0))])


def squeeze(b: Builder, node: Node, x: list[str]) -> Result:
    """Remove axes of size 1, all or some."""
    axes = [axis for axis in integers(node.attrs, "axis") if axis is not None]
    return b.add("Squeeze", [x[0], b.ints(*axes)] if axes else x)


def slice_ranges(b: Builder, node: Node, x: list[str]) -> Result:
    """Slice the first axes; ``None`` is an open end."""
    begin, end, step = (integers(node.attrs, key) for key in ("begin", "end", "step"))
    steps = [1 if size is None else size for size in step] or [1] * len(begin)
    if any(size < 1 for size in steps):
        b.refuse(f"goes backwards (step={node.attrs['step']}), which does not convert")
    starts = [start or 0 for start in begin]
    ends = [TO_THE_END if stop is None else stop for stop in end]
    axes = range(len(starts))
    return b.add("Slice", [x[0], b.ints(*starts), b.ints(*ends), b.ints(*axes), b.ints(*steps)])


def slice_axis(b: Builder, node: Node, x: list[str]) -> Result:
    """Slice one axis."""
    start, end = (integer(node.attrs, key, default) for key, default in (("begin", 0), ("end", TO_THE_END)))
    return b.add("Slice", [x[0], b.ints(start), b.ints(end), b.ints(integer(node.attrs, "axis", 0))])


def slice_like(b: Builder, node: Node, x: list[str]) -> Result:
    """Slice some axes to the sizes of another tensor."""
    rank = b.rank(node.inputs[0])
    axes = [axis for axis in integers(node.attrs, "axes") if axis is not None] or list(range(rank))
    ends = b.add("Gather", [b.shape(x[1]), b.ints(*axes)], "ends", axis=0)
    return b.add("Slice", [x[0], b.ints(*[0] * len(axes)), ends, b.ints(*axes)])


def concat(b: Builder, node: Node, x: list[str]) -> Result:
    """Concatenate along an axis."""
    return b.add("Concat", x, axis=integer_of(node, "dim"))


def stack(b: Builder, node: Node, x: list[str]) -> Result:
    """Concatenate along a new axis."""
    axis = integer_of(node, "axis")
    layers = [b.add("Unsqueeze", [name, b.ints(axis)], f"layer{i}") for i, name in enumerate(x)]
    return b.add("Concat", layers, axis=axis)


def split(b: Builder, node: Node, x: list[str]) -> Result:
    """Split an axis into equal parts; ``squeeze_axis`` removes the axis."""
    count, axis = integer(node.attrs, "num_outputs", 1), integer_of(node, "axis")
    if not flag_of(node, "squeeze_axis"):
        return b.add_many("Split", x, count, axis=axis)
    pieces = b.add_many("Split", x, count, "piece", axis=axis)
    return [b.add("Squeeze", [piece, b.ints(axis)], f"output{i}") for i, piece in enumerate(pieces)]


def tile(b: Builder, node: Node, x: list[str]) -> Result:
    """Repeat along axes, aligned at the last axis."""
    rank, times = b.rank(node.inputs[0]), [times or 1 for times in integers(node.attrs, "reps")]
    if len(times) > rank:
        b.refuse(f"adds axes (reps={node.attrs['reps']} of {rank} axes), which does not convert")
    return b.add("Tile", [x[0], b.ints(*[1] * (rank - len(times)), *times)])


def broadcast_axis(b: Builder, node: Node, x: list[str]) -> Result:
    """Broadcast axes of size 1 to other sizes."""
    shape = [1] * b.rank(node.inputs[0])
    for axis, size in zip(integers(node.attrs, "axis"), integers(node.attrs, "size")):
        shape[axis or 0] = size or 1
    return b.add("Expand", [x[0], b.ints(*shape)])


def broadcast_to(b: Builder, node: Node, x: list[str]) -> Result:
    """Broadcast to a shape, in which 0 keeps an axis."""
    return b.add("Expand", [x[0], b.ints(*(size or 1 for size in integers(node.attrs, "shape")))])


def broadcast_like(b: Builder, node: Node, x: list[str]) -> Result:
    """Broadcast to the shape of another tensor."""
    if "None" not in (node.attrs.get("lhs_axes", "None"), node.attrs.get("rhs_axes", "None")):
        b.refuse("broadcasts some axes only (lhs_axes), which does not convert")
    return b.add("Expand", [x[0], b.shape(x[1])])


def filled(value: float) -> Converter:
    """Fill the shape of the input with a number."""
    return lambda b, node, x: b.add("Expand", [b.number(value), b.shape(x[0])])


def arange(b: Builder, node: Node, x: list[str]) -> Result:
    """Equally spaced numbers, as a constant; with a start alone, they run from 0 to the start."""
    if flag_of(node, "infer_range"):
        b.refuse("takes its length from its reader (infer_range), which does not convert")
    start, step = decimal(node.attrs, "start", 0), decimal_of(node, "step")
    stop = decimal(node.attrs, "stop", math.nan)
    values = np.arange(0, start, step) if math.isnan(stop) else np.arange(start, stop, step)
    return b.array(values.repeat(integer_of(node, "repeat")).astype(np.float32))
