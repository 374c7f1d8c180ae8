"""The rules by which `tracing` follows the tokens through the operators behind the encoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertsym.analysis.constants import constant, is_count, is_mask, is_valid_length, shape_of
from bertsym.analysis.encoder_detection import ADDITIONS, DetectedEncoder
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, UNKNOWN, Axes, Axis, parts, reshaped
from bertsym.symbol.attributes import decimal, flag, integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.variable_roles import input_variables, label_variables

SCALED, COMBINED = "scaled", "combined"  #: steps that only change numbers
COMBINATION = "a combination"  #: of what was computed in more than one way


@dataclass(frozen=True)
class Trace:
    """A tensor that was computed of the encoder's output."""

    axes: Axes
    #: ``all``; ``position`` (of one token); ``last`` (valid token); ``mean``, ``sum``, ``max`` over the tokens;
    #: ``some`` (a part of them); ``flattened``
    tokens: str
    position: int | None = None
    steps: tuple[str, ...] = ()  #: layers and functions since, such as ``Dense(768)``, ``tanh``
    of_each: int = 0  #: of a mean, sum or maximum: how many of the steps were done with each token before
    masked: bool = False  #: zero at padding; of a sum or a mean, the padding was zero
    counted: bool = False  #: of a mean, that of the valid tokens only
    length: int | None = None  #: the only length that the way here allows
    width: int | None = None  #: of flattened tokens, the values that each of them had

    def then(self, step: str, *, keeps_zero: bool = False) -> Trace:
        """With one more step; padding is still zero where it `keeps_zero`, or was reduced before."""
        masked = self.masked and (keeps_zero or self.tokens != "all")
        return dataclasses.replace(self, steps=(*self.steps, step), masked=masked)


@dataclass(frozen=True)
class Scene:
    """What the rules may ask besides a node and the trace of its input."""

    graph: SymbolGraph
    encoder: DetectedEncoder
    params: Mapping[str, Any] | None

    @functools.cached_property
    def inputs(self) -> set[str]:
        """Variables that are no parameters."""
        return {*input_variables(self.graph, self.params or ()), *label_variables(self.graph)}

    def reads_input(self, output: Output) -> bool:
        """Whether a tensor depends on what is asked, and not on parameters only."""
        return any(node.is_variable and node.name in self.inputs for node in self.graph.ancestors(output.node))

    def shape(self, output: Output) -> tuple[int, ...] | None:
        """The shape of a parameter, where it is known."""
        return shape_of(output, self.params)


Rule = Callable[[Node, Trace, Scene, int], "Trace | None"]
_MULTIPLICATIONS = frozenset({"elemwise_mul", "broadcast_mul", "_mul", "_Mul"})
_DIVISIONS = frozenset({"elemwise_div", "broadcast_div", "_div", "_Div"})
_COMBINING = (
    ADDITIONS
    | _MULTIPLICATIONS
    | _DIVISIONS
    | {"elemwise_sub", "broadcast_sub", "broadcast_minus", "_sub", "_minus", "_Minus"}
    | {"_maximum", "_Maximum", "broadcast_maximum", "_minimum", "_Minimum", "broadcast_minimum"}
)


def combined(node: Node, known: Sequence[Trace | None], scene: Scene) -> Trace | None:
    """Element by element: of one trace and something else, such as a mask, or of several that are alike."""
    traces = [found for found in known if found is not None]
    if node.op not in _COMBINING or not traces:
        return None
    data = traces[0]
    if len(traces) == len(known):
        alike = len({(trace.axes, trace.tokens, trace.position, trace.length) for trace in traces}) == 1
        if not alike:
            return None
        longest = max(traces, key=lambda trace: len(trace.steps))
        step = COMBINED if all(trace.steps == longest.steps for trace in traces) else COMBINATION
        masked = all(trace.masked for trace in traces) and node.op not in _DIVISIONS
        counted = all(trace.counted for trace in traces)
        return dataclasses.replace(longest.then(step, keeps_zero=True), masked=masked, counted=counted)
    if len(known) != 2:
        return None
    other = node.inputs[0 if known[0] is None else 1]
    multiplies = node.op in _MULTIPLICATIONS
    if multiplies and data.tokens == "all" and is_mask(other, scene.encoder.valid_length, scene.params):
        return dataclasses.replace(data, masked=True)
    if node.op in _DIVISIONS and known[0] is data and data.tokens == "sum":
        counted = data.masked and is_count(other, scene.encoder.valid_length, scene.params)
        if counted:
            return dataclasses.replace(data, tokens="mean", counted=True)
        if is_valid_length(other, scene.encoder.valid_length):
            return data.then(SCALED)
    if not _keeps_axes(node, data, other, scene):
        return None
    return data.then(SCALED, keeps_zero=multiplies or (node.op in _DIVISIONS and known[0] is data))


