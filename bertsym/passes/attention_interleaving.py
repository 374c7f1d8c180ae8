"""Let int8 encoders compute attention by MXNet's interleaved operators, whose heads need not be transposed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bertsym.analysis.detected_encoder import Layer
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.array import Array
from bertsym.encoders.folding import PARTS, interleave_heads, is_folded
from bertsym.errors import ModelError
from bertsym.symbol.attributes import integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import flag_of
from bertsym.symbol.quantized_layers import FUSED, QUANTIZE, FusedLayer

_QK, _VALUES = "_contrib_interleaved_matmul_selfatt_qk", "_contrib_interleaved_matmul_selfatt_valatt"
_SWAPPED = {"axes": "(1, 0, 2)"}  # (N, T, U) and (T, N, U)
#: operators of a layer that compute the same on (T, N, U), apart from attention
_ELEMENTWISE = frozenset({QUANTIZE, FUSED, "FullyConnected", "elemwise_add", "LayerNorm", "LeakyReLU", "Activation"})
_ATTENTION = {"slice_axis": 3, "Reshape": 9, "transpose": 4, "batch_dot": 2, "softmax": 1}


@dataclass(frozen=True)
class InterleavedAttention:
    """The parameters of a graph whose attention was interleaved."""

    heads: int
    derived: Mapping[str, str]  #: new parameter -> the folded one of which it is computed

    def parameters(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the new parameters: rows head by head, those of the query without their scale.

        MXNet's operator divides the scores itself.
        """
        return {new: self._interleaved(params[old]) for new, old in self.derived.items()}

    def _interleaved(self, array: Array) -> Array:
        query, *others = np.split(array, len(PARTS))
        return interleave_heads([query * np.float32(np.sqrt(len(query) // self.heads)), *others], self.heads)


def interleave_attention(graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]]) -> InterleavedAttention:
    """Compute the first layers on (T, N, U), with interleaved attention, for inference, in place.

    They are those whose query, key and value are one product, in float32 or in int8 with a scale for each output.
    `shapes` are the shapes of the parameters. Raises ModelError for a graph without a BERT encoder, where no layer can
    be changed, and where a changed layer is read inside.
    """
    encoder = require_encoder(graph, shapes)
    changed: list[tuple[Layer, _Attention]] = []
    for layer in encoder.layers:
        attention = _find_attention(graph, layer)
        if attention is None:
            break
        changed.append((layer, attention))
    if not changed:
        raise ModelError("no layer can compute interleaved attention")
    layers = [layer for layer, _ in changed]
    for output, reader in zip((encoder.embedding_output, *(layer.output for layer in layers)), layers):
        _check_readers(graph, output, reader)
    derived: dict[str, str] = {}
    with graph.edit():
        graph.insert_after(encoder.embedding_output, "transpose", "interleaved_embeddings", _SWAPPED)
        graph.insert_after(layers[-1].output, "transpose", "interleaved_layers", _SWAPPED)
        for _, attention in changed:
            _replace(graph, attention, derived)
        graph.cleanup()
    return InterleavedAttention(changed[0][1].heads, derived)


@dataclass(frozen=True)
class _Attention:
    """Nodes of a layer's attention."""

    heads: int
    product: Node  #: query, key and value
    scores: Node
    softmax: Node
    context: Node  #: the encodings of all heads, (N, T, U)


def _find_attention(graph: SymbolGraph, layer: Layer) -> _Attention | None:
    """Find the attention of a layer in the form that `quantize` writes; None for any other."""
    added = layer.softmax.inputs[0].node
    scores = added.inputs[0].node if added.op == "elemwise_add" else added
    context = _only_reader(graph, layer.softmax, "Reshape", "batch_dot")
    joined = _only_reader(graph, context, "Reshape", "transpose", "Reshape") if context is not None else None
    if layer.num_heads is None or layer.first_only or context is None or joined is None or scores.op != "batch_dot":
        return None
    slices = [_above(entry.node) for entry in (*scores.inputs, context.inputs[1])]
    products = {part.inputs[0].node for part in slices if part is not None}
    if len(products) != 1 or None in slices or len(set(slices)) != len(PARTS):
        return None
    (product,) = products
    begins = [integer(part.attrs, "begin", -1) for part in slices if part is not None]
    others = Counter(node.op for node in layer.nodes if node.op not in _ELEMENTWISE)
    plain = others == _ATTENTION and all(map(_keeps_layout, layer.nodes))
    if begins != sorted(begins) or not plain or not _is_folded(product):
        return None
    return _Attention(layer.num_heads, product, scores, layer.softmax, joined)


def _is_folded(product: Node) -> bool:
    has_scales = product.op == "FullyConnected" or len(product.inputs) == 5  # not one scale for all of them
    return has_scales and is_folded([product.inputs[1].node.name])


def _keeps_layout(node: Node) -> bool:
    """Whether an operator computes the same on (T, N, U), with its axes exchanged."""
    if node.op == "LayerNorm":
        return node.attrs.get("axis", "-1") == "-1"
    operators = FusedLayer.of(node).operators if node.op == FUSED else [node]
    return operators[0].op != "FullyConnected" or not flag_of(operators[0], "flatten")


def _only_reader(graph: SymbolGraph, node: Node, *operators: str) -> Node | None:
    """Follow a chain of operators, each the only reader of the one before."""
    for operator in operators:
        readers = graph.consumers(node)
        if [reader.op for reader in readers] != [operator]:
            return None
        (node,) = readers
    return node


def _above(node: Node) -> Node | None:
    """Return the slice whose heads were separated as `node`; None for other operators."""
    for operator in ("Reshape", "transpose", "Reshape"):
        if node.op != operator:
            return None
        node = node.inputs[0].node
    return node if node.op == "slice_axis" and node.attrs.get("axis") == "2" else None


def _check_readers(graph: SymbolGraph, output: Output, layer: Layer) -> None:
    """Raise ModelError if more than a layer, and the rounding of its data, reads an output."""
    others = [node for node in graph.consumers(output) if node not in layer.nodes and node.op != QUANTIZE]
    if others or output in graph.outputs:
        raise ModelError(f"{output} is read outside of the next layer")


def _replace(graph: SymbolGraph, attention: _Attention, derived: dict[str, str]) -> None:
    product, variables = attention.product, {node.name: node for node in graph.nodes if node.is_variable}
    inputs = list(product.inputs)
    for slot in (1, 2):
        old = inputs[slot].node.name
        new = f"{old}: interleaved"  # no parameter of a file has such a name
        derived[new] = old
        inputs[slot] = Output(variables.get(new) or graph.add_variable(new))
    graph.set_inputs(product, inputs)
    heads = {"heads": str(attention.heads)}
    scores = graph.add(_QK, f"{attention.scores.name}_interleaved", [product], heads)
    graph.rewire(attention.scores, scores)
    context = graph.add(_VALUES, f"{attention.context.name}_interleaved", [product, attention.softmax], heads)
    graph.rewire(attention.context, context)
