"""Asking mxnet about a graph: shapes and dtypes, and the values of any of its tensors."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.bert.answer import answers
from bertsym.bert.tracing import BATCH, LENGTH, Axes, Axis
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.model import Model
from bertsym.runtime import mx, mxnet_errors, quiet_stderr, without_fusion
from bertsym.symbol.attributes import integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.params import Array

Shape = tuple[int, ...]
_DTYPES = {0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool"}
_BATCH, _LENGTH = 2, 16
# Operators that read outside of their memory when an input is no index of another -> the place of that input.
_INDICES = {"batch_take": 1, "gather_nd": 1, "pick": 1, "scatter_nd": 1, "take": 1}
_LENGTHS = {"SequenceLast": 1, "SequenceMask": 1, "SequenceReverse": 1}
_KEEPING = frozenset(
    {"Cast", "Concat", "Flatten", "Reshape", "broadcast_add", "cast", "concat", "elemwise_add", "expand_dims"}
    | {"reshape", "squeeze", "stack", "transpose"}
)
# Batch size and length, twice; primes, so that products tell what they are made of.
_PROBES = ((11, 5), (13, 7))


class UnknownShapeError(UsageError):
    """The graph does not tell the shape of an input, and it was not given."""


def tensor_shapes(
    graph: SymbolGraph, shapes: Mapping[str, Shape], where: str, also: Iterable[Output] = ()
) -> dict[Output, Shape]:
    """The shapes of all variables and outputs that are read, given those of the inputs (and of parameters).

    And those of `also`, further outputs of operators that have several.

    Source: nnvm's shape inference, through Symbol.infer_shape_partial. An unknown shape is left out.
    Raises ModelError, naming `where`, when the shapes contradict each other.
    """
    outputs = list(dict.fromkeys([*_tensors(graph), *(entry for entry in also if not entry.node.is_variable)]))
    symbol = _symbol(graph, outputs, where)
    reached = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
    known = {name: shape for name, shape in shapes.items() if name in reached}
    with mxnet_errors(where), _quiet_inference():
        arguments, found, auxiliary = symbol.infer_shape_partial(**known)
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    by_name = dict(zip(names, [*arguments, *auxiliary]))
    every = [(Output(node), by_name.get(node.name)) for node in graph.nodes if node.is_variable]
    every += list(zip(outputs, found))
    return {output: tuple(shape) for output, shape in every if shape and 0 not in shape}


def tensor_values(
    graph: SymbolGraph,
    params: Mapping[str, Array],
    inputs: Mapping[str, Array],
    outputs: Sequence[Output] | None = None,
    *,
    where: str,
    context: Any = None,
) -> list[Array]:
    """The values of `outputs`, by default of what the graph ends in, at inference.

    Labels and other variables that have no value are zeros. Raises ModelError when MXNet can't run the graph,
    and DataError when an input of the graph is missing.
    """
    outputs = list(outputs) if outputs is not None else graph.outputs
    symbol = _symbol(graph, outputs, where)
    context = context or mx.cpu()
    arguments, states = symbol.list_arguments(), symbol.list_auxiliary_states()
    with mxnet_errors(where), _quiet_inference():
        given = {name: tuple(array.shape) for name, array in inputs.items() if name in arguments}
        known = {name: tuple(params[name].shape) for name in [*arguments, *states] if name in params}
        argument_shapes, _, state_shapes = symbol.infer_shape(**{**known, **given})
    if argument_shapes is None:
        raise DataError(f"{where}: the shapes of its inputs are not enough: give more with --shape NAME=SIZES")
    _check_reshapes(graph, outputs, {**known, **given}, where)

    def value(name: str, shape: Shape) -> Any:
        array = inputs[name] if name in inputs else params.get(name)
        if array is None:
            return mx.nd.zeros(shape, context)
        return mx.nd.array(array, context, dtype=array.dtype)

    with mxnet_errors(where):
        with without_fusion(), quiet_stderr():
            executor = symbol.bind(
                context,
                {name: value(name, shape) for name, shape in zip(arguments, argument_shapes)},
                grad_req="null",
                aux_states={name: value(name, shape) for name, shape in zip(states, state_shapes)},
            )
        return [np.asarray(array.asnumpy()) for array in executor.forward(is_train=False)]


def listed_outputs(graph: SymbolGraph, where: str) -> list[str]:
    """What MXNet calls the outputs of a graph: ``fc_output``, ``split_output2``, ``data0``.

    Raises ModelError, naming `where`, for a graph that MXNet does not load: an unknown operator, attribute, dtype.
    """
    names = _symbol(graph, graph.outputs, where).list_outputs()
    for node in graph.nodes:
        if node.is_variable and integer(node.attrs, "__dtype__", 0) not in _DTYPES:
            raise ModelError(f"{where}: {node.name}: there is no dtype {node.attrs['__dtype__']}")
    return [str(name) for name in names]


def sample_inputs(
    model: Model,
    shapes: Mapping[str, Shape] | None = None,
    seed: int = 0,
    *,
    needed: Sequence[Output] | None = None,
    length: int | None = None,
) -> dict[str, Array]:
    """Random inputs of a model: token ids, token types and lengths of a BERT, normal numbers for other inputs.

    `shapes` are asked for where the graph does not tell them. Only what the outputs `needed`, by default those of
    the graph, depend on is made. `length` is that of a BERT's texts, where `shapes` has none.

    Raises UsageError for a shape that an input can't have and for an input that the graph has not, and
    UnknownShapeError where a shape is missing.
    """
    shapes = dict(shapes or {})
    unknown = [name for name in shapes if name not in model.inputs]
    if unknown:
        raise UsageError(f"{model.name} has no input {unknown[0]!r}; its inputs are {', '.join(model.inputs)}")
    rng = np.random.default_rng(seed)
    batch, length = _sizes(model, shapes, length)
    outputs = model.graph.outputs if needed is None else needed
    names = {node.name for node in model.graph.ancestors(*(output.node for output in outputs))}
    return {name: _sample(model, name, shapes, batch, length, rng) for name in model.inputs if name in names}


def _sizes(model: Model, shapes: Mapping[str, Shape], length: int | None) -> tuple[int, int]:
    bert = model.bert
    if bert is None:
        return _BATCH, _LENGTH
    tokens = [name for name in (bert.token_ids, bert.token_types) if name]
    lengths = shapes.get(bert.valid_length or "")
    sizes = next((shapes[name] for name in tokens if name in shapes), None)
    if sizes is None:
        length = length or fixed_length(model) or min(_LENGTH, bert.max_length or _LENGTH)
        sizes = ((lengths or (_BATCH,))[0], length)
    wanted: dict[str, Shape] = dict.fromkeys(tokens, sizes)
    wanted[bert.valid_length or ""] = sizes[:1]
    for name, shape in shapes.items():
        if len(sizes) != 2 or shape != wanted.get(name, shape):
            raise UsageError(f"{name} can't have the shape {shape}: token ids and types are (N, T), lengths (N,)")
    if bert.max_length is not None and sizes[1] > bert.max_length:
        raise UsageError(f"{model.name} takes no length {sizes[1]}: it has {bert.max_length} positions")
    return sizes[0], sizes[1]


def _sample(
    model: Model, name: str, shapes: Mapping[str, Shape], batch: int, length: int, rng: np.random.Generator
) -> Array:
    bert = model.bert
    if bert is not None and name == bert.token_ids:
        values: Array = rng.integers(bert.vocab_size or 2, size=(batch, length))
    elif bert is not None and name == bert.token_types:
        values = rng.integers(bert.token_type_vocab_size or 1, size=(batch, length))
    elif bert is not None and name == bert.valid_length:
        # A full row, then shorter ones: padding is a part of what is compared.
        values = np.maximum(1, length - np.arange(batch) * (length // 3))
    else:
        node = model.graph.node(name)
        shape = shapes.get(name) or _declared(integers(node.attrs, "__shape__"))
        if shape is None:
            raise UnknownShapeError(f"the shape of {name} is unknown: give it with --shape {name}=2,3,...")
        if is_index(model.graph, node):
            values = rng.integers(2, size=shape)
        elif _readers(model.graph, node, _LENGTHS):
            values = np.ones(shape)
        elif any(reader.op == "Embedding" for reader in model.graph.consumers(node)):
            rows = [
                integer(reader.attrs, "input_dim", 1)
                for reader in model.graph.consumers(node)
                if reader.op == "Embedding"
            ]
            values = rng.integers(min(rows), size=shape)
        else:
            values = rng.standard_normal(shape)
    return values.astype(np.float32)


def is_index(graph: SymbolGraph, node: Node) -> bool:
    """Whether an input tells positions in another tensor, as the masked positions of a BERT in pretraining."""
    return bool(_readers(graph, node, _INDICES))


def longest(model: Model, name: str, shapes: Mapping[str, Shape]) -> int | None:
    """The largest number that an input may hold which tells lengths; None of an input that tells none.

    MXNet reads and writes outside of its memory on a larger one, and on one below 1.
    """
    readers = _readers(model.graph, model.graph.node(name), _LENGTHS)
    if not readers:
        return None
    known = tensor_shapes(model.graph, {**model.param_shapes, **shapes}, model.name)
    sizes = [known.get(reader.inputs[0], ()) for reader in readers]
    axes = [integer(reader.attrs, "axis", 0) for reader in readers]
    return min((size[axis] for size, axis in zip(sizes, axes) if axis < len(size)), default=1)


def _readers(graph: SymbolGraph, node: Node, places: Mapping[str, int]) -> list[Node]:
    """The operators that read a variable, or its numbers in another shape, at these places."""
    reached, found = {node}, []
    for reader in graph.nodes:
        for place, entry in enumerate(reader.inputs):
            if entry.node in reached and places.get(reader.op) == place:
                found.append(reader)
            elif entry.node in reached and reader.op in _KEEPING:
                reached.add(reader)
    return found


def _declared(shape: tuple[int | None, ...]) -> Shape | None:
    sizes = tuple(size for size in shape if size is not None and size > 0)
    return sizes if sizes and len(sizes) == len(shape) else None


def _tensors(graph: SymbolGraph) -> list[Output]:
    """Every operator's first output and every other one that is read."""
    first = [Output(node) for node in graph.nodes if not node.is_variable]
    read = [entry for node in graph.nodes for entry in node.inputs if not entry.node.is_variable]
    return list(dict.fromkeys([*first, *read, *(entry for entry in graph.outputs if not entry.node.is_variable)]))