def _keeps_axes(node: Node, data: Trace, other: Output, scene: Scene) -> bool:
    """Whether `other` is a parameter that is too small to choose among the tokens, or to spread them."""
    if scene.reads_input(other):
        return False
    shape = scene.shape(other)
    if shape is None:
        return node.op.startswith(("elemwise_", "_", "add_n")) and data.tokens != "all"
    return len(shape) == len(data.axes) and all(size in (1, axis) for size, axis in zip(shape, data.axes))


# Values that stay, functions of each value or of the units of each token


def _same(_: Node, data: Trace, _scene: Scene, _index: int) -> Trace:
    return data


def _function(node: Node, data: Trace, _: Scene, _index: int) -> Trace:
    name = node.attrs.get("act_type", "leaky" if node.op == "LeakyReLU" else node.op)
    return data.then(name, keeps_zero=name in ("relu", "tanh", "gelu", "leaky", "softsign", "erf"))


def _scalar(node: Node, data: Trace, _: Scene, _index: int) -> Trace | None:
    multiplies = node.op in ("_mul_scalar", "_div_scalar")
    if multiplies and decimal(node.attrs, "scalar", 1.0) == 0:
        return None
    return data.then(SCALED, keeps_zero=multiplies)


def _along_axis(node: Node, data: Trace, _: Scene, _index: int) -> Trace | None:
    """A function of all values along an axis, which must not be that of the tokens."""
    axis = _axis(node, data, -1)
    return None if axis is None or (_is_free(data.axes[axis]) and data.tokens == "all") else data.then(node.op)


def _of_rows(node: Node, data: Trace, _: Scene, _index: int) -> Trace | None:
    """A function of all values of a text."""
    plain = node.attrs.get("mode", "instance") == "instance" and not flag(node.attrs, "multi_output", False)
    return data.then(node.op) if plain and data.tokens != "all" and data.axes[0] == BATCH else None


