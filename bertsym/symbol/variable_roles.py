"""What a variable is for, told by the place at which operators read it."""

from __future__ import annotations

from collections.abc import Container, Mapping

from bertsym.errors import ModelError
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node

# Operator -> positions of its inputs that are parameters or auxiliary states.
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
    "IdentityAttachKLSparseReg": (1,),
    "InstanceNorm": (1, 2),
    "LayerNorm": (1, 2),
    "LeakyReLU": (1,),
    "RNN": (1,),
    "_contrib_BatchNormWithReLU": (1, 2, 3, 4),
    "_contrib_SparseEmbedding": (1,),
    "_contrib_SyncBatchNorm": (1, 2, 3, 4),
    "_npx_batch_norm": (1, 2, 3, 4),
}
#: operator -> positions of the inputs that it changes (FMutateInputs in MXNet's sources)
AUXILIARY = {
    "BatchNorm": (3, 4),
    "BatchNorm_v1": (3, 4),
    "CuDNNBatchNorm": (3, 4),
    "IdentityAttachKLSparseReg": (1,),
    "_contrib_BatchNormWithReLU": (3, 4),
    "_contrib_SyncBatchNorm": (3, 4),
    "_contrib_quantized_batch_norm": (3, 4),
    "_npx_batch_norm": (3, 4),
}
_PARAMETER_NAMES = ("_weight", "_bias", "_gamma", "_beta", "_moving_mean", "_moving_var")
#: operators of training graphs -> position of the label
LABELS = {
    "CTCLoss": 1,
    "LinearRegressionOutput": 1,
    "LogisticRegressionOutput": 1,
    "MAERegressionOutput": 1,
    "SVMOutput": 1,
    "SoftmaxOutput": 1,
    "_contrib_MultiBoxTarget": 1,
    "softmax_cross_entropy": 1,
}
# Operators that a label may pass on its way to the loss.
_LAYOUT = ("Cast", "Flatten", "Reshape", "SwapAxis", "expand_dims", "slice_axis", "squeeze", "transpose")


def auxiliary_states(graph: SymbolGraph) -> list[str]:
    """Variables that an operator changes, such as BatchNorm's moving mean; ``aux:`` in a parameter file.

    MXNet decides by the graph alone: the prefix of a name in a parameter file may be missing or wrong.
    """
    states = {
        node.inputs[position].node
        for node in graph.nodes
        for position in AUXILIARY.get(node.op, ())
        if position < len(node.inputs)
    }
    return [node.name for node in graph.nodes if node.is_variable and node in states]


def shared_auxiliary_states(graphs: Mapping[str, SymbolGraph]) -> list[str]:
    """The auxiliary states of graphs that share one parameter file; the keys are what messages call them.

    Raises ModelError for a variable that one graph has as an auxiliary state and another as an argument.
    """
    states = {name: auxiliary_states(graph) for name, graph in graphs.items()}
    found = dict.fromkeys(variable for each in states.values() for variable in each)
    for name, graph in graphs.items():
        both = found.keys() & set(graph.variables).difference(states[name])
        if both:
            variable = min(both)
            other = next(other for other in graphs if variable in states[other])
            raise ModelError(
                f"{name}: {variable} is an argument, but an auxiliary state in {other}: one parameter file can't hold "
                "both; rename it in one of the graphs"
            )
    return list(found)


def label_variables(graph: SymbolGraph) -> list[str]:
    """Variables that are read as labels only, by themselves or in another layout."""
    only: dict[Node, bool] = {}
    for node in reversed(graph.nodes):  # readers first
        for position, entry in enumerate(node.inputs):
            there = position == LABELS.get(node.op) or (node.op in _LAYOUT and only.get(node, False))
            only[entry.node] = there and only.get(entry.node, True)
    return [node.name for node in graph.nodes if node.is_variable and only.get(node)]


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
