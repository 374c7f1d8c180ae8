"""What a variable is for, told by the place at which operators read it."""

from __future__ import annotations

from collections.abc import Container

from bertsym.symbol.graph import SymbolGraph

# Operator -> positions of its inputs that are parameters; "aux" those that are auxiliary states.
_PARAMETERS: dict[str, tuple[int, ...]] = {
    "BatchNorm": (1, 2, 3, 4),
    "BatchNorm_v1": (1, 2, 3, 4),
    "Convolution": (1, 2),
    "Convolution_v1": (1, 2),
    "CuDNNBatchNorm": (1, 2, 3, 4),
    "Deconvolution": (1, 2),
    "Embedding": (1,),
    "FullyConnected": (1, 2),
    "GroupNorm": (1, 2),
    "InstanceNorm": (1, 2),
    "LayerNorm": (1, 2),
    "LeakyReLU": (1,),
    "RNN": (1,),
    "_contrib_SparseEmbedding": (1,),
    "_contrib_SyncBatchNorm": (1, 2, 3, 4),
}
_AUXILIARY: dict[str, tuple[int, ...]] = {
    name: (3, 4) for name in ("BatchNorm", "BatchNorm_v1", "CuDNNBatchNorm", "_contrib_SyncBatchNorm")
}
#: operators that end a training graph -> position of the label
LABELS = {
    "LinearRegressionOutput": 1,
    "LogisticRegressionOutput": 1,
    "MAERegressionOutput": 1,
    "SVMOutput": 1,
    "SoftmaxOutput": 1,
    "softmax_cross_entropy": 1,
}


def auxiliary_states(graph: SymbolGraph) -> list[str]:
    """Variables that an operator changes, such as BatchNorm's moving mean; ``aux:`` in a parameter file."""
    return _read_at(graph, _AUXILIARY)


def label_variables(graph: SymbolGraph) -> list[str]:
    """Variables that are read as labels only."""
    return _read_at(graph, {op: (position,) for op, position in LABELS.items()})


def input_variables(graph: SymbolGraph, parameters: Container[str] | None) -> list[str]:
    """Variables that are neither parameters nor labels.

    Of `parameters` those are known to be ones; without them (None) a variable is one where every operator
    reads it in a parameter's place, or, directly or reshaped, as a table (`position_weight`).
    """
    labels, places = set(label_variables(graph)), set(_read_at(graph, _PARAMETERS))
    return [
        name
        for name in graph.variables
        if name not in labels
        and name not in places
        and (name not in parameters if parameters is not None else not _looks_like_parameter(graph, name))
    ]


def _looks_like_parameter(graph: SymbolGraph, name: str) -> bool:
    node = next(node for node in graph.nodes if node.is_variable and node.name == name)
    return "__init__" in node.attrs or name.endswith(("_weight", "_bias", "_gamma", "_beta", "_parameters"))


def _read_at(graph: SymbolGraph, places: dict[str, tuple[int, ...]]) -> list[str]:
    """Variables that are read at these places and at no others."""
    found: dict[str, bool] = {}
    for node in graph.nodes:
        for position, entry in enumerate(node.inputs):
            if entry.node.is_variable:
                there = position in places.get(node.op, ())
                found[entry.node.name] = there and found.get(entry.node.name, True)
    return [name for name in graph.variables if found.get(name)]