def _dense(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    read = read_by(node, data, scene.encoder, scene.shape(node.inputs[1]))
    if read is None:
        return None
    width = integer(node.attrs, "num_hidden", 0)
    return dataclasses.replace(read, axes=(*read.axes[:-1], width)).then(f"Dense({width})")


def read_by(dense: Node, data: Trace, encoder: DetectedEncoder, weight: tuple[int, ...] | None) -> Trace | None:
    """What a FullyConnected reads: its input, flattened where it does that; with the length that its weight allows."""
    found: Trace | None = data
    if flag(dense.attrs, "flatten", True) and len(data.axes) > 2:
        found = _to_shape(data, (0, -1), encoder) if BATCH in parts(data.axes[0]) else None
    if found is None or BATCH in parts(found.axes[-1]):
        return None
    if LENGTH not in parts(found.axes[-1]):
        return found
    if found.tokens != "flattened" or found.width is None:
        return None
    if weight is None or len(weight) != 2 or weight[1] % found.width:
        return found
    return dataclasses.replace(found, length=weight[1] // found.width)


# Axes


def _axis(node: Node, data: Trace, default: int, key: str = "axis") -> int | None:
    """The number of an axis, from 0; None where the tensor has no such axis."""
    axis = integer(node.attrs, key, default)
    if node.attrs.get(key) == "None" or not -len(data.axes) <= axis < len(data.axes):
        return None
    return axis % len(data.axes)


def _is_free(axis: Axis) -> bool:
    return any(not part.isdigit() for part in parts(axis))


def _transpose(node: Node, data: Trace, _: Scene, _index: int) -> Trace | None:
    order = integers(node.attrs, "axes") or tuple(reversed(range(len(data.axes))))
    if sorted(axis for axis in order if axis is not None) != list(range(len(data.axes))):
        return None
    return dataclasses.replace(data, axes=tuple(data.axes[axis] for axis in order if axis is not None))


def _swap(node: Node, data: Trace, _: Scene, _index: int) -> Trace | None:
    axes = list(data.axes)
    one, other = _axis(node, data, 0, "dim1"), _axis(node, data, 0, "dim2")
    if one is None or other is None:
        return None
    axes[one], axes[other] = axes[other], axes[one]
    return dataclasses.replace(data, axes=tuple(axes))


def _expand(node: Node, data: Trace, _: Scene, _index: int) -> Trace:
    axis = integer(node.attrs, "axis", 0)
    place = axis if axis >= 0 else len(data.axes) + 1 + axis
    return dataclasses.replace(data, axes=(*data.axes[:place], 1, *data.axes[place:]))


def _squeeze(node: Node, data: Trace, _: Scene, _index: int) -> Trace | None:
    wanted = {axis % len(data.axes) for axis in integers(node.attrs, "axis") if axis is not None}
    # MXNet itself checks an axis whose size is not known here.
    if any(data.axes[axis] not in (1, UNKNOWN) for axis in wanted):
        return None
    axes = tuple(size for i, size in enumerate(data.axes) if (i not in wanted if wanted else size != 1))
    return dataclasses.replace(data, axes=axes)


def _reshape(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    if flag(node.attrs, "reverse", False):
        return None
    return _to_shape(data, integers(node.attrs, "shape"), scene.encoder)


def _flatten(_: Node, data: Trace, scene: Scene, _index: int) -> Trace | None:
    return _to_shape(data, (0, -1), scene.encoder)


def _to_shape(data: Trace, shape: tuple[int | None, ...], encoder: DetectedEncoder) -> Trace | None:
    found = reshaped(data.axes, shape, encoder.length)
    if found is None:
        return None
    axes, length = found
    if length is not None and data.length not in (None, length):
        return None
    data = dataclasses.replace(data, axes=axes, length=length or data.length)
    for axis in axes if data.tokens == "all" else ():
        if LENGTH in parts(axis) and axis != LENGTH and BATCH not in parts(axis):
            sizes = [part for part in parts(axis) if part != LENGTH]
            width = int(sizes[0]) if len(sizes) == 1 and sizes[0].isdigit() else None
            return dataclasses.replace(data, tokens="flattened", width=width)
    return data


# Tokens


def _select(data: Trace, axis: int, begin: int | None, end: int | None, scene: Scene) -> Trace | None:
    """A range of one axis; of the tokens, one or some of them."""
    begin = begin or 0
    axes, size = list(data.axes), data.axes[axis]
    length = scene.encoder.length or data.length if size == LENGTH else None
    if begin == 0 and (end is None or end == length):
        return data
    if size == LENGTH:
        if data.tokens != "all":
            return None
        single = (end == begin + 1 and end != 0) or (begin == -1 and end is None)
        axes[axis] = 1 if single else (end - begin if end is not None and 0 <= begin < end else "T'")
        if not single:
            return dataclasses.replace(data, axes=tuple(axes), tokens="some")
        position = begin + length if begin < 0 and length else begin
        return dataclasses.replace(data, axes=tuple(axes), tokens="position", position=position)
    if not isinstance(size, int):
        return None
    axes[axis] = len(range(size)[begin:end])
    chosen = dataclasses.replace(data, axes=tuple(axes))
    return chosen if size == axes[axis] else chosen.then("a part of the units", keeps_zero=True)


def _slice(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    if any(step not in (None, 1) for step in integers(node.attrs, "step")):
        return None
    result: Trace | None = data
    begins, ends = integers(node.attrs, "begin"), integers(node.attrs, "end")
    for axis, (begin, end) in enumerate(zip(begins, ends)):
        if result is not None and axis < len(data.axes):
            result = _select(result, axis, begin, end, scene)
    return result


def _slice_axis(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    axis = _axis(node, data, 0)
    if axis is None:
        return None
    end = next(iter(integers(node.attrs, "end")), None)
    return _select(data, axis, integer(node.attrs, "begin", 0), end, scene)


def _chosen(node: Node, data: Trace, axis: int | None, scene: Scene) -> Trace | None:
    """One token at a constant index."""
    index = constant(node.inputs[1], scene.params)
    if index is None or axis is None:
        return None
    wraps = node.attrs.get("mode", "clip") == "wrap"
    place = int(index.value) if wraps else max(0, int(index.value))
    found = _select(data, axis, place, place + 1 if place != -1 else None, scene)
    return found if found is not None and found.tokens == "position" and data.tokens == "all" else None


def _take(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    axis = _axis(node, data, 0)
    chosen, index = _chosen(node, data, axis, scene), constant(node.inputs[1], scene.params)
    if chosen is None or axis is None or index is None:
        return None
    # The indices' axes stand where the axis was.
    between: Axes = index.shape if index.shape is not None else (UNKNOWN,)
    return dataclasses.replace(chosen, axes=(*data.axes[:axis], *between, *data.axes[axis + 1 :]))


def _pick(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    axis = _axis(node, data, -1)
    chosen = _chosen(node, data, axis, scene)
    if chosen is None or axis is None or flag(node.attrs, "keepdims", False):
        return chosen
    return dataclasses.replace(chosen, axes=(*data.axes[:axis], *data.axes[axis + 1 :]))


def _split(node: Node, data: Trace, scene: Scene, index: int) -> Trace | None:
    axis, count = _axis(node, data, 1), integer(node.attrs, "num_outputs", 1)
    if axis is None or count < 1:
        return None
    size, squeezed = data.axes[axis], flag(node.attrs, "squeeze_axis", False)
    length = scene.encoder.length or data.length
    if size == LENGTH and (squeezed if length is None else length == count):
        # Every part is one token, and there are no more.
        found = _select(dataclasses.replace(data, length=count), axis, index, index + 1, scene)
    elif isinstance(size, int) and size % count == 0:
        found = _select(data, axis, index * size // count, (index + 1) * size // count, scene)
    else:
        return None
    if found is None or not squeezed:
        return found
    return dataclasses.replace(found, axes=(*found.axes[:axis], *found.axes[axis + 1 :]))


def _mask(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    if not flag(node.attrs, "use_sequence_length", False) or len(node.inputs) < 2:
        return data
    axis = _axis(node, data, 0)
    if axis is None or data.axes[axis] != LENGTH or not is_valid_length(node.inputs[1], scene.encoder.valid_length):
        return None
    return dataclasses.replace(data, masked=decimal(node.attrs, "value", 0.0) == 0)


def _last(node: Node, data: Trace, scene: Scene, _: int) -> Trace | None:
    axis = _axis(node, data, 0)
    if axis is None or data.tokens != "all" or data.axes[axis] != LENGTH:
        return None
    axes = (*data.axes[:axis], *data.axes[axis + 1 :])
    if not flag(node.attrs, "use_sequence_length", False) or len(node.inputs) < 2:
        return dataclasses.replace(data, axes=axes, tokens="position", position=-1)
    if not is_valid_length(node.inputs[1], scene.encoder.valid_length):
        return None
    return dataclasses.replace(data, axes=axes, tokens="last")


def _reduce(node: Node, data: Trace, _: Scene, _index: int) -> Trace | None:
    wanted = integers(node.attrs, "axis")
    if len(wanted) != 1 or wanted[0] is None or flag(node.attrs, "exclude", False):
        return None
    axis = wanted[0] % len(data.axes)
    if data.axes[axis] != LENGTH or data.tokens != "all":
        return None
    kept: Axes = (1,) if flag(node.attrs, "keepdims", False) else ()
    axes = (*data.axes[:axis], *kept, *data.axes[axis + 1 :])
    return dataclasses.replace(data, axes=axes, tokens=_REDUCTIONS[node.op], of_each=len(data.steps))


_REDUCTIONS = {"max": "max", "max_axis": "max", "mean": "mean", "sum": "sum", "sum_axis": "sum"}
_ALIKE = ("Dropout", "_copy", "identity", "BlockGrad", "stop_gradient", "Cast", "cast", "amp_cast")
_FUNCTIONS = ("Activation", "LeakyReLU", "erf", "gelu", "relu", "sigmoid", "softsign", "tanh")
_LOSSES = ("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput")
_SCALARS = ("_mul_scalar", "_div_scalar", "_plus_scalar", "_minus_scalar")
RULES: dict[str, Rule] = {
    **dict.fromkeys((*_ALIKE, "make_loss", "MakeLoss"), _same),
    **dict.fromkeys((*_FUNCTIONS, *_LOSSES), _function),
    **dict.fromkeys(_SCALARS, _scalar),
    **dict.fromkeys(("LayerNorm", "log_softmax", "softmax"), _along_axis),
    **dict.fromkeys(("L2Normalization", "Softmax", "SoftmaxActivation", "SoftmaxOutput"), _of_rows),
    **dict.fromkeys(("Flatten", "flatten"), _flatten),
    **dict.fromkeys(("Reshape", "reshape"), _reshape),
    **dict.fromkeys(("SliceChannel", "split"), _split),
    **dict.fromkeys(("SwapAxis", "swapaxes"), _swap),
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
