"""The shapes of tensors, inferred by an engine: for given inputs, or with the free axes of a BERT."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes, Axis
from bertsym.errors import UsageError
from bertsym.execution.engines import Shape
from bertsym.execution.sandbox import call
from bertsym.model import Model
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output
from bertsym.symbol.validation import check_symbol

# Batch size and length, twice; primes, so that a product shows its factors.
_PROBES = ((11, 5), (13, 7))


def tensor_shapes(
    graph: SymbolGraph, shapes: Mapping[str, Shape], where: str, also: Iterable[Output] = (), *, trusted: bool = False
) -> dict[Output, Shape]:
    """Infer the shapes of all variables and of all outputs that are read, from `shapes` of inputs and parameters.

    `also` adds further outputs of operators that have several. A graph that is not `trusted` is loaded in the sandbox.
    Unknown shapes are left out. The engine mxnet uses nnvm's inference, through Symbol.infer_shape_partial.
    Raises ModelError, naming `where`, when the shapes contradict each other.
    """
    return _infer(graph, [shapes], where, also, trusted=trusted)[0]


def _infer(
    graph: SymbolGraph,
    several: Iterable[Mapping[str, Shape]],
    where: str,
    also: Iterable[Output] = (),
    *,
    trusted: bool,
) -> list[dict[Output, Shape]]:
    """As `tensor_shapes`, for `several` shapes of inputs and parameters."""
    outputs = list(dict.fromkeys([*_tensors(graph), *(entry for entry in also if not entry.node.is_variable)]))
    text = checked_text(graph, outputs, where)
    inferred = []
    for shapes in several:
        by_name, found = call("infer_shapes", text, where, trusted, shapes=dict(shapes))
        every = [(Output(node), by_name.get(node.name)) for node in graph.nodes if node.is_variable]
        every += list(zip(outputs, found))
        inferred.append({output: tuple(shape) for output, shape in every if shape and 0 not in shape})
    return inferred


def listed_outputs(graph: SymbolGraph, where: str, *, trusted: bool = False) -> list[str]:
    """What MXNet calls the outputs of a graph: ``fc_output``, ``split_output2``, ``data0``.

    Raises ModelError, naming `where`, for a graph that MXNet does not load: an unknown operator, attribute, dtype.
    """
    names: list[str] = call("list_outputs", checked_text(graph, graph.outputs, where), where, trusted)
    return names


def checked_text(graph: SymbolGraph, outputs: Iterable[Output], where: str) -> str:
    """The JSON of the part of a graph that computes these outputs, for mxnet; raises ModelError where it could harm."""
    part = graph.part(outputs)
    check_symbol(part, where)
    return part.to_json()


def _tensors(graph: SymbolGraph) -> list[Output]:
    """Every operator's first output and every other one that is read."""
    first = [Output(node) for node in graph.nodes if not node.is_variable]
    read = [entry for node in graph.nodes for entry in node.inputs if not entry.node.is_variable]
    return list(dict.fromkeys([*first, *read, *(entry for entry in graph.outputs if not entry.node.is_variable)]))


def all_shapes(model: Model, shapes: Mapping[str, Shape] | None = None) -> dict[Output, Axes]:
    """The shapes of all tensors: for `shapes` of inputs, of a BERT of one of them, or with free axes without any.

    Raises UsageError for an input that the graph does not have, and ModelError for shapes that don't fit.
    """
    known = [*model.inputs, *model.label_inputs]
    for name in shapes or {}:
        if name not in known:
            raise UsageError(f"{model.name} has no input {name!r}; its inputs are {', '.join(known)}")
    if not shapes:
        return known_shapes(model)
    given = {**model.param_shapes, **_with_others(model, shapes)}
    return {**tensor_shapes(model.graph, given, model.name, trusted=model.trusted)}


