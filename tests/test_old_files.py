"""Symbols and parameters of old versions, and of other ways to save them: read as MXNet reads them, or why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import array_names, computed
from conftest import Result
from refusals import refusal

from bertsym import ModelError, open_model
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.upgrading import add_auxiliary_states

Cli = Callable[..., Result]

CHECKPOINTS = Path(__file__).parent / "old_checkpoints"
STATES = ["bn0_moving_mean", "bn0_moving_var"]
SHAPE = ("--shape", "data=2,1,6,6")


def old_checkpoint(folder: Path, version: str = "0.9.5") -> Path:
    """PREFIX of a copy of an old checkpoint."""
    for path in (CHECKPOINTS / f"mxnet-{version}").glob("net-*"):
        shutil.copy(path, folder)
    return folder / "net"


def expected(version: str = "0.9.5") -> tuple[Any, Any]:
    """An input, and the outputs that the version itself computed from it."""
    document = json.loads((CHECKPOINTS / f"mxnet-{version}" / "expected.json").read_text())
    return np.array(document["data"]), np.array(document["outputs"])


def as_mxnet_0_8(text: str) -> str:
    """Symbol JSON in the layout before 0.9: no auxiliary states and no versions, operators' parameters under a key."""
    document = json.loads(text)
    states = {entry[0] for node in document["nodes"] if node["op"] == "BatchNorm" for entry in node["inputs"][3:]}
    places: dict[int, int] = {}
    nodes: list[dict[str, Any]] = []
    for place, node in enumerate(document["nodes"]):
        if place not in states:
            inputs = [[places[entry[0]], entry[1]] for entry in node["inputs"] if entry[0] not in states]
            places[place] = len(nodes)
            params = {} if node["op"] == "null" else node.get("attr", {})
            name = {"op": node["op"], "param": params, "name": node["name"], "inputs": inputs}
            nodes.append({**name, "backward_source_id": -1})
    arguments = [place for place, node in enumerate(nodes) if node["op"] == "null"]
    heads = [[places[entry[0]], entry[1]] for entry in document["heads"]]
    return json.dumps({"nodes": nodes, "arg_nodes": arguments, "heads": heads})


def loaded(text: str) -> Any:
    return mx.sym.load_json(text)


# Old versions


@pytest.mark.parametrize("version", ["0.9.5", "0.11.0"])
def test_a_checkpoint_of_an_old_version_computes_what_that_version_computed(
    cli: Cli, tmp_path: Path, version: str
) -> None:
    source = old_checkpoint(tmp_path, version)
    done = cli("edit", source, tmp_path / "new", "--rename", "fc=scores", *SHAPE)
    assert done.code == 0, done.err
    assert {f"aux:{name}" for name in STATES} < array_names(tmp_path / "new")
    data, outputs = expected(version)
    (found,) = computed(tmp_path / "new", {"data": data})
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-6)


def test_a_symbol_before_0_9_gets_the_auxiliary_states_that_mxnet_adds(cli: Cli, tmp_path: Path) -> None:
    source = old_checkpoint(tmp_path)
    path = Path(f"{source}-symbol.json")
    path.write_text(as_mxnet_0_8(path.read_text()))
    done = cli("edit", source, tmp_path / "new", "--rename", "fc=scores", *SHAPE)
    assert done.code == 0, done.err
    note = "auxiliary states that MXNet did not store before 0.9 are added: bn0_moving_mean, bn0_moving_var"
    assert note in done.err
    data, outputs = expected()
    (found,) = computed(tmp_path / "new", {"data": data})
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-6)
    facts = json.loads(cli("inspect", source, "--arrays", "--json").out)
    assert [array["name"] for array in facts["arrays"] if array["kind"] == "aux"] == STATES


@pytest.mark.parametrize("version", [None, 800, 899])
def test_the_upgraded_graph_is_mxnet_s_own(version: int | None) -> None:
    document = json.loads(as_mxnet_0_8((CHECKPOINTS / "mxnet-0.9.5" / "net-symbol.json").read_text()))
    if version is not None:
        document["attrs"] = {"mxnet_version": ["int", version]}
    text = json.dumps(document)
    graph = SymbolGraph.parse(text)
    assert add_auxiliary_states(graph, "it") == STATES == loaded(text).list_auxiliary_states()
    theirs = SymbolGraph.parse(loaded(text).tojson())
    assert [(node.op, node.name) for node in graph.nodes] == [(node.op, node.name) for node in theirs.nodes]
    for node, other in zip(graph.nodes, theirs.nodes):
        assert list(map(str, node.inputs)) == list(map(str, other.inputs))
        assert node.attrs.get("__init__") == other.attrs.get("__init__")
    again = loaded(graph.to_json())
    assert again.list_arguments() == loaded(text).list_arguments()
    assert again.list_auxiliary_states() == STATES


