"""Random inputs that a model accepts, and the check of any other inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.encoders.inputs import check_inputs, check_whole
from bertsym.errors import DataError, UsageError
from bertsym.execution.engines import Shape
from bertsym.execution.shapes import fixed_length, input_axes, sizes_of, tensor_shapes
from bertsym.model import Model
from bertsym.symbol.attributes import integer
from bertsym.symbol.attributes import sizes as declared_sizes
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import TRAITS, Effect, operators_with, traits, with_aliases
from bertsym.symbol.validation import DTYPES

_BATCH, _LENGTH = 2, 16
# Operators that read out of bounds when an input is not an index of another one -> position of that input.
_INDICES = {op: place for op in with_aliases(*TRAITS) if (place := traits(op).indices) is not None}
_LENGTHS = dict.fromkeys(with_aliases("SequenceLast", "SequenceMask", "SequenceReverse"), 1)
_KEEPING = operators_with(Effect.CAST, Effect.RESHAPE, Effect.TRANSPOSE, Effect.CONCATENATE) | with_aliases(
    "broadcast_add", "elemwise_add"
)


class UnknownShapeError(UsageError):
    """The shape of an input is neither in the graph nor given."""


def sample_inputs(
    model: Model,
    shapes: Mapping[str, Shape] | None = None,
    seed: int = 0,
    *,
    needed: Sequence[Output] | None = None,
    length: int | None = None,
) -> dict[str, Array]:
    """Draw random inputs of a model: token ids, token types and lengths of a BERT, normal numbers for other inputs.

    `shapes` are needed for inputs whose shape is not in the graph. Only inputs that the outputs `needed`, by default
    those of the graph, depend on are drawn. `length` is the length of a BERT's texts, unless `shapes` has one.

    Raises UsageError for a shape that an input can't have and for an input that the graph does not have, and
    UnknownShapeError where a shape is missing.
    """
    shapes = dict(shapes or {})
    unknown = [name for name in shapes if name not in model.inputs]
    if unknown:
        raise UsageError(f"{model.name} has no input {unknown[0]!r}; its inputs are {', '.join(model.inputs)}")
    rng = np.random.default_rng(seed)
    outputs = model.graph.outputs if needed is None else needed
    batch, length = _sizes(model, shapes, length, outputs)
    read = model.graph.ancestors(*(output.node for output in outputs))
    names = {node.name for node in read if node.is_variable}
    return {name: _sample(model, name, shapes, batch, length, rng) for name in model.inputs if name in names}


def _sizes(model: Model, shapes: Mapping[str, Shape], length: int | None, outputs: Sequence[Output]) -> tuple[int, int]:
    encoder = model.encoder
    if encoder is None:
        return _BATCH, _LENGTH
    tokens = [name for name in (encoder.token_ids, encoder.token_types) if name]
    lengths = shapes.get(encoder.valid_length or "")
    sizes = next((shapes[name] for name in tokens if name in shapes), None)
    if sizes is None:
        length = length or fixed_length(model, outputs) or min(_LENGTH, encoder.max_length or _LENGTH)
        sizes = ((lengths or (_BATCH,))[0], length)
    wanted: dict[str, Shape] = dict.fromkeys(tokens, sizes)
    wanted[encoder.valid_length or ""] = sizes[:1]
    for name, shape in shapes.items():
        if len(sizes) != 2 or shape != wanted.get(name, shape):
            raise UsageError(f"{name} can't have the shape {shape}: token ids and types are (N, T), lengths (N,)")
    if encoder.max_length is not None and sizes[1] > encoder.max_length:
        raise UsageError(f"{model.name} can't take length {sizes[1]}: it has {encoder.max_length} positions")
    return sizes[0], sizes[1]


def _sample(
    model: Model, name: str, shapes: Mapping[str, Shape], batch: int, length: int, rng: np.random.Generator
) -> Array:
    encoder = model.encoder
    if encoder is not None and name == encoder.token_ids:
        values: Array = rng.integers(encoder.vocab_size or 2, size=(batch, length))
    elif encoder is not None and name == encoder.token_types:
        values = rng.integers(encoder.token_type_vocab_size or 1, size=(batch, length))
    elif encoder is not None and name == encoder.valid_length:
        # A full row, then shorter ones: padding is a part of what is compared.
        values = np.maximum(1, length - np.arange(batch) * (length // 3))
    else:
        node = model.graph.variable(name)
        known = sizes_of(input_axes(model).get(name, ("?",)), _BATCH, _LENGTH)
        shape = shapes.get(name) or declared_sizes(node.attrs, "__shape__") or known
        if shape is None:
            raise UnknownShapeError(f"the shape of {name} is unknown: give it with --shape {name}=2,3,...")
        if _is_index(model.graph, node):
            values = np.zeros(shape)
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
        return values.astype(_dtype(model, node))
    return values.astype(np.float32)


def _dtype(model: Model, node: Node) -> str:
    """What an input carries, or else what all parameters are: float32 but in a model of another precision."""
    declared = DTYPES.get(integer(node.attrs, "__dtype__", -1))
    kinds = {info.dtype for info in model.params.infos.values()} if model.params is not None else set()
    return declared or (next(iter(kinds)) if kinds in ({"<f2"}, {"<f8"}) else "float32")


@dataclass(frozen=True)
class BertLimits:
    """The sizes of the tables of a detected BERT; a size that is not in the graph does not limit the inputs."""

    vocab_size: int
    segments: int
    max_length: int

    @classmethod
    def of(cls, model: Model) -> BertLimits:
        """Those of a model's BERT."""
        encoder = model.encoder
        sizes = (
            (encoder.vocab_size, encoder.token_type_vocab_size, encoder.max_length)
            if encoder is not None
            else (None,) * 3
        )
        return cls(*(size or 1 << 24 for size in sizes))