def _with_others(model: Model, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of the other inputs of a BERT follow from those that are given."""
    found, encoder = dict(shapes), model.encoder
    if encoder is None:
        return found
    matrices = [name for name in (encoder.token_ids, encoder.token_types) if name]
    batch = next((shapes[name][0] for name in (*matrices, encoder.valid_length) if name and name in shapes), 2)
    length = fixed_length(model) or min(16, encoder.max_length or 16)
    sizes = next((shapes[name] for name in matrices if name in shapes), (batch, length))
    for name in matrices:
        found.setdefault(name, sizes)
    if encoder.valid_length:
        found.setdefault(encoder.valid_length, sizes[:1])
    return found


def known_shapes(
    model: Model, shapes: Mapping[str, Shape] | None = None, outputs: Sequence[Output] | None = None
) -> dict[Output, Axes]:
    """The shapes of tensors with free axes, of a BERT or a part of one, or those for given `shapes` of the inputs.

    With `outputs`, those of the tensors that these depend on, and their own.
    """
    if model.encoder is not None or (not shapes and input_axes(model)):
        return free_shapes(model, outputs)
    graph = _part(model.graph, outputs)
    known = {**model.param_shapes, **(shapes or {})}
    return {**tensor_shapes(graph, known, model.name, outputs or (), trusted=model.trusted)}


def input_axes(model: Model) -> dict[str, Axes]:
    """The shapes of a BERT's inputs, or of a part of one as its signature lists them, by name."""
    encoder = model.encoder
    if encoder is None:
        from_signature = {
            output.node.name: axes for output, axes in model.signature_axes.items() if output.node.is_variable
        }
        return {**from_signature, **model.known_axes}
    axes = {name: (BATCH, LENGTH) for name in (encoder.token_ids, encoder.token_types) if name}
    return {**axes, encoder.valid_length: (BATCH,)} if encoder.valid_length else {**axes}


def sizes_of(axes: Axes, batch: int, length: int) -> Shape | None:
    """The sizes of axes for a batch size and a length; None where an axis is another one."""
    sizes = []
    for axis in axes:
        parts = [{BATCH: str(batch), LENGTH: str(length)}.get(part, part) for part in str(axis).split("*")]
        if not all(part.isdecimal() for part in parts):
            return None
        sizes.append(math.prod(map(int, parts)))
    return tuple(sizes)


def free_shapes(model: Model, outputs: Sequence[Output] | None = None) -> dict[Output, Axes]:
    """The shapes of all tensors of a BERT, free axes as ``N`` and ``T``: ``(N, T, 768)``, ``(12*N, T, T)``.

    Or of a part of one, whose inputs its signature lists. With `outputs`, of the tensors that these depend on: a
    classifier that locks the length is then left out. MXNet infers them twice, for two batch sizes and lengths;
    what changes with them is free. Where the free axes are unknown, the result is empty.
    """
    axes = input_axes(model)
    if not axes:
        return {}
    fixed = fixed_length(model, outputs)
    longest = model.encoder.max_length if model.encoder is not None else None
    if longest is not None and longest < max(length for _, length in _PROBES):
        fixed = fixed or longest
    # What other inputs reach has no shape, and some operators don't bear that.
    others = [name for name in model.inputs if name not in axes]
    unknown = model.graph.descendants(*(model.graph.variable(name) for name in others))
    part = _part(model.graph, outputs)
    nodes = [node for node in part.nodes if node not in unknown]
    graph = SymbolGraph(nodes, (entry for entry in part.outputs if entry.node not in unknown), part.document)
    probes: list[dict[str, Shape]] = []
    for batch, length in _PROBES:
        sizes = {name: sizes_of(shape, batch, fixed or length) for name, shape in axes.items()}
        probes.append({**model.param_shapes, **{name: size for name, size in sizes.items() if size is not None}})
    one, other = _infer(graph, probes, model.name, graph.outputs, trusted=model.trusted)
    return {output: _free(one[output], other[output]) for output in one if output in other}


def _part(graph: SymbolGraph, outputs: Sequence[Output] | None) -> SymbolGraph:
    """The part of a graph that computes outputs; for a variable all of it, since its readers determine its shape."""
    if outputs is None or any(output.node.is_variable for output in outputs):
        return graph
    return graph.part(outputs)


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


def fixed_length(model: Model, outputs: Sequence[Output] | None = None) -> int | None:
    """The only length that a BERT's graph takes, because it was written into it or by its classifier's weight.

    With `outputs`, of the part of the graph that these depend on.
    """
    encoder = model.encoder
    if encoder is None:
        return None
    part = set(_part(model.graph, outputs).nodes)
    locked = [report.locked_length for report in model.classifier_reports if report.classifier in part]
    return next((length for length in (encoder.length, *locked) if length), None)