def test_only_a_file_before_0_9_is_upgraded(tmp_path: Path) -> None:
    document = json.loads(as_mxnet_0_8((CHECKPOINTS / "mxnet-0.9.5" / "net-symbol.json").read_text()))
    document["attrs"] = {"mxnet_version": ["int", 905]}
    (tmp_path / "net-symbol.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="node 'bn0': a BatchNorm with 3 inputs"):
        open_model(tmp_path / "net")


def test_an_auxiliary_state_whose_name_is_taken_is_not_added(tmp_path: Path) -> None:
    text = as_mxnet_0_8((CHECKPOINTS / "mxnet-0.9.5" / "net-symbol.json").read_text())
    (tmp_path / "net-symbol.json").write_text(text.replace('"relu0"', '"bn0_moving_var"'))
    with pytest.raises(ModelError, match="node 'bn0' has no moving_var, and the name 'bn0_moving_var' is taken"):
        open_model(tmp_path / "net")


def test_an_operator_without_its_auxiliary_states_does_not_reach_mxnet(cli: Cli, tmp_path: Path) -> None:
    """MXNet takes such a file and reads out of bounds."""
    variable = {"op": "null", "name": "x", "inputs": []}
    node = {"op": "IdentityAttachKLSparseReg", "name": "reg", "inputs": [[0, 0, 0]]}
    document = {
        "nodes": [variable, node],
        "arg_nodes": [0],
        "heads": [[1, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    (tmp_path / "net-symbol.json").write_text(json.dumps(document))
    mx.nd.save(str(tmp_path / "net-0000.params"), {})
    why = "node 'reg': IdentityAttachKLSparseReg without its auxiliary states"
    assert why in refusal(cli("edit", tmp_path / "net", tmp_path / "x", "--rename", "reg=r"))


# Other ways to save


@pytest.mark.parametrize("storage", ["row_sparse", "csr"])
def test_sparse_parameters_are_written_dense(cli: Cli, tmp_path: Path, storage: str) -> None:
    source = old_checkpoint(tmp_path)
    arrays = mx.nd.load(f"{source}-0000.params")
    arrays["arg:fc_weight"] = arrays["arg:fc_weight"].tostype(storage)
    mx.nd.waitall()
    mx.nd.save(f"{source}-0000.params", arrays)
    done = cli("edit", source, tmp_path / "new", "--rename", "fc=scores", *SHAPE)
    assert done.code == 0, done.err
    assert f"note: {source}-0000.params: sparse arrays become dense: fc_weight ({storage})" in done.err
    data, outputs = expected()
    np.testing.assert_allclose(computed(tmp_path / "new", {"data": data})[0], outputs, rtol=1e-5, atol=1e-6)
    assert mx.nd.load(f"{tmp_path / 'new'}-0000.params")["arg:fc_weight"].stype == "default"


def test_parameters_saved_under_np_shape_are_read(cli: Cli, tmp_path: Path) -> None:
    source = old_checkpoint(tmp_path)
    arrays = mx.nd.load(f"{source}-0000.params")
    with mx.util.np_shape(True):
        mx.nd.save(f"{source}-0000.params", arrays)
    done = cli("edit", source, tmp_path / "new", "--rename", "fc=scores", *SHAPE)
    assert done.code == 0, done.err
    data, outputs = expected()
    np.testing.assert_allclose(computed(tmp_path / "new", {"data": data})[0], outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["net-symbol.json", "net-0000.params"])
def test_a_git_lfs_pointer_in_place_of_a_file_is_reported_as_such(cli: Cli, tmp_path: Path, name: str) -> None:
    source = old_checkpoint(tmp_path)
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1234\n")
    line = refusal(cli("edit", source, tmp_path / "new", "--rename", "fc=scores"))
    assert f"{tmp_path / name}: a Git LFS pointer instead of the file; run `git lfs pull`" in line
