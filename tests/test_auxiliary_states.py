"""Auxiliary states: the graph decides what they are, and every loader of MXNet finds them in what is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import array_names, computed, texts
from conftest import Result
from refusals import refusal
from third_party import checkpoint, save

from bertsym import ModelError, ParamsFile, SymbolGraph, VerificationError
from bertsym.array import Array
from bertsym.bundle import Bundle, file_digest
from bertsym.execution.loaders import LOADERS, check_params, load_c_predictor
from bertsym.mxnet_runtime import mx
from bertsym.symbol.variable_roles import shared_auxiliary_states

Cli = Callable[..., Result]
Forward = Callable[[Path, Mapping[str, Array]], Array]

ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
STATES = {"aux:bn_moving_mean", "aux:bn_moving_var"}


def network(data: Any = None) -> Any:
    net = mx.sym.FullyConnected(mx.sym.var("data") if data is None else data, num_hidden=4, name="fc0")
    net = mx.sym.BatchNorm(net, fix_gamma=False, eps=1e-3, name="bn")
    return mx.sym.FullyConnected(mx.sym.Activation(net, act_type="relu", name="relu"), num_hidden=2, name="fc1")


def network_params() -> dict[str, Array]:
    """Statistics far from 0 and 1, with which MXNet starts where it finds none."""
    rng = np.random.default_rng(1)
    shapes = {"fc0_weight": (4, 3), "fc0_bias": (4,), "bn_gamma": (4,), "bn_beta": (4,)}
    shapes |= {"fc1_weight": (2, 4), "fc1_bias": (2,), "bn_moving_mean": (4,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**arrays, "bn_moving_var": rng.uniform(2, 5, 4).astype(np.float32)}


def in_numpy(params: Mapping[str, Array], rows: Array) -> tuple[Array, Array]:
    """The output of the BatchNorm, and of the network."""
    x = rows.astype(np.float64) @ params["fc0_weight"].T + params["fc0_bias"]
    x = (x - params["bn_moving_mean"]) / np.sqrt(params["bn_moving_var"] + 1e-3)
    x = x * params["bn_gamma"] + params["bn_beta"]
    return x, np.maximum(x, 0) @ params["fc1_weight"].T + params["fc1_bias"]


# How programs store the kinds of parameters: by the graph, not at all, and wrong.
STORED: dict[str, Callable[[str], str]] = {
    "export": lambda name: f"aux:{name}" if "moving" in name else f"arg:{name}",
    "no kinds": lambda name: name,
    "all arguments": lambda name: f"arg:{name}",
    "all states": lambda name: f"aux:{name}",
}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """PREFIX of the network, with files of its parameters in each way of STORED beside it."""
    network().save(str(tmp_path / "net-symbol.json"))
    for how, name_of in STORED.items():
        arrays = {name_of(name): mx.nd.array(array) for name, array in network_params().items()}
        mx.nd.save(str(tmp_path / f"{how}.params"), arrays)
    return tmp_path / "net"


# MXNet's own loaders, as its users call them


def through_module(prefix: Path, inputs: Mapping[str, Array]) -> Array:
    symbol, arguments, states = mx.model.load_checkpoint(str(prefix), 0)
    module = mx.mod.Module(symbol, data_names=list(inputs), label_names=None)
    module.bind([(name, array.shape) for name, array in inputs.items()], for_training=False)
    module.set_params(arguments, states)
    module.forward(mx.io.DataBatch([mx.nd.array(array) for array in inputs.values()]), is_train=False)
    output: Array = module.get_outputs()[0].asnumpy()
    return output


def through_symbol_block(prefix: Path, inputs: Mapping[str, Array]) -> Array:
    block = mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", list(inputs), f"{prefix}-0000.params", ctx=mx.cpu())
    output: Array = block(*(mx.nd.array(array) for array in inputs.values())).asnumpy()
    return output


def through_c_predict(prefix: Path, inputs: Mapping[str, Array]) -> Array:
    symbol, params = Path(f"{prefix}-symbol.json").read_text(), ParamsFile(f"{prefix}-0000.params")
    return load_c_predictor(symbol, params, inputs, ())(inputs)[0]


USERS: dict[str, Forward] = {
    "Module": through_module,
    "SymbolBlock": through_symbol_block,
    "C predict API": through_c_predict,
}


def assert_loads(prefix: Path, expected: Array, inputs: Mapping[str, Array] | None = None) -> None:
    """Every loader computes `expected`, within a millionth of its scale."""
    for name, forward in USERS.items():
        found = forward(prefix, inputs or {"data": ROWS})
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max(), name


# Writing


@pytest.mark.parametrize("stored", STORED)
def test_the_graph_decides_the_kind_of_a_parameter_whatever_its_file_says(
    cli: Cli, net: Path, tmp_path: Path, stored: str
) -> None:
    params, out = tmp_path / f"{stored}.params", tmp_path / "out"
    done = cli("edit", net, out, "--rename", "fc1=scores", "--params", params, "--shape", "data=5,3")
    assert done.code == 0, done.err
    assert ", verified" in done.out
    assert {name for name in array_names(out) if name.startswith("aux:")} == STATES
    assert_loads(out, in_numpy(network_params(), ROWS)[1])
    assert "equal results through Module, SymbolBlock, C predict API" in done.out
    note = {
        "all arguments": "stored as arg:, but auxiliary states of the graph: bn_moving_mean, bn_moving_var",
        "all states": "stored as aux:, but arguments of the graph: fc0_weight, fc0_bias, bn_gamma",
    }.get(stored, "")
    assert note in done.err
    assert bool(done.err) == bool(note)


WRITERS = {
    "extract": ("extract", "--output", "bn"),
    "edit --params": ("edit",),
    "graft --head none": ("graft", "--head", "none"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_command_writes_auxiliary_states_as_such(cli: Cli, net: Path, tmp_path: Path, writer: str) -> None:
    command, *arguments = WRITERS[writer]
    shared = ("--params", tmp_path / "no kinds.params", "--shape", "data=5,3")
    done = cli(command, net, tmp_path / "out", *arguments, *shared)
    assert done.code == 0, done.err
    assert array_names(tmp_path / "out") > STATES
    normalised, scores = in_numpy(network_params(), ROWS)
    expected = {"extract": normalised, "graft --head none": np.maximum(normalised, 0)}.get(writer, scores)
    assert_loads(tmp_path / "out", expected)


def test_a_grafted_head_trains_on_a_graph_with_auxiliary_states(cli: Cli, net: Path, tmp_path: Path) -> None:
    shared = ("--params", tmp_path / "no kinds.params", "--shape", "data=5,3")
    done = cli("graft", net, tmp_path / "out", "--head", "regression", "--at", "relu", *shared)
    assert done.code == 0, done.err
    symbol = mx.sym.load(f"{tmp_path / 'out'}-train-symbol.json")
    _, arguments, states = mx.model.load_checkpoint(str(tmp_path / "out"), 0)
    module = mx.mod.Module(symbol, data_names=["data"], label_names=["regression_label"])
    module.bind([("data", ROWS.shape)], [("regression_label", (5, 1))])
    module.set_params(arguments, states)
    module.init_optimizer()
    params = network_params()
    mean = (ROWS @ params["fc0_weight"].T + params["fc0_bias"]).mean(axis=0)
    for _ in range(2):
        module.forward_backward(mx.io.DataBatch([mx.nd.array(ROWS)], [mx.nd.ones((5, 1))]))
        module.update()
    mx.nd.waitall()
    moved = module.get_params()[1]["bn_moving_mean"].asnumpy()
    assert (np.abs(moved - mean) < 0.9 * np.abs(params["bn_moving_mean"] - mean)).all()


def test_a_bert_with_a_batch_norm_after_it_is_lowered(cli: Cli, tmp_path: Path) -> None:
    def normalise(graph: SymbolGraph) -> None:
        states = [graph.add_variable(f"bn_{name}") for name in ("gamma", "beta", "moving_mean", "moving_var")]
        end = graph.add("BatchNorm", "bn", [graph.outputs[0], *states], {"fix_gamma": "False"}, num_outputs=3)
        graph.set_outputs([end])

    source = checkpoint(tmp_path / "bert", normalise)
    arrays = {
        f"arg:bn_{name}": mx.nd.random.uniform(1, 2, (8,)) for name in ("gamma", "beta", "moving_mean", "moving_var")
    }
    mx.nd.save(f"{source}-0000.params", {**mx.nd.load(f"{source}-0000.params"), **arrays})
    done = cli("lower", source, tmp_path / "out", "--form", "gluonnlp")
    assert done.code == 0, done.err
    assert array_names(tmp_path / "out") > STATES
    inputs = texts()
    assert_loads(tmp_path / "out", computed(tmp_path / "out", inputs)[0], inputs)


def test_a_state_that_is_extracted_without_its_operator_is_an_argument(cli: Cli, tmp_path: Path) -> None:
    params, data = network_params(), mx.sym.var("data")
    net = network(data)
    mean = next(each for each in net.get_internals() if each.name == "bn_moving_mean")
    added = mx.sym.broadcast_add(mx.sym.slice_axis(data, axis=1, begin=0, end=1), mean, name="added")
    weight = next(each for each in net.get_internals() if each.name == "fc0_weight")
    dense = mx.sym.FullyConnected(data, weight, mean, num_hidden=4, name="dense")
    mx.sym.Group([net, dense, added]).save(str(tmp_path / "net-symbol.json"))
    arrays = {STORED["export"](name): mx.nd.array(array) for name, array in params.items()}
    mx.nd.save(str(tmp_path / "net-0000.params"), arrays)
    done = cli("extract", tmp_path / "net", tmp_path / "dense", "--output", "dense", "--shape", "data=5,3")
    assert done.code == 0, done.err
    assert array_names(tmp_path / "dense") == {"arg:fc0_weight", "arg:bn_moving_mean"}
    assert_loads(tmp_path / "dense", ROWS @ params["fc0_weight"].T + params["bn_moving_mean"])
    # Its shape followed from the BatchNorm alone.
    done = cli("extract", tmp_path / "net", tmp_path / "added", "--output", "added", "--shape", "data=5,3")
    assert "not loaded through Module" in done.err
    assert "bn_moving_mean" in done.err
    assert "equal results through SymbolBlock" in done.out
    assert array_names(tmp_path / "added") == {"arg:bn_moving_mean"}


def test_auxiliary_states_of_other_operators_are_written(cli: Cli, tmp_path: Path) -> None:
    symbol = mx.sym.IdentityAttachKLSparseReg(mx.sym.sigmoid(mx.sym.var("data")), name="sparse")
    graph = SymbolGraph.parse(symbol.tojson())
    source = save(tmp_path / "net", graph, {"sparse_moving_avg": np.full(3, 0.5, np.float32)})
    done = cli("edit", source, tmp_path / "out", "--rename", "sparse=out", "--shape", "data=5,3")
    assert done.code == 0, done.err
    assert array_names(tmp_path / "out") == {"aux:sparse_moving_avg"}
    assert_loads(tmp_path / "out", 1 / (1 + np.exp(-ROWS.astype(np.float64))))


def test_a_variable_that_is_argument_and_auxiliary_state_is_refused() -> None:
    state = mx.sym.var("bn_moving_mean")
    as_argument = SymbolGraph.parse(mx.sym.exp(state, name="e").tojson())
    as_state = SymbolGraph.parse(network().tojson())
    assert shared_auxiliary_states({"a": as_argument}) == []
    assert shared_auxiliary_states({"a": as_state, "b": as_state}) == ["bn_moving_mean", "bn_moving_var"]
    with pytest.raises(
        ModelError, match=r"^one: bn_moving_mean is an argument, but an auxiliary state in two: .* rename"
    ):
        shared_auxiliary_states({"one": as_argument, "two": as_state})


# Verification sees wrong kinds


@pytest.mark.parametrize("stored", ["all arguments", "all states", "no kinds"])
def test_a_file_whose_kinds_are_not_those_of_the_graph_is_refused_by_the_check(
    net: Path, tmp_path: Path, stored: str
) -> None:
    symbol, params = network().tojson(), ParamsFile(tmp_path / f"{stored}.params")
    with pytest.raises(VerificationError, match=r"it: MXNet needs (arg|aux):\w+"):
        check_params(symbol, "it", ["data"], params)
    check_params(symbol, "it", ["data"], ParamsFile(tmp_path / "export.params"))


def test_the_c_predict_api_computes_wrongly_with_a_state_stored_as_an_argument(net: Path, tmp_path: Path) -> None:
    """A fault of MXNet's, because of which every such file is refused."""
    expected = in_numpy(network_params(), ROWS)[1]
    for stored, right in (("export", True), ("all arguments", False)):
        forward = load_c_predictor(network().tojson(), ParamsFile(tmp_path / f"{stored}.params"), {"data": ROWS}, ())
        assert np.allclose(forward({"data": ROWS})[0], expected, rtol=1e-5) == right


