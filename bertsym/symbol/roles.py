"""What a variable is for, told by the place at which operators read it."""

from __future__ import annotations

from collections.abc import Container, Mapping

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
_AUXILIARY = dict.fromkeys(("BatchNorm", "BatchNorm_v1", "CuDNNBatchNorm", "_contrib_SyncBatchNorm"), (3, 4))
_PARAMETER_NAMES = ("_weight", "_bias", "_gamma", "_beta", "_moving_mean", "_moving_var")
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


def input_variables(graph: SymbolGraph, parameters: Container[str] = ()) -> list[str]:
    """Variables that are neither labels, nor known to be `parameters`, nor read or named as such.

    GluonNLP reshapes some weights before it uses them, and then only the name tells.
    """
    others = {*label_variables(graph), *_read_at(graph, _PARAMETERS)}
    return [
        name
        for name in graph.variables
        if name not in others and name not in parameters and not name.endswith(_PARAMETER_NAMES)
    ]


def _read_at(graph: SymbolGraph, places: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Variables that are read at these places and at no others."""
    found: dict[str, bool] = {}
    for node in graph.nodes:
        for position, entry in enumerate(node.inputs):
            if entry.node.is_variable:
                there = position in places.get(node.op, ())
                found[entry.node.name] = there and found.get(entry.node.name, True)
    return [name for name in graph.variables if found.get(name)]
