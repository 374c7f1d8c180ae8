"""LayerNorm decomposed into operators whose gradients MXNet computes fast on a CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.operator_traits import decimal_of, integer_of


def decompose_layer_norm(graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Replace each LayerNorm over the last axis with matrix products of rank 1 and L2Normalization, in place.

    MXNet 1.9.1's LayerNorm, and sums over a batch, take several times as long backward. `shapes` are the shapes of the
    parameters. The last node keeps the name of the LayerNorm.
    """
    decomposed = 0
    with graph.edit():
        for node in graph.find(op="LayerNorm"):
            along = integer_of(node, "axis") == -1
            gamma = shapes.get(node.inputs[1].node.name)
            mean_unread = all(entry.index == 0 for reader in graph.consumers(node) for entry in reader.inputs)
            if along and gamma is not None and mean_unread:
                _decompose(graph, node, gamma[0])
                decomposed += 1
    return decomposed


def _decompose(graph: SymbolGraph, norm: Node, units: int) -> None:
    source, gamma, beta = norm.inputs
    names = {node.name for node in graph.nodes}

    def add(op: str, part: str, inputs: list[Node | Output], attrs: Mapping[str, object]) -> Node:
        name = free_name(f"{norm.name}_{part}", names)
        names.add(name)
        return graph.add(op, name, inputs, {key: str(value) for key, value in attrs.items()})

    def product(x: Node | Output, matrix: Node, columns: int, part: str) -> Node:
        attrs = {"flatten": False, "no_bias": True, "num_hidden": columns}
        return add("FullyConnected", part, [x, matrix], attrs)

    def column(vector: Output, part: str) -> Node:
        return add("Reshape", part, [vector], {"shape": (units, 1)})

    rows = add("Reshape", "rows", [source], {"shape": (-1, units)})
    mean = product(rows, add("_full", "average", [], {"shape": (1, units), "value": 1 / units}), 1, "mean")
    spread = product(mean, add("_ones", "spread", [], {"shape": (units, 1)}), units, "mean_spread")
    centred = add("elemwise_sub", "centred", [rows, spread], {})
    # sqrt(sum(x^2) + U eps) = sqrt(U) sqrt(mean(x^2) + eps)
    eps = units * decimal_of(norm, "eps")
    normal = add("L2Normalization", "normal", [centred], {"eps": eps, "mode": "instance"})
    ones = add("ones_like", "ones", [mean], {})
    scale = add("_mul_scalar", "gamma_scaled", [column(gamma, "gamma_column")], {"scalar": math.sqrt(units)})
    scaled = add("elemwise_mul", "scaled", [normal, product(ones, scale, units, "gamma_rows")], {})
    shift = product(ones, column(beta, "beta_column"), units, "beta_rows")
    shifted = add("elemwise_add", "shifted", [scaled, shift], {})
    graph.replace(norm, "reshape_like")
    graph.set_inputs(norm, [shifted, source])
