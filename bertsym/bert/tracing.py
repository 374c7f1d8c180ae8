"""What each tensor behind the encoder is: which tokens it comes from, in which axes.

An abstract run of the graph from the encoder's last layer on. A tensor that the rules don't cover is left
unknown, so that nothing is claimed of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertsym.bert.constants import constant
from bertsym.bert.recognise import ADDITIONS, Recognised
from bertsym.symbol.attributes import flag, integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

Axis = int | str
Axes = tuple[Axis, ...]
BATCH, LENGTH = "N", "T"  #: names of the free axes


@dataclass(frozen=True)
class Trace:
    """A tensor that was computed of the encoder's output."""

    axes: Axes
    #: ``all``; ``position`` (of one token); ``last`` (valid token); ``mean``, ``sum``, ``max`` over the tokens;
    #: ``some`` (a part of them); ``flattened``
    tokens: str
    position: int | None = None
    steps: tuple[str, ...] = ()  #: layers and functions since, such as ``Dense(768)``, ``tanh``
    masked: bool = False  #: zero at padding

    def then(self, step: str) -> Trace:
        """With one more step."""
        return dataclasses.replace(self, steps=(*self.steps, step))


Traces = dict[Output, Trace]
_Rule = Callable[[Node, Trace, "_Tracer"], "Trace | None"]


def trace(graph: SymbolGraph, bert: Recognised, params: Mapping[str, Any] | None = None) -> Traces:
    """The traces of the encoder's output and of what is computed of it. `params` are arrays by name."""
    tracer = _Tracer(graph, bert, params)
    tracer.run()
    return tracer.traces


class _Tracer:
    def __init__(self, graph: SymbolGraph, bert: Recognised, params: Mapping[str, Any] | None) -> None:
        self.graph, self.bert, self.params = graph, bert, params
        units: Axis = bert.units if bert.units is not None else "U"
        axes: Axes = (BATCH, LENGTH, units)
        if is_time_major(graph, bert):
            axes = (LENGTH, BATCH, units)
        self.traces: Traces = {bert.encoded: Trace(axes, "all")}

    def run(self) -> None:
        behind = self.graph.descendants(self.bert.encoded.node)
        for node in self.graph.nodes:
            if node not in behind or node is self.bert.encoded.node:
                continue
            known = [self.traces[entry] for entry in node.inputs if entry in self.traces]
            first = self.traces.get(node.inputs[0])
            # What also reads another, unknown part of the encoder's output can't be told.
            unknown = any(entry.node in behind and entry not in self.traces for entry in node.inputs)
            if not known or unknown:
                continue
            result: Trace | None = None
            if node.op in ADDITIONS or node.op.startswith(("broadcast_", "elemwise_", "_mul", "_maximum")):
                result = _combined(node, known, first)
            if result is None and len(known) == 1 and first is not None:
                result = _one(node, first, self)
            if result is not None:
                self.traces.update({Output(node, i): result for i in range(node.num_outputs)})


def is_time_major(graph: SymbolGraph, bert: Recognised) -> bool:
    """Whether the encoder runs as (T, N, U): an odd number of exchanges between the words and its end."""
    major = {Output(bert.words): False}
    for node in graph.nodes:
        known = [major[entry] for entry in node.inputs if entry in major]
        if not known or node is bert.words:
            continue
        exchanged = known[0]
        if node.op == "transpose":
            exchanged ^= integers(node.attrs, "axes")[:2] == (1, 0)
        elif node.op in ("SwapAxis", "swapaxes"):
            exchanged ^= {integer(node.attrs, "dim1", 0), integer(node.attrs, "dim2", 0)} == {0, 1}
        elif node.op not in ADDITIONS and node.op not in ("Dropout", "LayerNorm", "Cast", "_copy"):
            continue
        major[Output(node)] = exchanged
    return major.get(bert.encoded, False)


def _one(node: Node, data: Trace, tracer: _Tracer) -> Trace | None:
    if node.op in _SAME:
        return data
    if node.op in _FUNCTIONS or node.op == "Activation":
        return data.then(node.attrs.get("act_type", node.op) if node.op == "Activation" else node.op)
    if node.op in _SCALARS:
        return data.then("scaled")
    rule = _RULES.get(node.op)
    return rule(node, data, tracer) if rule else None


def _combined(node: Node, known: list[Trace], first: Trace | None) -> Trace | None:
    """Element by element: of one trace and something else, such as a mask, or of several that are alike."""
    if len(known) == len(node.inputs):
        alike = len({(trace.axes, trace.tokens, trace.position) for trace in known}) == 1
        return known[0].then("combined") if alike and len(known) > 1 else None
    if node.op in ("broadcast_div", "elemwise_div") and first is not None and first.tokens == "sum":
        return dataclasses.replace(first, tokens="mean")
    return known[0].then("scaled")


