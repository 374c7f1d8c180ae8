"""Nodes that share a name, as of a gluon block that is called twice, are picked, renamed and used by all commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from refusals import refusal

import bertsym
from bertsym import ModelError, SymbolGraph, UsageError
from bertsym.array import Array
from bertsym.mxnet_runtime import mx, quiet_stderr

Cli = Callable[..., Result]
SHAPE = ("--shape", "data=2,4")
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PREFIX of data -> dense -> relu -> drop -> dense -> relu -> drop, one block called twice, exported by gluon."""
    gluon: Any = mx.gluon

    class Twice(gluon.HybridBlock):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(prefix="net_")
            with self.name_scope():
                self.dense = gluon.nn.Dense(4, activation="relu", prefix="dense_")
                self.drop = gluon.nn.Dropout(0.1, prefix="drop_")

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self.drop(self.dense(self.drop(self.dense(x))))

    mx.random.seed(3)
    net = Twice()
    net.initialize(mx.init.Normal(1))
    net.hybridize()
    net(mx.nd.array(X))
    prefix = tmp_path_factory.mktemp("twice") / "net"
    net.export(str(prefix))
    names = [node.name for node in SymbolGraph.load(f"{prefix}-symbol.json").nodes if not node.is_variable]
    assert names == 2 * ["net_dense_fwd", "net_dense_relu_fwd", "net_drop_fwd"]
    return prefix


def names_of(prefix: Path) -> list[str]:
    """The names of a bundle's operators."""
    return [node.name for node in SymbolGraph.load(f"{prefix}-symbol.json").nodes if not node.is_variable]


def outputs_of(prefix: Path) -> list[Array]:
    """The outputs of PREFIX on X, as gluon computes them."""
    with quiet_stderr():
        block = mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["data"], f"{prefix}-0000.params")
    found = block(mx.nd.array(X))
    return [array.asnumpy() for array in (found if isinstance(found, list) else [found])]


# Picking one


def test_a_repeated_name_is_refused_with_the_reference_to_use(cli: Cli, twice: Path, tmp_path: Path) -> None:
    line = refusal(cli("extract", twice, tmp_path / "x", "--output", "net_dense_fwd"), tmp_path / "x", code=2)
    assert "2 nodes are named 'net_dense_fwd'" in line
    assert "choose one of net_dense_fwd#1 to net_dense_fwd#2" in line
    line = refusal(cli("extract", twice, tmp_path / "x", "--output", "net_dense_fwd#3"), tmp_path / "x", code=2)
    assert "there is no net_dense_fwd#3: 2 nodes are named 'net_dense_fwd'" in line


def test_inspect_lists_the_possible_exports(cli: Cli, twice: Path) -> None:
    lines = cli("inspect", twice, "--nodes").out.splitlines()
    assert any(line.startswith("net_dense_fwd#2 ") and "<- net_drop_fwd#1, net_dense_weight" in line for line in lines)
    facts = bertsym.inspect(twice).to_json(nodes=True)
    assert [output["name"] for output in facts["outputs"]] == ["net_drop_fwd#2"]
    named = [node["name"] for node in facts["nodes"]]
    assert len({*named}) == len(named)
    path = cli("inspect", twice, "--path", "net_dense_fwd#1", "net_drop_fwd#1")
    assert len(path.out.splitlines()) == 3


@pytest.mark.parametrize(("picked", "after"), [("#1", 1), ("#2", 2), ("#2_output", 2), ("#2:0", 2)])
def test_extract_takes_the_picked_node(twice: Path, tmp_path: Path, picked: str, after: int) -> None:
    written = bertsym.extract(
        bertsym.ModelSource(twice, shapes={"data": (2, 4)}), tmp_path / "part", [f"net_dense_relu_fwd{picked}"]
    )
    assert written.verified
    assert names_of(tmp_path / "part").count("net_dense_fwd") == after


def test_a_picked_tensor_becomes_an_input_with_a_name_of_its_own(twice: Path, tmp_path: Path) -> None:
    inputs = ["net_dense_relu_fwd#1"]
    written = bertsym.extract(
        bertsym.ModelSource(twice, shapes={"data": (2, 4)}), tmp_path / "part", ["net_drop_fwd#2"], inputs
    )
    assert written.verified
    assert [tensor["name"] for tensor in written.bundle.signature.to_json()["inputs"]] == ["net_dense_relu_fwd_input"]
    assert names_of(tmp_path / "part") == ["net_drop_fwd", "net_dense_fwd", "net_dense_relu_fwd", "net_drop_fwd"]


