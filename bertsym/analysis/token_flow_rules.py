"""Rules of `token_flow`: one per operator, from the trace of its input to the trace of its output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from bertsym.analysis.constants import find_constant, is_count, is_mask, is_valid_length
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.flow_context import FlowContext
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, UNKNOWN, Axes, Axis, factors, reshape
from bertsym.analysis.trace import (
    COMBINE,
    MERGE,
    SCALE,
    SLICE,
    TokenSelection,
    Trace,
    dense_step,
    function_step,
)
from bertsym.symbol.attributes import flag, integer, integers
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, decimal_of, flag_of, operators_with, with_aliases

Rule = Callable[[Node, Trace, FlowContext, int], "Trace | None"]
_MULTIPLICATIONS = operators_with(Effect.MULTIPLY)
_DIVISIONS = operators_with(Effect.DIVIDE)
_COMBINING = operators_with(
    *(Effect.ADD, Effect.SUBTRACT, Effect.MULTIPLY, Effect.DIVIDE, Effect.MAXIMUM, Effect.MINIMUM)
)


def trace_combination(node: Node, known: Sequence[Trace | None], context: FlowContext) -> Trace | None:
    """Trace an element-wise combination: of one traced input with a mask or a constant, or of equivalent traces."""
    traces = [found for found in known if found is not None]
    if node.op not in _COMBINING or not traces:
        return None
    data = traces[0]
    if len(traces) == len(known):
        alike = len({(trace.axes, trace.selection, trace.position, trace.length) for trace in traces}) == 1
        if not alike:
            return None
        longest = max(traces, key=lambda trace: len(trace.steps))
        step = COMBINE if all(trace.steps == longest.steps for trace in traces) else MERGE
        masked = all(trace.masked for trace in traces) and node.op not in _DIVISIONS
        counted = all(trace.counted for trace in traces)
        return dataclasses.replace(longest.then(step, keeps_zero=True), masked=masked, counted=counted)
    if len(known) != 2:
        return None
    other = node.inputs[0 if known[0] is None else 1]
    multiplies = node.op in _MULTIPLICATIONS
    if (
        multiplies
        and data.selection is TokenSelection.ALL
        and is_mask(other, context.encoder.valid_length, context.params)
    ):
        return dataclasses.replace(data, masked=True)
    if node.op in _DIVISIONS and known[0] is data and data.selection is TokenSelection.SUM:
        counted = data.masked and is_count(other, context.encoder.valid_length, context.params)
        if counted:
            return dataclasses.replace(data, selection=TokenSelection.MEAN, counted=True)
        if is_valid_length(other, context.encoder.valid_length):
            return data.then(SCALE)
    if not _keeps_axes(node, data, other, context):
        return None
    return data.then(SCALE, keeps_zero=multiplies or (node.op in _DIVISIONS and known[0] is data))


def _keeps_axes(node: Node, data: Trace, other: Output, context: FlowContext) -> bool:
    """Whether `other` is a parameter that cannot weight tokens differently or broadcast them."""
    if context.reads_input(other):
        return False
    shape = context.shape(other)
    if shape is None:
        return node.op.startswith(("elemwise_", "_", "add_n")) and data.selection is not TokenSelection.ALL
    return len(shape) == len(data.axes) and all(size in (1, axis) for size, axis in zip(shape, data.axes))


# Identities, and functions of each element or of the units of each token


def _same(_: Node, data: Trace, _context: FlowContext, _index: int) -> Trace:
    return data


def _function(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace:
    name = node.attrs.get("act_type", "leaky" if node.op == "LeakyReLU" else node.op)
    return data.then(function_step(name), keeps_zero=name in ("relu", "tanh", "gelu", "leaky", "softsign", "erf"))


def _scalar(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace | None:
    multiplies = node.op in with_aliases("_mul_scalar", "_div_scalar")
    if multiplies and decimal_of(node, "scalar") == 0:
        return None
    return data.then(SCALE, keeps_zero=multiplies)


def _along_axis(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace | None:
    """A function of all elements along an axis, which must not be the axis of the tokens."""
    axis = _axis_number(node, data, -1)
    return (
        None
        if axis is None or (_is_free(data.axes[axis]) and data.selection is TokenSelection.ALL)
        else data.then(function_step(node.op))
    )


def _of_rows(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace | None:
    """A function of all elements of a text."""
    plain = node.attrs.get("mode", "instance") == "instance" and not flag(node.attrs, "multi_output", False)
    return (
        data.then(function_step(node.op))
        if plain and data.selection is not TokenSelection.ALL and data.axes[0] == BATCH
        else None
    )


def _dense(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    read = trace_dense_input(node, data, context.encoder, context.shape(node.inputs[1]))
    if read is None:
        return None
    width = integer(node.attrs, "num_hidden", 0)
    return dataclasses.replace(read, axes=(*read.axes[:-1], width)).then(dense_step(width))


def trace_dense_input(
    dense: Node, data: Trace, encoder: DetectedEncoder, weight: tuple[int, ...] | None
) -> Trace | None:
    """Trace the input of a FullyConnected, flattened if it flattens, with the length that its weight fits."""
    found: Trace | None = data
    if flag_of(dense, "flatten") and len(data.axes) > 2:
        found = _reshape_to(data, (0, -1), encoder) if BATCH in factors(data.axes[0]) else None
    if found is None or BATCH in factors(found.axes[-1]):
        return None
    if LENGTH not in factors(found.axes[-1]):
        return found
    if found.selection is not TokenSelection.FLATTENED or found.width is None:
        return None
    if weight is None or len(weight) != 2 or weight[1] % found.width:
        return found
    return dataclasses.replace(found, length=weight[1] // found.width)


# Axes


def _axis_number(node: Node, data: Trace, default: int, key: str = "axis") -> int | None:
    """Number of an axis, from 0; None if the tensor does not have it."""
    axis = integer(node.attrs, key, default)
    if node.attrs.get(key) == "None" or not -len(data.axes) <= axis < len(data.axes):
        return None
    return axis % len(data.axes)


def _is_free(axis: Axis) -> bool:
    return any(not part.isdigit() for part in factors(axis))


def _transpose(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace | None:
    order = integers(node.attrs, "axes") or tuple(reversed(range(len(data.axes))))
    if sorted(axis for axis in order if axis is not None) != list(range(len(data.axes))):
        return None
    return dataclasses.replace(data, axes=tuple(data.axes[axis] for axis in order if axis is not None))


def _swap(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace | None:
    axes = list(data.axes)
    one, other = _axis_number(node, data, 0, "dim1"), _axis_number(node, data, 0, "dim2")
    if one is None or other is None:
        return None
    axes[one], axes[other] = axes[other], axes[one]
    return dataclasses.replace(data, axes=tuple(axes))


def _expand(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace:
    axis = integer(node.attrs, "axis", 0)
    place = axis if axis >= 0 else len(data.axes) + 1 + axis
    return dataclasses.replace(data, axes=(*data.axes[:place], 1, *data.axes[place:]))


def _squeeze(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace | None:
    wanted = {axis % len(data.axes) for axis in integers(node.attrs, "axis") if axis is not None}
    # MXNet checks axes of unknown size when it runs.
    if any(data.axes[axis] not in (1, UNKNOWN) for axis in wanted):
        return None
    axes = tuple(size for i, size in enumerate(data.axes) if (i not in wanted if wanted else size != 1))
    return dataclasses.replace(data, axes=axes)


def _reshape(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    if flag_of(node, "reverse"):
        return None
    return _reshape_to(data, integers(node.attrs, "shape"), context.encoder)


def _flatten(_: Node, data: Trace, context: FlowContext, _index: int) -> Trace | None:
    return _reshape_to(data, (0, -1), context.encoder)


def _reshape_to(data: Trace, shape: tuple[int | None, ...], encoder: DetectedEncoder) -> Trace | None:
    found = reshape(data.axes, shape, encoder.length)
    if found is None:
        return None
    axes, length = found
    if length is not None and data.length not in (None, length):
        return None
    data = dataclasses.replace(data, axes=axes, length=length or data.length)
    for axis in axes if data.selection is TokenSelection.ALL else ():
        if LENGTH in factors(axis) and axis != LENGTH and BATCH not in factors(axis):
            sizes = [part for part in factors(axis) if part != LENGTH]
            width = int(sizes[0]) if len(sizes) == 1 and sizes[0].isdigit() else None
            return dataclasses.replace(data, selection=TokenSelection.FLATTENED, width=width)
    return data


# Tokens


def _select(data: Trace, axis: int, begin: int | None, end: int | None, context: FlowContext) -> Trace | None:
    """Trace a range of an axis; a range of the tokens selects one or some of them."""
    begin = begin or 0
    axes, size = list(data.axes), data.axes[axis]
    length = context.encoder.length or data.length if size == LENGTH else None
    if begin == 0 and (end is None or end == length):
        return data
    if size == LENGTH:
        if data.selection is not TokenSelection.ALL:
            return None
        single = (end == begin + 1 and end != 0) or (begin == -1 and end is None)
        axes[axis] = 1 if single else (end - begin if end is not None and 0 <= begin < end else "T'")
        if not single:
            return dataclasses.replace(data, axes=tuple(axes), selection=TokenSelection.SOME)
        position = begin + length if begin < 0 and length else begin
        return dataclasses.replace(data, axes=tuple(axes), selection=TokenSelection.POSITION, position=position)
    if not isinstance(size, int):
        return None
    axes[axis] = len(range(size)[begin:end])
    chosen = dataclasses.replace(data, axes=tuple(axes))
    return chosen if size == axes[axis] else chosen.then(SLICE, keeps_zero=True)


def _slice(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    if any(step not in (None, 1) for step in integers(node.attrs, "step")):
        return None
    result: Trace | None = data
    begins, ends = integers(node.attrs, "begin"), integers(node.attrs, "end")
    for axis, (begin, end) in enumerate(zip(begins, ends)):
        if result is not None and axis < len(data.axes):
            result = _select(result, axis, begin, end, context)
    return result


def _slice_axis(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    axis = _axis_number(node, data, 0)
    if axis is None:
        return None
    end = next(iter(integers(node.attrs, "end")), None)
    return _select(data, axis, integer(node.attrs, "begin", 0), end, context)


def _select_constant(node: Node, data: Trace, axis: int | None, context: FlowContext) -> Trace | None:
    """Trace the token at a constant index."""
    index = find_constant(node.inputs[1], context.params)
    if index is None or axis is None:
        return None
    wraps = node.attrs.get("mode", "clip") == "wrap"
    place = int(index.value) if wraps else max(0, int(index.value))
    found = _select(data, axis, place, place + 1 if place != -1 else None, context)
    return (
        found
        if found is not None and found.selection is TokenSelection.POSITION and data.selection is TokenSelection.ALL
        else None
    )


def _take(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    axis = _axis_number(node, data, 0)
    chosen, index = _select_constant(node, data, axis, context), find_constant(node.inputs[1], context.params)
    if chosen is None or axis is None or index is None:
        return None
    # The axes of the indices replace the axis.
    between: Axes = index.shape if index.shape is not None else (UNKNOWN,)
    return dataclasses.replace(chosen, axes=(*data.axes[:axis], *between, *data.axes[axis + 1 :]))


def _pick(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    axis = _axis_number(node, data, -1)
    chosen = _select_constant(node, data, axis, context)
    if chosen is None or axis is None or flag_of(node, "keepdims"):
        return chosen
    return dataclasses.replace(chosen, axes=(*data.axes[:axis], *data.axes[axis + 1 :]))


def _split(node: Node, data: Trace, context: FlowContext, index: int) -> Trace | None:
    axis, count = _axis_number(node, data, 1), integer(node.attrs, "num_outputs", 1)
    if axis is None or count < 1:
        return None
    size, squeezed = data.axes[axis], flag_of(node, "squeeze_axis")
    length = context.encoder.length or data.length
    if size == LENGTH and (squeezed if length is None else length == count):
        # Each output is one token, so the length is the number of outputs.
        found = _select(dataclasses.replace(data, length=count), axis, index, index + 1, context)
    elif isinstance(size, int) and size % count == 0:
        found = _select(data, axis, index * size // count, (index + 1) * size // count, context)
    else:
        return None
    if found is None or not squeezed:
        return found
    return dataclasses.replace(found, axes=(*found.axes[:axis], *found.axes[axis + 1 :]))


def _mask(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    if not flag_of(node, "use_sequence_length") or len(node.inputs) < 2:
        return data
    axis = _axis_number(node, data, 0)
    if axis is None or data.axes[axis] != LENGTH or not is_valid_length(node.inputs[1], context.encoder.valid_length):
        return None
    return dataclasses.replace(data, masked=decimal_of(node, "value") == 0)


def _last(node: Node, data: Trace, context: FlowContext, _: int) -> Trace | None:
    axis = _axis_number(node, data, 0)
    if axis is None or data.selection is not TokenSelection.ALL or data.axes[axis] != LENGTH:
        return None
    axes = (*data.axes[:axis], *data.axes[axis + 1 :])
    if not flag_of(node, "use_sequence_length") or len(node.inputs) < 2:
        return dataclasses.replace(data, axes=axes, selection=TokenSelection.POSITION, position=-1)
    if not is_valid_length(node.inputs[1], context.encoder.valid_length):
        return None
    return dataclasses.replace(data, axes=axes, selection=TokenSelection.LAST)


def _reduce(node: Node, data: Trace, _: FlowContext, _index: int) -> Trace | None:
    wanted = integers(node.attrs, "axis")
    if len(wanted) != 1 or wanted[0] is None or flag_of(node, "exclude"):
        return None
    axis = wanted[0] % len(data.axes)
    if data.axes[axis] != LENGTH or data.selection is not TokenSelection.ALL:
        return None
    kept: Axes = (1,) if flag_of(node, "keepdims") else ()
    axes = (*data.axes[:axis], *kept, *data.axes[axis + 1 :])
    return dataclasses.replace(data, axes=axes, selection=_REDUCTIONS[node.op], steps_per_token=len(data.steps))


_REDUCTIONS = {
    "max": TokenSelection.MAX,
    "max_axis": TokenSelection.MAX,
    "mean": TokenSelection.MEAN,
    "sum": TokenSelection.SUM,
    "sum_axis": TokenSelection.SUM,
}
_ALIKE = operators_with(Effect.IDENTITY, Effect.DROPOUT, Effect.CAST)
_FUNCTIONS = operators_with(Effect.FUNCTION)
_LOSSES = ("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput")
RULES: dict[str, Rule] = {
    **dict.fromkeys((*_ALIKE, "make_loss", "MakeLoss"), _same),
    **dict.fromkeys((*_FUNCTIONS, *_LOSSES), _function),
    **dict.fromkeys(operators_with(Effect.SCALAR), _scalar),
    **dict.fromkeys(("LayerNorm", "log_softmax", "softmax"), _along_axis),
    **dict.fromkeys(("L2Normalization", "Softmax", "SoftmaxActivation", "SoftmaxOutput"), _of_rows),
    **dict.fromkeys(with_aliases("Flatten"), _flatten),
    **dict.fromkeys(with_aliases("Reshape"), _reshape),
    **dict.fromkeys(with_aliases("SliceChannel"), _split),
    **dict.fromkeys(with_aliases("SwapAxis"), _swap),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "FullyConnected": _dense,
    "SequenceLast": _last,
    "SequenceMask": _mask,
    "expand_dims": _expand,
    "pick": _pick,
    "slice": _slice,
    "slice_axis": _slice_axis,
    "squeeze": _squeeze,
    "take": _take,
    "transpose": _transpose,
}