def test_a_bundle_whose_kinds_are_wrong_is_refused(cli: Cli, net: Path, tmp_path: Path) -> None:
    params, out = tmp_path / "export.params", tmp_path / "out"
    assert cli("edit", net, out, "--params", params, "--shape", "data=5,3").code == 0
    written = Path(f"{out}-0000.params")
    written.write_bytes(written.read_bytes().replace(b"aux:bn_moving_mean", b"arg:bn_moving_mean"))
    manifest = Path(f"{out}-manifest.json")
    document = json.loads(manifest.read_text())
    document["files"]["0000.params"]["sha256"] = file_digest(written)
    manifest.write_text(json.dumps(document))
    why = "parameter bn_moving_mean is stored as arg:, but it is aux: in the graph"
    assert why in refusal(cli("edit", out, tmp_path / "x", "--rename", "fc1=y"))


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_computes_an_exported_bert(bundles: dict[str, Path], classifier: Path, loader: str) -> None:
    inputs = texts()
    for prefix in (*bundles.values(), classifier):
        bundle = Bundle.open(prefix)
        symbol = bundle.path("symbol.json").read_text()
        check_params(symbol, "it", list(inputs), bundle.params())
        (found,) = LOADERS[loader](symbol, bundle.params(), inputs, ())(inputs)
        np.testing.assert_allclose(found, computed(prefix, inputs)[0], rtol=1e-5, atol=1e-6)
