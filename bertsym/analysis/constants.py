"""Values in a graph that do not depend on token ids: constant indices, masks and token counts."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.analysis.encoder_detection import INTERLEAVED
from bertsym.analysis.input_clips import clip_of_lengths, clipped_lengths
from bertsym.symbol.attributes import decimal, integers
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, decimal_of, flag_of, integer_of, operators_with, with_aliases

MAX_STEPS = 64  #: operators between a constant and its use

Shape = tuple[int, ...]
_UNCHANGED = operators_with(Effect.IDENTITY, Effect.CAST)  # elements and shape, when all elements are equal
_SAME = _UNCHANGED | operators_with(
    Effect.RESHAPE, Effect.TRANSPOSE, Effect.BROADCAST, Effect.REPEAT, Effect.SLICE
)  # elements, when they are equal
_FILLED = {"_zeros": 0.0, "_ones": 1.0}
_LIKE = {"zeros_like": 0.0, "ones_like": 1.0}


@dataclass(frozen=True)
class Constant:
    """An array whose elements are all equal; the shape is None if it is unknown."""

    value: float
    shape: Shape | None = None


def find_constant(output: Output, params: Mapping[str, Any] | None = None) -> Constant | None:
    """Find the finite constant that an output holds. `params` are arrays by name: parameters may be constants."""
    found = _find_constant(output, params, MAX_STEPS)
    return found if found is not None and math.isfinite(found.value) else None


def _find_constant(output: Output, params: Mapping[str, Any] | None, steps: int) -> Constant | None:
    node = output.node
    if not steps:
        return None
    if node.is_variable:
        return _parameter(node.name, params) if params is not None and node.name in params else None
    if node.op in _FILLED:
        return Constant(_FILLED[node.op], _known(integers(node.attrs, "shape")))
    if node.op == "_full":
        return Constant(decimal(node.attrs, "value", 0.0), _known(integers(node.attrs, "shape")))
    if node.op == "_arange":
        return _arange(node)
    if not node.inputs:
        return None
    if node.op in _LIKE:
        return Constant(_LIKE[node.op])
    if node.op not in _SAME and node.op not in ("_plus_scalar", "_minus_scalar", "_mul_scalar"):
        return None
    inner = _find_constant(node.inputs[0], params, steps - 1)
    if node.op == "_mul_scalar" and decimal_of(node, "scalar") == 0:
        return Constant(0.0, inner.shape if inner else None)
    if inner is None:
        return None
    if node.op in _SAME:
        if node.op in with_aliases("Reshape"):
            return Constant(inner.value, _known(integers(node.attrs, "shape")))
        return Constant(inner.value, inner.shape if node.op in _UNCHANGED else None)
    scalar = decimal_of(node, "scalar")
    arithmetic = {
        "_plus_scalar": inner.value + scalar,
        "_minus_scalar": inner.value - scalar,
        "_mul_scalar": inner.value * scalar,
    }
    return Constant(arithmetic[node.op], inner.shape) if node.op in arithmetic else None


def _arange(node: Node) -> Constant | None:
    """arange(k, k + 1) holds only k; MXNet stores arange(n) as start n without a stop."""
    start, stop = decimal(node.attrs, "start", 0.0), node.attrs.get("stop", "None")
    if flag_of(node, "infer_range") or decimal_of(node, "step") != 1:
        return None
    first, last = (0.0, start) if stop in ("None", "") else (start, decimal(node.attrs, "stop", 0.0))
    return Constant(first, (integer_of(node, "repeat"),)) if last - first == 1 else None


def shape_of(output: Output, params: Mapping[str, Any] | None) -> Shape | None:
    """Return the shape of a parameter or a constant, if it is known."""
    node = output.node
    if node.is_variable:
        if params is not None and node.name in params:
            return tuple(params[node.name].shape)
        return _known(integers(node.attrs, "__shape__"))
    found = find_constant(output, params)
    return found.shape if found is not None else None


def is_valid_length(output: Output, valid_length: str | None) -> bool:
    """Whether a tensor holds the valid lengths, in any shape; `valid_length` is the name of that input.

    If the encoder does not read lengths, any input may hold them.
    """
    found = _skip(output, {"_maximum_scalar"})
    node = (clipped_lengths(found) or found).node
    return node.is_variable and valid_length in (None, node.name)


def reads_fed_lengths(node: Node, tokens: Container[str], valid_length: str) -> bool:
    """Whether a SequenceMask or a softmax reads the lengths of the input, clipped or not, and has rows of T elements.

    `tokens` are the inputs of shape (N, T): token ids and token types.

    MXNet then makes no out-of-bounds access for lengths in [1, T].
    """
    output, spread = node.inputs[1], False
    while True:
        reader = output.node
        if reader.op in _SPREADING or (reader.op == "Cast" and reader.attrs.get("dtype") in _WIDE):
            output = reader.inputs[0]
        elif reader.op == "broadcast_add" and _is_zeros_like(reader.inputs[1], tokens):
            output, spread = reader.inputs[0], True
        else:
            break
    clip = clip_of_lengths(output)
    if clip is not None:
        lengths, counted = clip
        output = lengths if counted.node.name in tokens else output
    if output.node.name != valid_length or not output.node.is_variable:
        return False
    if node.op == "SequenceMask":
        return True  # a length above that of the row masks nothing
    # The data is (N * heads, T, T') with T = T'; the lengths have the shape of its first two axes.
    return spread and node.inputs[0].node.op == INTERLEAVED and integer_of(node, "axis") == -1


_SPREADING = with_aliases("Reshape", "expand_dims", "broadcast_axis")
_WIDE = frozenset({"float32", "float64", "int32", "int64"})  # dtypes that represent any length


def _is_zeros_like(output: Output, names: Container[str]) -> bool:
    while output.node.op in ("Cast", "expand_dims"):
        output = output.node.inputs[0]
    node = output.node
    return node.op == "zeros_like" and node.inputs[0].node.is_variable and node.inputs[0].node.name in names


def is_mask(output: Output, valid_length: str | None, params: Mapping[str, Any] | None = None) -> bool:
    """Whether a tensor is 1 at valid tokens and 0 at padding."""
    node = _skip(output, _COPYING).node
    if node.op == "SequenceMask":
        ones = find_constant(node.inputs[0], params)
        zeroed = flag_of(node, "use_sequence_length") and decimal_of(node, "value") == 0
        masks = zeroed and ones is not None and ones.value == 1
        return masks and is_valid_length(node.inputs[1], valid_length)
    if node.op == "broadcast_lesser":
        places = _skip(node.inputs[0], _COPYING).node
        return places.op in ("_arange", "_contrib_arange_like") and is_valid_length(node.inputs[1], valid_length)
    return False


def is_count(output: Output, valid_length: str | None, params: Mapping[str, Any] | None = None) -> bool:
    """Whether a tensor is the number of valid tokens: that input, or the sum of a mask."""
    node = _skip(output, {"_maximum_scalar"}).node
    return is_valid_length(output, valid_length) or (
        node.op in with_aliases("sum") and is_mask(node.inputs[0], valid_length, params)
    )


_RESHAPING = operators_with(Effect.IDENTITY, Effect.CAST, Effect.RESHAPE)
_COPYING = operators_with(Effect.BROADCAST)


def _skip(output: Output, also: Container[str]) -> Output:
    while output.node.op in _RESHAPING or output.node.op in also:
        output = output.node.inputs[0]
    return output


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
