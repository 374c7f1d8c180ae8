"""Fold the projections of query, key and value of a layer into one FullyConnected, with the scale of the queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.analysis.detected_encoder import DetectedEncoder, Layer
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.folding import FOLDED_NAME, PARTS, is_folded, query_scale
from bertsym.errors import ModelError
from bertsym.symbol.attributes import integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.operator_traits import decimal_of, flag_of
from bertsym.symbol.params import shapes_of


@dataclass(frozen=True)
class QkvFolding:
    """A folded graph's parameters."""

    layers: int  #: number of layers that were folded
    arg_params: dict[str, Array]  #: the parameters that the graph reads: old ones, not copied, and new ones


def fold_qkv(graph: SymbolGraph, arg_params: Mapping[str, Array], encoder: DetectedEncoder | None = None) -> QkvFolding:
    """Replace the FullyConnecteds of query, key and value of each layer with one, for inference, in place.

    Three products with (U, U) weights become one with a (3U, U) weight and three slices. A multiplication by a
    number after one of them goes into its rows of weight and bias. A layer that computes position 0 alone reads two
    tensors and stays as it is. New parameters are float32, as `arg_params` must be. `encoder` is
    the encoder in `graph` if it was detected before.

    Raises ModelError for a graph without a BERT encoder, and when no layer can be folded.
    """
    arrays = dict(arg_params)
    encoder = encoder or require_encoder(graph, shapes_of(arg_params))
    with graph.edit():
        layers = sum(_fold_layer(graph, arrays, layer) for layer in encoder.layers)
        if not layers:
            raise ModelError("nothing to fold: no layer has a FullyConnected each for query, key and value")
        graph.cleanup()
        graph.toposort()
    variables = set(graph.variables)
    return QkvFolding(layers, {name: array for name, array in arrays.items() if name in variables})


def unfold_qkv(graph: SymbolGraph, config: BertConfig) -> int:
    """Replace each FullyConnected that `fold_qkv` made with those of query, key and value, in place.

    Returns their number. They read parameters with the names that `unfold_parameters` gives to the parts of the folded
    ones; the query is then divided by `query_scale`.
    """
    folded = [node for node in graph.find(op="FullyConnected") if is_folded([node.inputs[1].node.name])]
    with graph.edit():
        for node in folded:
            parts = sorted(graph.consumers(node), key=lambda part: integer(part.attrs, "begin", 0))
            if [part.op for part in parts] != ["slice_axis"] * len(PARTS):
                raise ModelError(f"node {node.name!r} ({node.op}) is not read as query, key and value")
            for name, part in zip(PARTS, parts):
                _unfold_part(graph, node, name, part, config)
        graph.cleanup()
    return len(folded)


def _unfold_part(graph: SymbolGraph, folded: Node, name: str, part: Node, config: BertConfig) -> None:
    """Let the readers of a slice of a folded product read a product of its own."""
    known = {node.name: node for node in graph.nodes}
    names = [entry.node.name.replace(FOLDED_NAME, name) for entry in folded.inputs[1:]]
    parameters = [known.get(each) or graph.add_variable(each) for each in names]
    attrs = {"flatten": "False", "num_hidden": str(integer(part.attrs, "end", 0) - integer(part.attrs, "begin", 0))}
    product = graph.add(
        "FullyConnected", free_name(f"{folded.name}_{name}", {*known}), [folded.inputs[0], *parameters], attrs
    )
    if name == "query":
        scalar = {"scalar": str(query_scale(config))}
        product = graph.add("_div_scalar", free_name(f"{product.name}_scaled", {*known}), [product], scalar)
    graph.rewire(part, product)


def _fold_layer(graph: SymbolGraph, arrays: dict[str, Array], layer: Layer) -> bool:
    """Fold one layer, in place; False when it cannot be folded."""
    dense = _products(graph, arrays, layer)
    if dense is None:
        return False
    factors = [_factor(graph, node) for node in dense]
    with graph.edit():
        weight, bias = (
            _concatenate(graph, arrays, [node.inputs[slot].node for node in dense], [scale for _, scale in factors])
            for slot in (1, 2)
        )
        units = [arrays[node.inputs[1].node.name].shape[0] for node in dense]
        names = {node.name for node in graph.nodes}
        name = free_name(_folded_name([node.name for node in dense]), names)
        attrs = {"flatten": "False", "num_hidden": str(sum(units))}
        product = graph.add("FullyConnected", name, [dense[0].inputs[0], weight, bias], attrs)
        for index, (end, _) in enumerate(factors):
            begin = sum(units[:index])
            attrs = {"axis": "2", "begin": str(begin), "end": str(begin + units[index])}
            part = graph.add("slice_axis", free_name(f"{dense[index].name}_part", names), [product], attrs)
            graph.rewire(end, part)
        graph.cleanup()
    return True


def _products(graph: SymbolGraph, arrays: Mapping[str, Array], layer: Layer) -> list[Node] | None:
    """The three FullyConnecteds of a layer that read the same tensor: query, key and value."""
    readers: dict[Output, list[Node]] = {}
    ends = {output.node for output in graph.outputs}
    for node in graph.nodes:
        if node in layer.nodes and node.op == "FullyConnected" and len(node.inputs) == 3:
            readers.setdefault(node.inputs[0], []).append(node)
    for nodes in readers.values():
        shapes = {arrays[node.inputs[1].node.name].shape for node in nodes if node.inputs[1].node.name in arrays}
        plain = all(not flag_of(node, "flatten") for node in nodes)
        known = all(entry.node.name in arrays for node in nodes for entry in node.inputs[1:])
        if len(nodes) == 3 and len(shapes) == 1 and plain and known and not ends & {*nodes}:
            return nodes
    return None


def _factor(graph: SymbolGraph, node: Node) -> tuple[Node, float]:
    """The only reader of a node and its scalar when it is a `_mul_scalar`; else the node itself and 1."""
    readers = graph.consumers(node)
    if len(readers) == 1 and readers[0].op == "_mul_scalar":
        return readers[0], decimal_of(readers[0], "scalar")
    return node, 1.0


def _concatenate(
    graph: SymbolGraph, arrays: dict[str, Array], variables: Sequence[Node], factors: Iterable[float]
) -> Node:
    """Add one variable and one array, concatenated from several arrays that are multiplied by their factors."""
    name = _folded_name([variable.name for variable in variables])
    known = [node for node in graph.nodes if node.name == name and node.is_variable]
    if known:  # layers that share parameters
        return known[0]
    parts = [arrays[variable.name] * np.float32(factor) for variable, factor in zip(variables, factors)]
    arrays[name] = np.concatenate(parts)
    return graph.add_variable(name, {"__shape__": str(arrays[name].shape)})


def _folded_name(names: Sequence[str]) -> str:
    """``cell0_query_weight``, ``cell0_key_weight`` and ``cell0_value_weight`` -> ``cell0_query_key_value_weight``."""
    words = [name.split("_") for name in names]
    if len({len(each) for each in words}) > 1:
        return f"{names[0]}_{FOLDED_NAME}"
    differing = [len({*column}) > 1 for column in zip(*words)]
    if sum(differing) != 1:
        return f"{names[0]}_{FOLDED_NAME}"
    return "_".join(FOLDED_NAME if differs else word for word, differs in zip(words[0], differing))