def check_model_inputs(model: Model, inputs: Mapping[str, Array]) -> None:
    """Raise DataError, naming the input and its first wrong value, unless a forward with these arrays is safe.

    Checks the inputs of a BERT, as `encoders.inputs.check_inputs` does, and positions that index its tokens; of other
    graphs, the lengths.
    """
    encoder, graph = model.encoder, model.graph
    try:
        if encoder is None or encoder.token_ids is None or encoder.token_ids not in inputs:
            shapes = {name: array.shape for name, array in inputs.items()}
            for name in model.inputs:
                high = _longest(model, name, shapes) if name in inputs else None
                if high is not None:
                    check_whole(f"lengths {name}", inputs[name], 1, high)
            return
        ids = inputs[encoder.token_ids]
        types = inputs.get(encoder.token_types or "", np.zeros_like(ids))
        lengths = inputs.get(encoder.valid_length or "", np.full(ids.shape[:1], ids.shape[-1]))
        check_inputs(ids, types, lengths, BertLimits.of(model))
        others = [name for name in model.inputs if name in inputs and name not in encoder.inputs]
        for name in others:
            if _is_index(graph, graph.variable(name)):
                check_whole(f"positions {name}", inputs[name], 0, ids.shape[1] - 1)
    except DataError as error:
        raise DataError(f"{model.name}: {error}") from None


def _is_index(graph: SymbolGraph, node: Node) -> bool:
    """Whether an input holds positions in another tensor, such as the masked positions of a BERT in pretraining."""
    return bool(_readers(graph, node, _INDICES))


def _longest(model: Model, name: str, shapes: Mapping[str, Shape]) -> int | None:
    """The largest length that an input of lengths may hold; None for other inputs.

    MXNet reads and writes out of bounds on a larger length, and on one below 1.
    """
    readers = _readers(model.graph, model.graph.variable(name), _LENGTHS)
    if not readers:
        return None
    known = tensor_shapes(model.graph, {**model.param_shapes, **shapes}, model.name, trusted=model.trusted)
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