def _check_reshapes(graph: SymbolGraph, outputs: Sequence[Output], shapes: Mapping[str, Shape], where: str) -> None:
    """Raise ModelError for a Reshape that loses numbers: MXNet runs it, and writes outside of its memory."""
    needed = graph.ancestors(*(output.node for output in outputs))
    part = SymbolGraph([node for node in graph.nodes if node in needed], outputs, graph.document)
    known = tensor_shapes(part, shapes, where)
    for node in part.nodes:
        if node.op in ("Reshape", "reshape"):
            before, after = known.get(node.inputs[0]), known.get(Output(node))
            if before and after and math.prod(before) != math.prod(after):
                raise ModelError(f"{where}: {node.name} can't reshape {before} into {after}")


@contextlib.contextmanager
def _quiet_inference() -> Iterator[None]:
    """Without what mxnet prints and warns when shapes don't fit: the error says it."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _symbol(graph: SymbolGraph, outputs: Iterable[Output], where: str) -> Any:
    """The graph as an mx.sym.Symbol that ends in these outputs."""
    whole = SymbolGraph(graph.nodes, outputs, graph.document)
    load = mx.sym.load_json  # mxnet itself is imported here, where its messages are heard
    with mxnet_errors(where), quiet_stderr():
        return load(whole.to_json())


def known_shapes(
    model: Model, shapes: Mapping[str, Shape] | None = None, also: Iterable[Output] = ()
) -> dict[Output, Axes]:
    """The shapes of a BERT's tensors with free axes, or those of another graph, given `shapes` of its inputs."""
    if model.bert is not None:
        return free_shapes(model, also)
    return {**tensor_shapes(model.graph, {**model.param_shapes, **(shapes or {})}, model.name, also)}