def test_two_outputs_of_one_name_have_their_own_shapes_and_elements(twice: Path, tmp_path: Path) -> None:
    graph = SymbolGraph.load(f"{twice}-symbol.json")
    graph.add("expand_dims", "expanded", [graph.node("net_drop_fwd#1")], {"axis": "2"})
    graph.set_outputs([graph.node("expanded"), graph.node("net_drop_fwd#2")])
    (tmp_path / "m-symbol.json").write_text(graph.to_json().replace('"expanded"', '"net_drop_fwd"'))
    (tmp_path / "m-0000.params").write_bytes(Path(f"{twice}-0000.params").read_bytes())
    ends = ["net_drop_fwd#3", "net_drop_fwd#2"]
    written = bertsym.extract(bertsym.ModelSource(tmp_path / "m", shapes={"data": (2, 4)}), tmp_path / "two", ends)
    assert written.verified
    outputs = written.bundle.signature.to_json()["outputs"]
    assert [(tensor["name"], tensor["shape"]) for tensor in outputs] == [
        ("net_drop_fwd_output", (2, 4, 1)),
        ("net_drop_fwd_output", (2, 4)),
    ]
    first, second = outputs_of(tmp_path / "two")
    assert (first.shape, second.shape) == ((2, 4, 1), (2, 4))


# Renaming


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--rename", "net_dense_fwd=fc"], {"fc", "fc_2"}),
        (["--rename", "*=*"], {"net_dense_fwd", "net_dense_fwd_2"}),
        (["--prefix", "net_=a_"], {"a_dense_fwd", "a_dense_fwd_2"}),
        (["--rename", "net_dense_fwd#2=last"], {"net_dense_fwd", "last"}),
        (["--rename", "net_dense_fwd#1=first", "--rename", "net_dense_fwd#2=last"], {"first", "last"}),
        (["--rename", "net_dense_fwd=x", "--rename", "net_drop_fwd#2=x_2"], {"x", "x_3"}),
    ],
)
def test_a_rule_that_hits_several_nodes_numbers_them(
    cli: Cli, twice: Path, tmp_path: Path, options: list[str], expected: set[str]
) -> None:
    done = cli("edit", twice, tmp_path / "m", *options, *SHAPE)
    assert (done.code, ", verified" in done.out) == (0, True), done.err
    graph = SymbolGraph.load(f"{tmp_path / 'm'}-symbol.json")
    assert {node.name for node in graph.find(op="FullyConnected")} == expected
    np.testing.assert_array_equal(outputs_of(tmp_path / "m")[0], outputs_of(twice)[0])


def test_a_variable_keeps_the_name_without_a_number(cli: Cli, tmp_path: Path) -> None:
    """By which its array is found."""
    symbol = mx.sym.exp(mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="fc"), name="fc_weight")
    symbol.save(str(tmp_path / "m-symbol.json"))
    arrays = {"arg:fc_weight": mx.nd.ones((3, 4)), "arg:fc_bias": mx.nd.zeros((3,))}
    mx.nd.save(str(tmp_path / "m-0000.params"), arrays)
    assert cli("edit", tmp_path / "m", tmp_path / "out", "--prefix", "fc_=dense_", *SHAPE).code == 0
    graph = SymbolGraph.load(f"{tmp_path / 'out'}-symbol.json")
    assert graph.variables == ["data", "dense_weight", "dense_bias"]
    assert graph.output_names == ["dense_weight_2"]
    facts = bertsym.inspect(bertsym.ModelSource(tmp_path / "m", shapes={"data": (2, 4)}))
    assert [fact.shape for fact in facts.outputs] == [(2, 3)]


def test_rules_that_lead_to_one_name_still_collide(cli: Cli, twice: Path, tmp_path: Path) -> None:
    both = ("--rename", "net_dense_fwd#1=a", "--rename", "net_drop_fwd#1=a")
    assert "another node has that name" in refusal(cli("edit", twice, tmp_path / "m", *both), code=2)


def test_an_attribute_is_set_on_the_picked_node(cli: Cli, twice: Path, tmp_path: Path) -> None:
    done = cli("edit", twice, tmp_path / "m", "--set", "net_drop_fwd#2.p=0.5", *SHAPE)
    assert "set net_drop_fwd#2.p 0.1 -> 0.5" in done.out
    graph = SymbolGraph.load(f"{tmp_path / 'm'}-symbol.json")
    assert [node.attrs["p"] for node in graph.find("net_drop_fwd")] == ["0.1", "0.5"]
    assert len(cli("edit", twice, "--dropout", "0.3", "--dry-run").out.splitlines()) == 2


# Other commands


@pytest.mark.parametrize(("at", "calls"), [([], 2), (["--at", "net_drop_fwd#1"], 1)])
def test_a_head_is_grafted_onto_an_output_whose_name_repeats_and_removed(
    cli: Cli, twice: Path, tmp_path: Path, at: list[str], calls: int
) -> None:
    done = cli("graft", twice, tmp_path / "head", "--head", "regression", *at, *SHAPE)
    assert (done.code, ", verified" in done.out) == (0, True), done.err
    assert names_of(tmp_path / "head").count("net_dense_fwd") == calls
    done = cli("graft", tmp_path / "head", tmp_path / "none", "--head", "none", *SHAPE)
    assert (done.code, ", verified" in done.out) == (0, True), done.err
    assert names_of(tmp_path / "none") == names_of(twice)[: 3 * calls - 1]  # without the last Dropout