_SAME = frozenset(
    {"Dropout", "_copy", "identity", "BlockGrad", "stop_gradient", "Cast", "cast", "amp_cast", "make_loss", "MakeLoss"}
)
_FUNCTIONS = frozenset(
    {"LayerNorm", "L2Normalization", "LeakyReLU", "SoftmaxActivation", "SoftmaxOutput", "erf", "gelu", "log_softmax"}
    | {
        "relu",
        "sigmoid",
        "softmax",
        "softsign",
        "tanh",
        "LinearRegressionOutput",
        "LogisticRegressionOutput",
        "Softmax",
    }
    | {"MAERegressionOutput"}
)
_SCALARS = frozenset({"_mul_scalar", "_div_scalar", "_plus_scalar", "_minus_scalar"})


def _transpose(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    order = integers(node.attrs, "axes") or tuple(reversed(range(len(data.axes))))
    if sorted(axis for axis in order if axis is not None) != list(range(len(data.axes))):
        return None
    return dataclasses.replace(data, axes=tuple(data.axes[axis] for axis in order if axis is not None))


def _swap(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    axes = list(data.axes)
    one, other = integer(node.attrs, "dim1", 0), integer(node.attrs, "dim2", 0)
    if max(one, other) >= len(axes):
        return None
    axes[one], axes[other] = axes[other], axes[one]
    return dataclasses.replace(data, axes=tuple(axes))


def _expand(node: Node, data: Trace, _: _Tracer) -> Trace:
    axis = integer(node.attrs, "axis", 0)
    place = axis if axis >= 0 else len(data.axes) + 1 + axis
    return dataclasses.replace(data, axes=(*data.axes[:place], 1, *data.axes[place:]))


def _squeeze(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    wanted = {axis % len(data.axes) for axis in integers(node.attrs, "axis") if axis is not None}
    if any(data.axes[axis] != 1 for axis in wanted):
        return None
    axes = tuple(size for i, size in enumerate(data.axes) if (i not in wanted if wanted else size != 1))
    return dataclasses.replace(data, axes=axes)


def _reshape(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    if flag(node.attrs, "reverse", False):
        return None
    return _reshaped(data, integers(node.attrs, "shape"))


def _reshaped(data: Trace, shape: tuple[int | None, ...]) -> Trace | None:
    """As MXNet's Reshape: 0 keeps an axis, -1 takes what is left, -2 the axes that follow, -3 joins two."""
    axes: list[Axis | None] = []
    place = 0
    for code in shape:
        if code == -2:
            axes += data.axes[place:]
        elif code == -3 and place + 1 < len(data.axes):
            axes.append(_joined(data.axes[place : place + 2]))
        elif code == 0 and place < len(data.axes):
            axes.append(data.axes[place])
        elif code == -1 or (code is not None and code > 0):
            axes.append(None if code == -1 else code)
        else:
            return None
        place += 2 if code == -3 else 1
    number, names = _factors(data.axes)
    placed_number, placed_names = _factors([axis for axis in axes if axis is not None])
    for name in placed_names:
        if name not in names:
            return None
        names.remove(name)
    if number % placed_number or axes.count(None) > 1:
        return None
    rest = _joined([*names, number // placed_number])
    if None not in axes and rest != 1:
        return None
    found = tuple(rest if axis is None else axis for axis in axes)
    flattened = data.tokens == "all" and any(
        LENGTH in _factors([axis])[1] and axis != LENGTH and BATCH not in _factors([axis])[1] for axis in found
    )
    return dataclasses.replace(data, axes=found, tokens="flattened" if flattened else data.tokens)


def _factors(axes: Sequence[Axis]) -> tuple[int, list[str]]:
    """The product of the sizes, and the names of the free axes."""
    parts = [part for axis in axes for part in str(axis).split("*")]
    return math.prod(int(part) for part in parts if part.isdigit()), [part for part in parts if not part.isdigit()]


def _joined(axes: Sequence[Axis]) -> Axis:
    number, names = _factors(axes)
    return "*".join([*names, *([str(number)] if number > 1 else [])]) if names else number


def _flatten(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    return _reshaped(data, (0, -1))


def _select(data: Trace, axis: int, begin: int | None, end: int | None) -> Trace | None:
    """A range of one axis; of the tokens, one or some of them."""
    begin = begin or 0
    axes, size = list(data.axes), data.axes[axis]
    if begin == 0 and end is None:
        return data
    if size == LENGTH:
        if data.tokens != "all":
            return None
        single = (end == begin + 1) or (begin == -1 and end is None)
        axes[axis] = 1 if single else (end - begin if end is not None and 0 <= begin < end else "T'")
        tokens = "position" if single else "some"
        return dataclasses.replace(data, axes=tuple(axes), tokens=tokens, position=begin if single else None)
    if size == BATCH:
        return None
    if isinstance(size, int):
        axes[axis] = len(range(size)[begin:end])
        return (
            dataclasses.replace(data, axes=tuple(axes))
            if size == axes[axis]
            else dataclasses.replace(data, axes=tuple(axes)).then("a part of the units")
        )
    return None


def _slice(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    if any(step not in (None, 1) for step in integers(node.attrs, "step")):
        return None
    result: Trace | None = data
    begins, ends = integers(node.attrs, "begin"), integers(node.attrs, "end")
    for axis, (begin, end) in enumerate(zip(begins, ends)):
        if result is not None and axis < len(data.axes):
            result = _select(result, axis, begin, end)
    return result


def _slice_axis(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    axis = integer(node.attrs, "axis", 0) % len(data.axes)
    return _select(data, axis, integer(node.attrs, "begin", 0), next(iter(integers(node.attrs, "end")), None))


def _take(node: Node, data: Trace, tracer: _Tracer) -> Trace | None:
    index = constant(node.inputs[1], tracer.params)
    axis = integer(node.attrs, "axis", 0) % len(data.axes)
    if index is None:
        return None
    chosen = _select(data, axis, int(index.value), int(index.value) + 1)
    if chosen is None or chosen.tokens != "position":
        return None
    # The indices' axes stand where the axis was.
    between: Axes = index.shape if index.shape is not None else (1,)
    return dataclasses.replace(chosen, axes=(*data.axes[:axis], *between, *data.axes[axis + 1 :]))


def _pick(node: Node, data: Trace, tracer: _Tracer) -> Trace | None:
    index = constant(node.inputs[1], tracer.params)
    axis = integer(node.attrs, "axis", -1) % len(data.axes)
    chosen = _select(data, axis, int(index.value), int(index.value) + 1) if index else None
    if chosen is None or chosen.tokens != "position" or flag(node.attrs, "keepdims", False):
        return chosen if chosen and chosen.tokens == "position" else None
    return dataclasses.replace(chosen, axes=(*data.axes[:axis], *data.axes[axis + 1 :]))


def _split(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    axis, parts = integer(node.attrs, "axis", 1) % len(data.axes), integer(node.attrs, "num_outputs", 1)
    size = data.axes[axis]
    if not isinstance(size, int) or parts < 1 or size % parts:
        return None
    axes = list(data.axes)
    axes[axis] = size // parts
    if flag(node.attrs, "squeeze_axis", False) and axes[axis] == 1:
        del axes[axis]
    return dataclasses.replace(data, axes=tuple(axes))


def _mask(node: Node, data: Trace, _: _Tracer) -> Trace:
    zeroed = flag(node.attrs, "use_sequence_length", False) and float(node.attrs.get("value", "0") or 0) == 0
    return dataclasses.replace(data, masked=data.masked or zeroed)


def _last(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    axis = integer(node.attrs, "axis", 0)
    if data.tokens != "all" or data.axes[axis] != LENGTH:
        return None
    return dataclasses.replace(data, axes=(*data.axes[:axis], *data.axes[axis + 1 :]), tokens="last")


def _reduce(node: Node, data: Trace, _: _Tracer) -> Trace | None:
    wanted = integers(node.attrs, "axis")
    if len(wanted) != 1 or wanted[0] is None or flag(node.attrs, "exclude", False):
        return None
    axis = wanted[0] % len(data.axes)
    if data.axes[axis] != LENGTH or data.tokens != "all":
        return None
    kept: Axes = (1,) if flag(node.attrs, "keepdims", False) else ()
    axes = (*data.axes[:axis], *kept, *data.axes[axis + 1 :])
    return dataclasses.replace(data, axes=axes, tokens={"mean": "mean", "sum": "sum"}.get(node.op, "max"))


def _dense(node: Node, data: Trace, _: _Tracer) -> Trace:
    width = integer(node.attrs, "num_hidden", 0)
    step = f"Dense({width})"
    if flag(node.attrs, "flatten", True) and len(data.axes) > 2:
        flat = _reshaped(data, (0, -1)) or data
        return dataclasses.replace(flat, axes=(data.axes[0], width)).then(step)
    return dataclasses.replace(data, axes=(*data.axes[:-1], width)).then(step)


_RULES: dict[str, _Rule] = {
    "Flatten": _flatten,
    "FullyConnected": _dense,
    "Reshape": _reshape,
    "SequenceLast": _last,
    "SequenceMask": _mask,
    "SliceChannel": _split,
    "SwapAxis": _swap,
    "expand_dims": _expand,
    "flatten": _flatten,
    "max": _reduce,
    "max_axis": _reduce,
    "mean": _reduce,
    "pick": _pick,
    "reshape": _reshape,
    "slice": _slice,
    "slice_axis": _slice_axis,
    "split": _split,
    "squeeze": _squeeze,
    "sum": _reduce,
    "sum_axis": _reduce,
    "swapaxes": _swap,
    "take": _take,
    "transpose": _transpose,
}
