"""What surgery meets at its edges: other dtypes, indices, signatures of parts, names with digits, large batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from refusals import refusal

from bertsym import Bundle, Edits, SymbolGraph, UsageError, edit, extract, finetune, graft_head, inspect
from bertsym.array import Array
from bertsym.model import open_model
from bertsym.mxnet_runtime import mx
from bertsym.surgery.output_comparison import difference

Cli = Callable[..., Result]


def saved(folder: Path, symbol: object, **shapes: tuple[int, ...]) -> Path:
    """PREFIX of a checkpoint of a symbol with random parameters; `shapes` are those of its inputs."""
    assert isinstance(symbol, mx.sym.Symbol)
    known, _, _ = symbol.infer_shape(**shapes)
    values = {
        name: mx.nd.random.normal(shape=shape)
        for name, shape in zip(symbol.list_arguments(), known)
        if name not in shapes
    }
    mx.model.save_checkpoint(str(folder / "net"), 0, symbol, values, {})
    return folder / "net"


# Inputs that mxnet can bear


def test_random_indices_are_within_the_table(cli: Cli, tmp_path: Path) -> None:
    data, index, new = (mx.sym.var(name) for name in ("data", "index", "new"))
    symbol = mx.sym.relu(mx.sym.contrib.index_copy(data, index, new), name="r")
    net = saved(tmp_path, symbol, data=(4, 3), index=(2,), new=(2, 3))
    shapes = ["--shape", "data=4,3", "--shape", "index=2", "--shape", "new=2,3"]
    done = cli("edit", net, tmp_path / "out", "--rename", "r=t", *shapes)
    assert (done.code, "verified" in done.out) == (0, True), done.err


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_models_of_other_precisions_are_run_in_them(cli: Cli, tmp_path: Path, dtype: str) -> None:
    dense = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="dense")
    symbol = mx.sym.softmax(mx.sym.exp(mx.sym.var("data") if dtype == "float16" else dense, name="e"), name="s")
    arrays = {} if dtype == "float16" else {"arg:dense_weight": (3, 4), "arg:dense_bias": (3,)}
    (tmp_path / "net-symbol.json").write_text(symbol.tojson())
    values = {name: mx.nd.ones(shape, dtype=dtype) for name, shape in arrays.items()}
    values["arg:unread"] = mx.nd.ones((2,), dtype=dtype)
    mx.nd.save(str(tmp_path / "net-0000.params"), values)
    done = cli("edit", tmp_path / "net", tmp_path / "out", "--rename", "s=t", "--shape", "data=2,4")
    assert (done.code, "verified" in done.out) == (0, True), done.err


# Parts of a BERT know their shapes from their signature


@pytest.fixture
def head(classifier: Path, tmp_path: Path) -> Path:
    """The head of a classifier, fed with encodings."""
    return extract(classifier, tmp_path / "head", ["softmax"], ["cls"]).bundle.prefix


def test_an_extracted_part_is_edited_grafted_and_compared_with_known_shapes(
    cli: Cli, head: Path, tmp_path: Path
) -> None:
    assert "verified" in cli("edit", head, tmp_path / "still", "--dropout", "off").out
    assert inspect(tmp_path / "still").inputs[0].shape == ("N", 32)
    removed = cli("graft", head, tmp_path / "grafted", "--head", "none")
    assert removed.code == 0, removed.err
    assert cli("diff", head, tmp_path / "still", "--run").out.endswith("no difference above the tolerance\n")
    nodes = cli("inspect", head, "--nodes").out.splitlines()
    assert nodes[0].split() == ["cls", "variable", "(N,", "32)"]


# Edits


@pytest.mark.parametrize(("rename", "expected"), [(("cls_sl*", "y*00"), "yice00"), (("cls_*", "x*11"), "xslice11")])
def test_digits_may_follow_a_star(bundles: dict[str, Path], rename: tuple[str, str], expected: str) -> None:
    changes = edit(bundles["cls"], None, Edits(renames=(rename,))).changes
    assert changes == [f"rename cls_slice -> {expected}"]


def test_the_config_has_the_dropout_that_the_graph_has(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    still, some = tmp_path / "still", tmp_path / "some"
    assert cli("edit", bundles["cls"], still, "--dropout", "off").code == 0
    config = Bundle.open(still).config
    assert (config.dropout, config.attention_dropout) == (0, 0)
    assert cli("edit", still, tmp_path / "back", "--dropout", "0.1").code == 0
    config = Bundle.open(tmp_path / "back").config
    assert (config.dropout, config.attention_dropout) == (0.1, 0.1)
    assert cli("edit", bundles["cls"], some, "--set", "*attention_dropout.p=0.5").code == 0
    config = Bundle.open(some).config
    assert (config.dropout, config.attention_dropout) == (0.1, 0.5)
    done = cli("edit", bundles["cls"], tmp_path / "mixed", "--set", "*0_attention_dropout.p=0.5")
    assert "no longer an exported BERT" in done.err


def test_an_edit_that_changes_nothing_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    for edits in (Edits(renames=(("cls", "cls"),)), Edits(attributes=(("cls_slice", "axis", "1"),))):
        with pytest.raises(UsageError, match="there is nothing to change"):
            edit(bundles["cls"], tmp_path / "out", edits)


def test_many_edits_are_checked_as_one_and_undone_as_one(bundles: dict[str, Path]) -> None:
    graph = SymbolGraph.load(f"{bundles['cls']}-symbol.json")
    before = graph.to_json()

    def corrupt() -> None:
        with graph.edit():
            graph.set_attribute(graph.node("cls"), "shape", "(1, 2)")
            graph.add("relu", "cls", [graph.node("cls_slice")])

    with pytest.raises(UsageError, match="the name 'cls' is taken"):
        corrupt()
    assert graph.to_json() == before
    with graph.edit():
        for node in graph.find(op="Dropout"):
            graph.remove(node, bypass=True)
    assert graph.find(op="Dropout") == []


def test_a_node_whose_second_output_is_read_is_not_bypassed() -> None:
    parts = mx.sym.split(mx.sym.var("x"), num_outputs=2, name="parts")
    graph = SymbolGraph.parse(mx.sym.Group([parts[0], mx.sym.relu(parts[1], name="r")]).tojson())
    before = graph.to_json()
    with pytest.raises(UsageError, match="parts has no input that could be read instead of it"):
        graph.remove(graph.node("parts"), bypass=True)
    assert graph.to_json() == before


@pytest.mark.parametrize("shape", ["0,1,32", "1_000,1,32", "²,1,32", "-1,1,32", "(,)"])
def test_an_invalid_size_is_refused(cli: Cli, classifier: Path, tmp_path: Path, shape: str) -> None:
    done = cli("extract", classifier, tmp_path / "out", "--output", "softmax", "--input", f"cls_slice:{shape}")
    assert "is not a shape, such as 2,16,384 or N,T,384" in refusal(done, tmp_path / "out-symbol.json", 2)


# Comparing and looking


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([np.nan, 1.0], [np.nan, 1.5], 0.5),
        ([np.inf, 1.0], [np.inf, 1.25], 0.25),
        ([np.inf, 1.0], [np.nan, 1.0], np.inf),
        ([1.0, 2.0], [1.0, np.inf], np.inf),
    ],
)
def test_only_differing_elements_count(one: list[float], other: list[float], expected: float) -> None:
    assert difference("x", np.array(one), np.array(other)).max_difference == expected


def test_large_integers_that_differ_are_not_the_same() -> None:
    array: Array = np.array([2**60])
    assert difference("x", array, array + 1).max_difference > 0
    assert difference("x", array, array).max_difference == 0


def test_draw_refuses_shapes_that_do_not_fit(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "x.netron"
    assert "has no input 'nope'" in refusal(cli("draw", bundles["cls"], out, "--shape", "nope=2,3"), out, 2)
    assert "MXNet can't run it" in refusal(cli("draw", bundles["cls"], out, "--shape", "data0=2,9999"), out, 1)
    assert "choose layer 0" in refusal(cli("draw", bundles["cls"], out, "--expand", "99"), out, 2)
    assert cli("draw", bundles["cls"], out, "--shape", "data0=2,16").code == 0
    (graph,) = json.loads(out.read_text())["graphs"]
    assert [2, 16, 32] in [value["type"]["shape"]["dimensions"] for value in graph["values"]]


def test_a_deep_graph_before_an_index_is_handled_without_recursion(cli: Cli, tmp_path: Path) -> None:
    symbol = mx.sym.var("data")
    for i in range(1500):
        symbol = mx.sym.relu(symbol, name=f"r{i}")
    (tmp_path / "deep-symbol.json").write_text(mx.sym.pick(mx.sym.var("x"), symbol, name="p").tojson())
    assert cli("inspect", tmp_path / "deep-symbol.json").code == 0


def test_a_hostile_shape_attribute_does_not_hang_the_picture(cli: Cli, tmp_path: Path) -> None:
    data = mx.sym.var("data", attr={"__shape__": "(" + "1" * 60 + "x"})
    (tmp_path / "net-symbol.json").write_text(mx.sym.relu(data, name="r").tojson())
    assert cli("draw", tmp_path / "net-symbol.json", tmp_path / "x.netron").code in (0, 1)


def test_epochs_are_ordered_by_number(tmp_path: Path) -> None:
    net = saved(tmp_path, mx.sym.FullyConnected(mx.sym.var("x"), num_hidden=2, name="d"), x=(1, 2))
    for epoch in (9999, 10000):
        (tmp_path / f"net-{epoch:04d}.params").write_bytes(Path(f"{net}-0000.params").read_bytes())
    Path(f"{net}-0000.params").unlink()
    assert open_model(net).params_path == tmp_path / "net-10000.params"


def test_a_classifier_that_was_grafted_is_not_fine_tuned_but_its_base_is(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    out = graft_head(bundles["cls"], tmp_path / "out").bundle.prefix
    with pytest.raises(Exception, match="has an untrained head"):
        finetune(out, "train.tsv", "dev.tsv", tmp_path / "tuned")