def test_an_onnx_file_has_the_output_s_own_name(cli: Cli, twice: Path, tmp_path: Path) -> None:
    done = cli("onnx", twice, tmp_path / "m.onnx", *SHAPE)
    assert (done.code, "verified in onnxruntime" in done.out) == (0, True), done.err
    assert "outputs: net_drop_fwd_output " in done.out


def test_two_outputs_of_one_name_are_numbered_for_onnx(cli: Cli, twice: Path, tmp_path: Path) -> None:
    ends = ["net_dense_fwd#1", "net_dense_fwd#2"]
    bertsym.extract(bertsym.ModelSource(twice, shapes={"data": (2, 4)}), tmp_path / "two", ends)
    line = refusal(cli("onnx", tmp_path / "two", tmp_path / "two.onnx"), tmp_path / "two.onnx")
    assert line.endswith("bertsym edit --rename net_dense_fwd=net_dense_fwd")
    assert cli("edit", tmp_path / "two", tmp_path / "one", "--rename", "net_dense_fwd=net_dense_fwd").code == 0
    done = cli("onnx", tmp_path / "one", tmp_path / "one.onnx")
    assert (done.code, "net_dense_fwd_2_output" in done.out) == (0, True), done.err


def test_diff_and_draw_distinguish_repeated_names(cli: Cli, twice: Path, tmp_path: Path) -> None:
    assert cli("diff", twice, twice, "--run", *SHAPE).code == 0
    assert cli("draw", twice, tmp_path / "m.netron", *SHAPE).code == 0
    graph = json.loads((tmp_path / "m.netron").read_text())["graphs"][0]
    read = [value for node in graph["nodes"] for slot in node["inputs"] for value in slot["value"]]
    assert [node["name"] for node in graph["nodes"]] == names_of(twice)
    assert len({node["outputs"][0]["value"][0] for node in graph["nodes"]}) == 6
    assert max(read) < len(graph["values"])


def test_a_bert_with_a_block_that_is_called_twice_is_lowered(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    graph = SymbolGraph.load(f"{bundles['cls']}-symbol.json")
    end = graph.node("cls")
    for name in ("twice", "other", "twice more"):
        end = graph.insert_after(end, "tanh", name)
    (tmp_path / "m-symbol.json").write_text(graph.to_json().replace('"twice more"', '"twice"'))
    (tmp_path / "m-0000.params").write_bytes(Path(f"{bundles['cls']}-0000.params").read_bytes())
    done = cli("lower", tmp_path / "m", tmp_path / "low", "--form", "gluonnlp")
    assert (done.code, ", verified" in done.out) == (0, True), done.err
    assert names_of(tmp_path / "low")[-4:] == ["cls", "twice", "other", "twice"]


# Variables


def shared(second: str, attrs: str = "{}") -> str:
    """exp(w * x) + w, with two variables, w and `second`."""
    variables = [f'{{"op": "null", "name": "{name}", "inputs": []}}' for name in ("x", "w")]
    variables.append(f'{{"op": "null", "name": "{second}", "attrs": {attrs}, "inputs": []}}')
    operators = [
        '{"op": "elemwise_mul", "name": "m", "inputs": [[0, 0, 0], [1, 0, 0]]}',
        '{"op": "elemwise_add", "name": "m", "inputs": [[3, 0, 0], [2, 0, 0]]}',
    ]
    return f'{{"nodes": [{", ".join(variables + operators)}], "arg_nodes": [0, 1, 2], "heads": [[4, 0, 0]]}}'


def test_variables_of_one_name_are_one_as_in_gluon(cli: Cli, tmp_path: Path) -> None:
    """Module and bind refuse such a file; what bertsym writes of it loads everywhere, and computes the same."""
    path = tmp_path / "m-symbol.json"
    path.write_text(shared("w"))
    mx.nd.save(str(tmp_path / "m-0000.params"), {"arg:w": mx.nd.array([10, 20])})
    done = cli("inspect", path)
    assert "note: several variables are named w: they are read as one" in done.err
    assert cli("edit", tmp_path / "m", tmp_path / "out", "--rename", "*=*", "--shape", "x=2").code == 0

    def run(prefix: Path) -> list[float]:
        with quiet_stderr():
            block = mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["x"], f"{prefix}-0000.params")
        values: list[float] = block(mx.nd.array([1, 2])).asnumpy().tolist()
        return values

    assert run(tmp_path / "m") == run(tmp_path / "out") == [20, 60]
    load: Any = mx.sym.load_json
    with quiet_stderr():
        before, after = load(path.read_text()), load(Path(f"{tmp_path / 'out'}-symbol.json").read_text())
        assert before.list_arguments() == ["x", "w", "w"]
        with pytest.raises(RuntimeError):
            before.simple_bind(mx.cpu(), x=(2,), w=(2,))
    assert after.list_arguments() == ["x", "w"]


def test_variables_of_one_name_but_different_attributes_are_refused() -> None:
    with pytest.raises(ModelError, match="two variables are named 'w', with different attributes"):
        SymbolGraph.parse(shared("w", '{"__shape__": "(2,)"}'))
    with pytest.raises(UsageError, match="no node is named 'v'"):
        SymbolGraph.parse(shared("w")).variable("v")
