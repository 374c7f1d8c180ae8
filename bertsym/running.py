"""Asking mxnet about a graph: shapes and dtypes, and the values of any of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.bert.answer import answers
from bertsym.bert.tracing import BATCH, LENGTH, Axes, Axis
from bertsym.errors import DataError, UsageError
from bertsym.model import Model
from bertsym.runtime import mx, mxnet_errors, quiet_stderr, without_fusion
from bertsym.symbol.attributes import integer, integers
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output
from bertsym.symbol.params import Array

Shape = tuple[int, ...]
_DTYPES = {0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool"}
_BATCH, _LENGTH = 2, 16
# Batch size and length, twice; primes, so that products tell what they are made of.
_PROBES = ((11, 5), (13, 7))


def tensor_shapes(graph: SymbolGraph, shapes: Mapping[str, Shape], where: str) -> dict[Output, Shape]:
    """The shapes of all variables and outputs that are read, given those of the inputs (and of parameters).

    Source: nnvm's shape inference, through Symbol.infer_shape_partial. An unknown shape is left out.
    Raises ModelError, naming `where`, when the shapes contradict each other.
    """
    outputs = _tensors(graph)
    symbol = _symbol(graph, outputs)
    known = {name: shape for name, shape in shapes.items() if name in graph.variables}
    with mxnet_errors(where):
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
    symbol = _symbol(graph, list(outputs) if outputs is not None else graph.outputs)
    context = context or mx.cpu()
    arguments, states = symbol.list_arguments(), symbol.list_auxiliary_states()
    with mxnet_errors(where):
        given = {name: tuple(array.shape) for name, array in inputs.items() if name in arguments}
        known = {name: tuple(params[name].shape) for name in [*arguments, *states] if name in params}
        argument_shapes, _, state_shapes = symbol.infer_shape(**{**known, **given})
    if argument_shapes is None:
        raise DataError(f"{where}: the shapes of its inputs are not enough: give more with --shape NAME=SIZES")

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


def sample_inputs(model: Model, shapes: Mapping[str, Shape] | None = None, seed: int = 0) -> dict[str, Array]:
    """Random inputs of a model: token ids, token types and lengths of a BERT, normal numbers for other inputs.

    `shapes` are asked for where the graph does not tell them. Raises UsageError for an input whose shape is
    unknown, and for one that the graph has not.
    """
    shapes = dict(shapes or {})
    unknown = [name for name in shapes if name not in model.inputs]
    if unknown:
        raise UsageError(f"{model.name} has no input {unknown[0]!r}; its inputs are {', '.join(model.inputs)}")
    rng = np.random.default_rng(seed)
    batch, length = _sizes(model, shapes)
    return {name: _sample(model, name, shapes, batch, length, rng) for name in model.inputs}


def _sizes(model: Model, shapes: Mapping[str, Shape]) -> tuple[int, int]:
    bert = model.bert
    if bert is None:
        return _BATCH, _LENGTH
    given = next((shapes[name] for name in (bert.token_ids, bert.token_types) if name and name in shapes), None)
    if given is not None and len(given) == 2:
        return given
    return _BATCH, fixed_length(model) or min(_LENGTH, bert.max_length or _LENGTH)


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
            raise UsageError(f"the shape of {name} is unknown: give it with --shape {name}=2,3,...")
        if any(reader.op == "Embedding" for reader in model.graph.consumers(node)):
            rows = [
                integer(reader.attrs, "input_dim", 1)
                for reader in model.graph.consumers(node)
                if reader.op == "Embedding"
            ]
            values = rng.integers(min(rows), size=shape)
        else:
            values = rng.standard_normal(shape)
    return values.astype(np.float32)


def _declared(shape: tuple[int | None, ...]) -> Shape | None:
    sizes = tuple(size for size in shape if size is not None and size > 0)
    return sizes if sizes and len(sizes) == len(shape) else None


def _tensors(graph: SymbolGraph) -> list[Output]:
    """Every operator's first output and every other one that is read."""
    first = [Output(node) for node in graph.nodes if not node.is_variable]
    read = [entry for node in graph.nodes for entry in node.inputs if not entry.node.is_variable]
    return list(dict.fromkeys([*first, *read, *(entry for entry in graph.outputs if not entry.node.is_variable)]))


def _symbol(graph: SymbolGraph, outputs: Iterable[Output]) -> Any:
    """The graph as an mx.sym.Symbol that ends in these outputs."""
    whole = SymbolGraph(graph.nodes, outputs, graph.document)
    load = mx.sym.load_json  # mxnet itself is imported here, where its messages are heard
    with mxnet_errors("the symbol"), quiet_stderr():
        return load(whole.to_json())


def free_shapes(model: Model) -> dict[Output, Axes]:
    """The shapes of all tensors of a BERT, free axes as ``N`` and ``T``: ``(N, T, 768)``, ``(12*N, T, T)``.

    MXNet infers them twice, for two batch sizes and lengths; what changes with them is free. Of a graph that
    is no BERT, where there is nothing that tells the free axes, the result is empty.
    """
    bert = model.bert
    if bert is None:
        return {}
    fixed = fixed_length(model)
    found = []
    for batch, length in _PROBES:
        names = (bert.token_ids, bert.token_types, bert.valid_length)
        sizes = (batch, fixed or length)
        shapes = {name: sizes[: 1 if name == bert.valid_length else 2] for name in names if name}
        found.append(tensor_shapes(model.graph, {**model.param_shapes, **shapes}, model.name))
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