def free_shapes(model: Model, also: Iterable[Output] = ()) -> dict[Output, Axes]:
    """The shapes of all tensors of a BERT, free axes as ``N`` and ``T``: ``(N, T, 768)``, ``(12*N, T, T)``.

    MXNet infers them twice, for two batch sizes and lengths; what changes with them is free. Of a graph that
    is no BERT, where there is nothing that tells the free axes, the result is empty.
    """
    bert = model.bert
    if bert is None:
        return {}
    fixed = fixed_length(model)
    names = (bert.token_ids, bert.token_types, bert.valid_length)
    # What other inputs reach has no shape, and some operators don't bear that.
    unknown = model.graph.descendants(*(model.graph.node(name) for name in model.inputs if name not in names))
    nodes = [node for node in model.graph.nodes if node not in unknown]
    graph = SymbolGraph(
        nodes, (entry for entry in model.graph.outputs if entry.node not in unknown), model.graph.document
    )
    also = [entry for entry in also if entry.node not in unknown]
    found = []
    for batch, length in _PROBES:
        sizes = (batch, fixed or length)
        shapes = {name: sizes[: 1 if name == bert.valid_length else 2] for name in names if name}
        found.append(tensor_shapes(graph, {**model.param_shapes, **shapes}, model.name, also))
    one, other = found
    return {output: _free(one[output], other[output]) for output in one if output in other}


def _free(one: Shape, other: Shape) -> Axes:
    (batch, length), (batch2, length2) = _PROBES

    def axis(size: int, size2: int) -> Axis:
        if size == size2:
            return size
        units = ((BATCH, batch, batch2), (LENGTH, length, length2), ("N*T", batch * length, batch2 * length2))
        for name, unit, unit2 in units:
            if size % unit == 0 and size2 % unit2 == 0 and size // unit == size2 // unit2:
                return name if size == unit else f"{size // unit}*{name}"
        return "?"

    return tuple(map(axis, one, other)) if len(one) == len(other) else ()


def fixed_length(model: Model) -> int | None:
    """The only length that a BERT's graph takes, because it was written into it or by its classifier's weight."""
    bert = model.bert
    if bert is None:
        return None
    locked = [answer.locked_length for answer in answers(model.graph, bert, model.traces, model.param_shapes)]
    return next((length for length in (bert.length, *locked) if length), None)
