"""What a variable is for: an input, a label, a parameter, or a state that an operator changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from symbol_values import BERTS, FILES, OTHERS, expected, label, load

from bertsym import ParamsFile
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.variable_roles import auxiliary_states, input_variables, label_variables

# File -> inputs and labels of tests/symbols/mxnet-*.
ROLES: dict[str, tuple[list[str], list[str]]] = {
    "lstm": (["data"], ["softmax_label"]),
    "lstm_fused": (["data", "state", "state_cell"], []),
    "lstm_gluon": (["data", "hidden", "cell"], []),
    "multi": (["data", "scale"], []),
    "numpy_shape": (["data"], []),
    "resnet50": (["data"], []),
    "ssd": (["data"], ["label"]),
}


def graph_of(symbol: Any) -> SymbolGraph:
    return SymbolGraph.parse(symbol.tojson())


def var(*names: str) -> list[Any]:
    return [mx.sym.var(name) for name in names]


# The symbols of all versions


@pytest.mark.parametrize("path", OTHERS, ids=label)
def test_inputs_and_labels_are_found_without_a_parameter_file(path: Path) -> None:
    graph = SymbolGraph.load(path)
    inputs, labels = ROLES[path.stem]
    assert input_variables(graph) == [name for name in inputs if name in graph.variables]
    assert label_variables(graph) == labels


@pytest.mark.parametrize("path", BERTS, ids=label)
def test_the_inputs_of_a_bert_are_found_with_and_without_its_parameters(path: Path) -> None:
    graph = SymbolGraph.load(path)
    reads = expected(path)["reads"]
    assert set(input_variables(graph)) == {*reads}
    assert input_variables(graph, ParamsFile(path.parent / "weights-0000.params")) == input_variables(graph)
    assert label_variables(graph) == auxiliary_states(graph) == []


@pytest.mark.parametrize("path", FILES, ids=label)
def test_auxiliary_states_are_those_that_mxnet_lists(path: Path) -> None:
    symbol: Any = load(path.read_text())
    assert auxiliary_states(SymbolGraph.load(path)) == symbol.list_auxiliary_states()


# One operator at a time


@pytest.mark.parametrize(
    "symbol",
    [
        lambda x: mx.sym.BatchNorm(x, name="n"),
        lambda x: mx.sym.BatchNorm_v1(x, name="n"),
        lambda x: mx.sym.contrib.BatchNormWithReLU(x, name="n"),
        lambda x: mx.sym.contrib.SyncBatchNorm(x, key="k", ndev=1, name="n"),
        lambda x: mx.sym.IdentityAttachKLSparseReg(x, name="n"),
    ],
)
def test_a_variable_that_an_operator_changes_is_an_auxiliary_state(symbol: Any) -> None:
    made = symbol(mx.sym.var("x"))
    graph = graph_of(made)
    assert auxiliary_states(graph) == made.list_auxiliary_states() != []
    assert input_variables(graph) == ["x"]
    renamed = {name: f"odd {i}" for i, name in enumerate(graph.variables) if name != "x"}
    graph.rename(renamed)
    assert input_variables(graph) == ["x"]


def test_an_auxiliary_state_that_is_also_read_elsewhere_is_one() -> None:
    x, mean = var("x", "mean")
    symbol = mx.sym.Group([mx.sym.exp(mean), mx.sym.BatchNorm(x, moving_mean=mean, name="n")])
    assert auxiliary_states(graph_of(symbol)) == symbol.list_auxiliary_states() == ["mean", "n_moving_var"]


@pytest.mark.parametrize(
    "loss",
    [
        "SoftmaxOutput",
        "LinearRegressionOutput",
        "LogisticRegressionOutput",
        "MAERegressionOutput",
        "SVMOutput",
        "softmax_cross_entropy",
        "CTCLoss",
    ],
)
def test_a_loss_has_a_label(loss: str) -> None:
    data, target = var("data", "target")
    graph = graph_of(getattr(mx.sym, loss)(data, target, name="loss"))
    assert label_variables(graph) == ["target"]
    assert input_variables(graph) == ["data"]


def test_a_label_may_be_reshaped_on_its_way_but_not_computed_with() -> None:
    data, target, weight = var("data", "target", "scale")
    reshaped = mx.sym.Cast(mx.sym.Reshape(mx.sym.transpose(target), shape=(-1,)), dtype="int32")
    assert label_variables(graph_of(mx.sym.SoftmaxOutput(data, reshaped))) == ["target"]
    scaled = graph_of(mx.sym.SoftmaxOutput(data, mx.sym.broadcast_mul(reshaped, weight)))
    assert label_variables(scaled) == []
    assert input_variables(scaled) == ["data", "target", "scale"]


def test_a_variable_that_is_read_as_label_and_as_data_is_an_input() -> None:
    data, target = var("data", "target")
    both = mx.sym.SoftmaxOutput(mx.sym.broadcast_add(data, target), target)
    assert label_variables(graph_of(both)) == []
    reshaped = mx.sym.Reshape(target, shape=(-1,))
    both = mx.sym.Group([mx.sym.SoftmaxOutput(data, reshaped), mx.sym.exp(reshaped)])
    assert label_variables(graph_of(both)) == []
    assert input_variables(graph_of(both)) == ["data", "target"]


def test_a_reshaped_variable_that_nothing_reads_does_not_count_as_a_label() -> None:
    graph = graph_of(mx.sym.Reshape(mx.sym.var("x"), shape=(-1,)))
    assert label_variables(graph) == []
    assert input_variables(graph) == ["x"]


@pytest.mark.parametrize(
    ("symbol", "inputs"),
    [
        (lambda a, b, c: mx.sym.FullyConnected(a, b, c, num_hidden=2), ["a"]),
        (lambda a, b, c: mx.sym.Convolution(a, b, c, kernel=(1, 1), num_filter=2), ["a"]),
        (lambda a, b, c: mx.sym.Deconvolution(a, b, kernel=(1, 1), num_filter=2) + c, ["a", "c"]),
        (lambda a, b, c: mx.sym.LayerNorm(a, b, c), ["a"]),
        (lambda a, b, c: mx.sym.GroupNorm(a, b, c), ["a"]),
        (lambda a, b, c: mx.sym.InstanceNorm(a, b, c), ["a"]),
        (lambda a, b, c: mx.sym.Embedding(a, b, input_dim=2, output_dim=2) + c, ["a", "c"]),
        (lambda a, b, c: mx.sym.RNN(a, b, c, state_size=2, num_layers=1, mode="gru"), ["a", "c"]),
        (lambda a, b, c: mx.sym.LeakyReLU(a, b, act_type="prelu") + c, ["a", "c"]),
        (lambda a, b, c: mx.sym.FullyConnected(a, b, c, num_hidden=2) + b, ["a", "b"]),
        (lambda a, b, c: mx.sym.FullyConnected(a, b * c, no_bias=True, num_hidden=2), ["a", "b", "c"]),
    ],
)
def test_the_position_at_which_a_variable_is_read_makes_it_a_parameter(symbol: Any, inputs: list[str]) -> None:
    graph = graph_of(symbol(*var("a", "b", "c")))
    assert sorted(input_variables(graph)) == inputs


@pytest.mark.parametrize("name", ["my_weight", "my_bias", "my_gamma", "my_beta", "my_moving_mean", "my_moving_var"])
def test_a_parameter_that_is_computed_with_is_known_by_its_name(name: str) -> None:
    a, b = var("a", name)
    assert input_variables(graph_of(mx.sym.dot(a, mx.sym.Reshape(b, shape=(2, -1))))) == ["a"]


def test_variables_in_a_parameter_file_are_not_inputs() -> None:
    a, b = var("a", "position")
    graph = graph_of(mx.sym.broadcast_add(a, b))
    assert input_variables(graph) == ["a", "position"]
    assert input_variables(graph, {"position": (1, 2)}) == ["a"]
    assert input_variables(graph, ["a", "position"]) == []
