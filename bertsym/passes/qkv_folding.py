"""Fold: query, key and value of a layer as one matrix product, the scale of the queries in its weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bertsym.analysis.encoder_detection import Layer, require_encoder
from bertsym.encoders.folding import JOINED
from bertsym.errors import ModelError
from bertsym.symbol.attributes import decimal, flag
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.params import Array, shapes_of


def fold_qkv(graph: SymbolGraph, params: Mapping[str, Array]) -> tuple[SymbolGraph, dict[str, Array]]:
    """A graph of the same function for inference, and its parameters: those of `params` that it reads, and new ones.

    Of each layer the FullyConnecteds of query, key and value, (U, U) each, become one of (3U, U) and three slices;
    a factor of one of them alone goes into its rows of weight and bias. A layer that asks for position 0 alone reads
    two tensors, and stays as it is. New parameters are float32, as `params` are; nothing of `params` is copied else.

    Raises ModelError for a graph without a BERT, and for one of which no layer has three such products.
    """
    graph = graph.copy()
    bert = require_encoder(graph, shapes_of(params))
    arrays = dict(params)
    joined = [_fold_layer(graph, arrays, layer) for layer in bert.layers]
    if not any(joined):
        raise ModelError("nothing to fold: no layer has a FullyConnected each for query, key and value")
    graph.cleanup()
    graph.toposort()
    variables = set(graph.variables)
    return graph, {name: array for name, array in arrays.items() if name in variables}


def _fold_layer(graph: SymbolGraph, arrays: dict[str, Array], layer: Layer) -> bool:
    """Fold one layer in place; whether there was something to fold."""
    dense = _products(graph, arrays, layer)
    if dense is None:
        return False
    factors = [_factor(graph, node) for node in dense]
    with graph.edit():
        weight, bias = (
            _join(graph, arrays, [node.inputs[place].node for node in dense], [scale for _, scale in factors])
            for place in (1, 2)
        )
        units = [arrays[node.inputs[1].node.name].shape[0] for node in dense]
        names = {node.name for node in graph.nodes}
        name = free_name(_joined_name([node.name for node in dense]), names)
        attrs = {"flatten": "False", "num_hidden": str(sum(units))}
        both = graph.add("FullyConnected", name, [dense[0].inputs[0], weight, bias], attrs)
        for place, (end, _) in enumerate(factors):
            begin = sum(units[:place])
            attrs = {"axis": "2", "begin": str(begin), "end": str(begin + units[place])}
            graph.rewire(end, graph.add("slice_axis", free_name(f"{dense[place].name}_part", names), [both], attrs))
        graph.cleanup()
    return True


def _products(graph: SymbolGraph, arrays: Mapping[str, Array], layer: Layer) -> list[Node] | None:
    """The FullyConnecteds of query, key and value, which are those of a layer that read one tensor."""
    readers: dict[Output, list[Node]] = {}
    for node in graph.nodes:
        if node in layer.nodes and node.op == "FullyConnected" and len(node.inputs) == 3:
            readers.setdefault(node.inputs[0], []).append(node)
    for nodes in readers.values():
        shapes = {arrays[node.inputs[1].node.name].shape for node in nodes if node.inputs[1].node.name in arrays}
        plain = all(not flag(node.attrs, "flatten", True) for node in nodes)
        known = all(entry.node.name in arrays for node in nodes for entry in node.inputs[1:])
        if len(nodes) == 3 and len(shapes) == 1 and plain and known and not set(nodes) & set(map(_end, graph.outputs)):
            return nodes
    return None


def _end(output: Output) -> Node:
    return output.node


def _factor(graph: SymbolGraph, node: Node) -> tuple[Node, float]:
    """The multiplication by a number that alone reads a node, and the number; or the node itself, and 1."""
    readers = graph.consumers(node)
    if len(readers) == 1 and readers[0].op == "_mul_scalar":
        return readers[0], decimal(readers[0].attrs, "scalar", 1.0)
    return node, 1.0


def _join(graph: SymbolGraph, arrays: dict[str, Array], variables: Sequence[Node], factors: Iterable[float]) -> Node:
    """One variable, and one array, of several, each times its factor."""
    name = _joined_name([variable.name for variable in variables])
    known = [node for node in graph.nodes if node.name == name and node.is_variable]
    if known:  # layers that share theirs
        return known[0]
    parts = [arrays[variable.name] * np.float32(factor) for variable, factor in zip(variables, factors)]
    arrays[name] = np.concatenate(parts)
    return graph.add_variable(name, {"__shape__": str(arrays[name].shape)})


def _joined_name(names: Sequence[str]) -> str:
    """``cell0_query_weight``, ``cell0_key_weight`` and ``cell0_value_weight`` -> ``cell0_query_key_value_weight``."""
    words = [name.split("_") for name in names]
    if len({len(each) for each in words}) > 1:
        return f"{names[0]}_{JOINED}"
    differing = [len(set(alike)) > 1 for alike in zip(*words)]
    if sum(differing) != 1:
        return f"{names[0]}_{JOINED}"
    return "_".join(JOINED if differs else word for word, differs in zip(words[0], differing))
