"""Infer and check the shapes of all tensors of a graph of export's operators, without mxnet.

MXNet's own shape inference divides by zero on some graphs, and accepts others that then access memory out of bounds: a
Reshape that loses elements, a condition of another shape, heads that do not divide the units. Unknown operators are
refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from bertsym.errors import ModelError
from bertsym.symbol.attributes import integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import flag_of, integer_of
from bertsym.symbol.quantized_layers import FUSED, FusedLayer

Shape = tuple[int, ...]


class _DoesNotFitError(Exception):
    """The operator does not take inputs of these shapes."""


def infer_tensor_shapes(graph: SymbolGraph, known: Mapping[str, Shape], where: str) -> dict[Output, Shape]:
    """Infer the shape of each tensor from the shapes of all variables by name.

    Raises ModelError, naming `where` and the node, for incompatible shapes.
    """
    found: dict[Output, Shape] = {}
    for node in graph.nodes:
        if node.is_variable:
            if node.name not in known:
                raise ModelError(f"{where}: the shape of {node.name} is unknown")
            found[Output(node)] = known[node.name]
            continue
        inputs = [found.get(entry, ()) for entry in node.inputs]
        try:
            _need(all(inputs))
            shapes = _rule(node)(node, inputs)
            _need(all(shape and min(shape) > 0 for shape in shapes))
        except (_DoesNotFitError, IndexError, ValueError):
            shown = " and ".join(map(str, inputs))
            raise ModelError(f"{where}: node {node.name!r}: a {node.op} does not take {shown}") from None
        found.update((Output(node, index), shape) for index, shape in enumerate(shapes))
    return found


def _rule(node: Node) -> Callable[[Node, Sequence[Shape]], list[Shape]]:
    rule = _RULES.get(node.op)
    if rule is None:
        raise _DoesNotFitError
    return rule


def _need(condition: bool) -> None:
    if not condition:
        raise _DoesNotFitError


def _axis(axis: int | None, rank: int) -> int:
    """Normalize an axis to a number from 0."""
    _need(axis is not None and -rank <= axis < rank)
    assert axis is not None
    return axis % rank


# Each rule returns the shapes of the outputs that are read; a ValueError means too few or too many values.


def _same(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    _need(node.attrs.get("act_type") != "prelu")  # which has a parameter
    return [data]


def _equal(_: Node, inputs: Sequence[Shape]) -> list[Shape]:
    one, other = inputs
    _need(one == other)
    return [one]


def _broadcast(_: Node, inputs: Sequence[Shape]) -> list[Shape]:
    one, other = inputs
    rank = max(len(one), len(other))
    one, other = ((1,) * (rank - len(shape)) + shape for shape in (one, other))
    _need(all(a == b or 1 in (a, b) for a, b in zip(one, other)))
    return [tuple(map(max, one, other))]


def _arange_like(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    _need(integer_of(node, "repeat") == 1)
    return [(data[_axis(integer(node.attrs, "axis", len(data)), len(data))],)]


def _batch_dot(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    one, other = inputs
    _need(len(one) == len(other) == 3 and one[0] == other[0])
    rows, inner = one[1:][:: -1 if flag_of(node, "transpose_a") else 1]
    inner_too, columns = other[1:][:: -1 if flag_of(node, "transpose_b") else 1]
    _need(inner == inner_too)
    return [(one[0], rows, columns)]


def _broadcast_axis(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    sizes = list(inputs[0])
    axes, wanted = integers(node.attrs, "axis"), integers(node.attrs, "size")
    _need(len(inputs) == 1 and len(axes) == len(wanted))
    for axis, size in zip(axes, wanted):
        _need(axis is not None and axis >= 0 and sizes[axis] == 1 and size is not None)
        sizes[axis or 0] = size or 0
    return [tuple(sizes)]


def _concat(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    first = inputs[0]
    axis = _axis(integer_of(node, "dim"), len(first))
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
    _need(len(others) == 1 and all(len(shape) == len(first) for shape in inputs))
    return [(*first[:axis], sum(shape[axis] for shape in inputs), *first[axis + 1 :])]


def _dense(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    data, weight, *bias = inputs
    if flag_of(node, "flatten"):
        data = (data[0], math.prod(data[1:]))
    outputs = integer(node.attrs, "num_hidden", 0)
    _need(weight == (outputs, data[-1]) and bias == ([] if flag_of(node, "no_bias") else [(outputs,)]))
    return [(*data[:-1], outputs)]


def _fused(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    """The further inputs are the limits of ranges."""
    _need(all(shape == (1,) for shape in inputs[3:]))
    return [*_dense(FusedLayer.of(node).operators[0], inputs[:3]), (1,), (1,)]


def _embedding(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    data, table = inputs
    _need(table == (integer(node.attrs, "input_dim", 0), integer(node.attrs, "output_dim", 0)))
    return [(*data, table[1])]


def _expand_dims(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    axis = _axis(integer(node.attrs, "axis", len(data) + 1), len(data) + 1)
    return [(*data[:axis], 1, *data[axis:])]


def _interleaved_products(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    ((length, batch, width),) = inputs
    heads = integer(node.attrs, "heads", 0)
    _need(heads > 0 and width % (3 * heads) == 0)
    return [(batch * heads, length, length)]


def _interleaved_values(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (length, batch, width), weights = inputs
    _need([weights] == _interleaved_products(node, inputs[:1]))
    return [(length, batch, width // 3)]


def _layer_norm(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    data, gamma, beta = inputs
    _need(gamma == beta == (data[_axis(integer_of(node, "axis"), len(data))],))
    return [data]


def _quantize(_: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    return [data, (1,), (1,)]


def _reshape(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    wanted = integers(node.attrs, "shape")
    _need(bool(wanted) and all(size is not None and size >= -1 for size in wanted) and wanted.count(-1) < 2)
    step = -1 if flag_of(node, "reverse") else 1
    given, sizes = data[::step], list(wanted[::step])
    sizes = [given[i] if size == 0 else size for i, size in enumerate(sizes)]
    rest = math.prod(size for size in sizes if size is not None and size > 0)
    shape = tuple(math.prod(data) // rest if size == -1 else size or 0 for size in sizes)[::step]
    _need(math.prod(shape) == math.prod(data))
    return [shape]


def _sequence_mask(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    data, *lengths = inputs
    rows = (data[1 - _axis(integer_of(node, "axis"), 2)],)
    _need(lengths == ([rows] if flag_of(node, "use_sequence_length") else []))
    return [data]


def _slice_axis(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    axis = _axis(integer(node.attrs, "axis", len(data)), len(data))
    (begin,), (end,) = integers(node.attrs, "begin"), integers(node.attrs, "end")
    size = data[axis]
    # Beyond the end, and before the beginning, there is nothing.
    _need(all(place is None or -size <= place <= size for place in (begin, end)))
    return [(*data[:axis], len(range(size)[begin:end]), *data[axis + 1 :])]


def _slice_like(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    data, other = inputs
    axes = integers(node.attrs, "axes") or tuple(range(max(len(data), len(other))))
    sizes = list(data)
    for axis in axes:
        place = _axis(axis, len(data))
        _need(other[_axis(axis, len(other))] <= sizes[place])
        sizes[place] = other[_axis(axis, len(other))]
    return [tuple(sizes)]


def _softmax(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    data, *lengths = inputs
    axis = _axis(integer_of(node, "axis"), len(data))
    rows = (*data[:axis], *data[axis + 1 :])
    _need(lengths == ([rows] if flag_of(node, "use_length") else []))
    return [data]


def _one_hot(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    depth = integer(node.attrs, "depth", 0)
    _need(depth > 0)
    return [(*data, depth)]


def _softmax_output(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    data, label = inputs
    _need(len(data) == 2 or (len(data) > 2 and flag_of(node, "preserve_shape")))
    _need(label == data[:-1] and not flag_of(node, "multi_output"))
    return [data]


def _split(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    axis, parts = _axis(integer(node.attrs, "axis", 1), len(data)), node.num_outputs
    _need(data[axis] % parts == 0)
    size = data[axis] // parts
    squeezed = flag_of(node, "squeeze_axis")
    _need(not squeezed or size == 1)
    return [(*data[:axis], *(() if squeezed else (size,)), *data[axis + 1 :])] * parts


def _stack(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    first = inputs[0]
    axis = _axis(integer_of(node, "axis"), len(first) + 1)
    _need(all(shape == first for shape in inputs))
    return [(*first[:axis], len(inputs), *first[axis:])]


def _sum(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    axes = [_axis(axis, len(data)) for axis in integers(node.attrs, "axis")]
    _need(0 < len(axes) == len({*axes}) and not flag_of(node, "exclude"))
    kept = flag_of(node, "keepdims")
    shape = tuple(1 if i in axes else size for i, size in enumerate(data) if kept or i not in axes)
    return [shape or (1,)]


def _transpose(node: Node, inputs: Sequence[Shape]) -> list[Shape]:
    (data,) = inputs
    axes = integers(node.attrs, "axes") or tuple(reversed(range(len(data))))
    _need(sorted(axis for axis in axes if axis is not None) == list(range(len(data))))
    return [tuple(data[axis] for axis in axes if axis is not None)]


def _where(_: Node, inputs: Sequence[Shape]) -> list[Shape]:
    condition, one, other = inputs
    _need(condition == one == other)
    return [one]


_RULES: dict[str, Callable[[Node, Sequence[Shape]], list[Shape]]] = {
    **dict.fromkeys(("Activation", "BlockGrad", "Cast", "Dropout", "LeakyReLU", "clip", "erf"), _same),
    **dict.fromkeys(("L2Normalization", "MakeLoss", "log_softmax", "sqrt"), _same),
    **dict.fromkeys(("ones_like", "zeros_like"), _same),
    **dict.fromkeys(("_div_scalar", "_greater_equal_scalar", "_mul_scalar", "_plus_scalar"), _same),
    **dict.fromkeys(("elemwise_add", "elemwise_mul"), _equal),
    **dict.fromkeys(("LinearRegressionOutput", "LogisticRegressionOutput"), _equal),
    **dict.fromkeys(("broadcast_add", "broadcast_div", "broadcast_minimum"), _broadcast),
    "Concat": _concat,
    "Embedding": _embedding,
    "FullyConnected": _dense,
    "LayerNorm": _layer_norm,
    "Reshape": _reshape,
    "SequenceMask": _sequence_mask,
    "SliceChannel": _split,
    "SoftmaxOutput": _softmax_output,
    "_contrib_arange_like": _arange_like,
    "_contrib_interleaved_matmul_selfatt_qk": _interleaved_products,
    "_contrib_interleaved_matmul_selfatt_valatt": _interleaved_values,
    "_contrib_quantize_v2": _quantize,
    FUSED: _fused,
    "batch_dot": _batch_dot,
    "broadcast_axis": _broadcast_axis,
    "expand_dims": _expand_dims,
    "max": _sum,
    "mean": _sum,
    "one_hot": _one_hot,
    "slice_axis": _slice_axis,
    "slice_like": _slice_like,
    "softmax": _softmax,
    "stack": _stack,
    "sum": _sum,
    "transpose": _transpose,
    "where": _where,
}


# Losses, whose label may be unknown; without attributes that change the shape of what they give.
_LOSSES = ("LinearRegressionOutput", "LogisticRegressionOutput", "SoftmaxOutput")

# Rules of further operators, which no bundle of a BERT has
_FURTHER: dict[str, Callable[[Node, Sequence[Shape]], list[Shape]]] = {
    **dict.fromkeys(("SoftmaxActivation", "_contrib_div_sqrt_dim", "_copy"), _same),
    **dict.fromkeys(("abs", "exp", "log", "negative", "relu", "sigmoid", "square"), _same),
    **dict.fromkeys(("_maximum_scalar", "_minimum_scalar", "_minus_scalar", "_power_scalar", "tanh"), _same),
    **dict.fromkeys(("_rdiv_scalar", "_rminus_scalar"), _same),
    **dict.fromkeys(("elemwise_div", "elemwise_sub"), _equal),
    **dict.fromkeys(("broadcast_greater", "broadcast_lesser", "broadcast_maximum", "broadcast_mul"), _broadcast),
    **dict.fromkeys(("broadcast_power", "broadcast_sub"), _broadcast),
}

#: finds the shapes of the outputs of a node from those of its inputs; None where it can't
Finder = Callable[[Node, Sequence[Shape]], "list[Shape] | None"]


def infer_known(graph: SymbolGraph, known: Mapping[str, Shape], where: str, find: Finder) -> dict[Output, Shape]:
    """The shapes of all tensors that follow from those of some variables; unlike `tensor_sizes`, of any operators.

    `find` is asked for operators that have no rule here. Raises ModelError, naming `where` and the node, for shapes
    that don't fit.
    """
    found: dict[Output, Shape] = {}
    for node in graph.nodes:
        if node.is_variable:
            if node.name in known:
                found[Output(node)] = known[node.name]
            continue
        data = found.get(node.inputs[0]) if node.inputs else ()
        if data is None:
            continue
        for entry, shape in zip(node.inputs[1:], _parameter_shapes(node, data)):
            if entry.node.is_variable:
                found.setdefault(entry, shape)
        if node.op in _LOSSES:
            found[Output(node)] = data
            continue
        inputs = [found.get(entry) for entry in node.inputs]
        shapes = [shape for shape in inputs if shape is not None]
        if len(shapes) < len(inputs):
            continue
        outputs = _outputs_of(node, shapes, find)
        if outputs is None and node.op in _RULES:
            shown = " and ".join(map(str, shapes))
            raise ModelError(f"{where}: node {node.name!r}: a {node.op} does not take {shown}")
        found.update((Output(node, index), shape) for index, shape in enumerate(outputs or ()))
    return found


def _outputs_of(node: Node, inputs: Sequence[Shape], find: Finder) -> list[Shape] | None:
    rule = _RULES.get(node.op) or _FURTHER.get(node.op)
    if rule is None:
        return find(node, inputs)
    try:
        return rule(node, inputs)
    except (_DoesNotFitError, IndexError, ValueError):
        return find(node, inputs)


def _parameter_shapes(node: Node, data: Shape) -> list[Shape]:
    """The shapes of the parameters of a layer that reads `data`, as MXNet infers them."""
    if node.op == "FullyConnected" and len(data) > 1:
        units = integer(node.attrs, "num_hidden", 0)
        width = math.prod(data[1:]) if flag_of(node, "flatten") else data[-1]
        return [(units, width), (units,)]
    if node.op == "LayerNorm":
        return [data[integer_of(node, "axis") : :][:1]] * 2
    if node.op == "Embedding":
        return [(integer(node.attrs, "input_dim", 0), integer(node.attrs, "output_dim", 0))]
    if node.op == "SoftmaxOutput":
        multiple = flag_of(node, "multi_output")
        return [(data[0], *data[2:]) if multiple else data[:-1]]
    return [data] if node.op in _LOSSES else []
