"""Diff: nodes, parameters and results of two symbols, and the first layer at which the results part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
    IMAGES,
    computed,
    conv_checkpoint,
    gluonnlp_checkpoint,
    split_checkpoint,
    texts,
)
from conftest import CONFIG, Result
from refusals import refusal

from bertsym import DataError, ExportOptions, ModelSource, SourceOptions, UsageError, diff, edit, export, extract
from bertsym.array import Array
from bertsym.mxnet_runtime import mx
from bertsym.surgery.edit import Edits

Cli = Callable[..., Result]

LAYER = "bertencoder0_transformer{}_positionwiseffn0_layernorm0_fwd"


def with_weight(prefix: Path, out: Path, name: str, change: Callable[[Array], None]) -> Path:
    """A copy of a checkpoint with one array changed, made by mxnet itself."""
    symbol, arguments, auxiliary = mx.model.load_checkpoint(str(prefix), 0)
    array = arguments[name].asnumpy()
    change(array)
    out.parent.mkdir(parents=True, exist_ok=True)
    mx.model.save_checkpoint(str(out), 0, symbol, {**arguments, name: mx.nd.array(array)}, auxiliary)
    return out


def add_half(array: Array) -> None:
    array.flat[3] += 0.5


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export("random:bert_12_16_2", tmp_path_factory.mktemp("deep") / "base", ExportOptions(seed=3)).bundle.prefix


@pytest.fixture
def inputs(tmp_path: Path) -> Callable[..., Path]:
    """Write the inputs of a BERT, some of them replaced or, with None, left out."""

    def write(**changed: object) -> Path:
        given = {**texts(), **changed}
        arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
        np.savez(tmp_path / "inputs.npz", **arrays)
        return tmp_path / "inputs.npz"

    return write


@pytest.mark.parametrize("part", ["proj_weight", "positionwiseffn0_ffn_2_bias", "layernorm0_gamma"])
def test_a_changed_weight_in_layer_7_names_layer_7(cli: Cli, deep: Path, tmp_path: Path, part: str) -> None:
    name = f"bertencoder0_transformer7_{part}"
    other = with_weight(deep, tmp_path / "other", name, add_half)
    done = cli("diff", deep, other, "--run")
    assert done.code == 0, done.err
    assert "first difference: layer 7, at bertencoder0_transformer7_" in done.out
    assert "graph: the same" in done.out
    assert f"~ {name}: max difference 5.0e-01" in done.out

    found = diff(deep, other, run=True)
    assert found.runs[0].first_layer == "layer 7"
    assert found.params is not None
    assert [value.name for value in found.params.values] == [name]
    assert found.params.values[0].max_difference == pytest.approx(0.5, abs=1e-6)
    equal = [layer.name for layer in found.runs[0].layers if layer.max_difference == 0]
    assert equal == ["embeddings", *(f"layer {i}" for i in range(7))]


def test_differences_of_layers_and_outputs_are_those_that_mxnet_computes(
    deep: Path, tmp_path: Path, inputs: Callable[..., Path]
) -> None:
    other = with_weight(deep, tmp_path / "other", "bertencoder0_transformer7_proj_weight", add_half)
    (run,) = diff(deep, other, inputs=inputs()).runs
    for i, layer in enumerate(run.layers[1:]):
        one, two = (computed(prefix, texts(), f"{LAYER.format(i)}_output")[0] for prefix in (deep, other))
        assert layer.max_difference == pytest.approx(np.abs(one - two).max(), rel=1e-3, abs=1e-7)
        assert layer.scale == pytest.approx(np.abs(one).max(), rel=1e-3)
    one, two = (computed(prefix, texts())[0] for prefix in (deep, other))
    assert run.outputs[0].max_difference == pytest.approx(np.abs(one - two).max(), rel=1e-3)
    assert run.inputs == str(inputs())


def test_a_bundle_is_the_same_as_itself(cli: Cli, bundles: dict[str, Path]) -> None:
    done = cli("diff", bundles["mean"], bundles["mean"], "--run", "--exit-code")
    assert done.code == 0
    assert "graph: the same\nparameters: the same\n" in done.out
    assert "no difference above the tolerance" in done.out


@pytest.mark.parametrize("other", ["pooled", "mean", "sequence"])
def test_outputs_that_differ_with_equal_nodes_are_reported(cli: Cli, bundles: dict[str, Path], other: str) -> None:
    done = cli("diff", bundles["cls"], bundles[other], "--run", "--exit-code")
    assert done.code == 1
    assert "first difference: output cls" in done.out
    assert "results are the same" not in done.out
    assert "no difference" not in done.out


def test_added_removed_and_changed_nodes(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    edits = Edits((("cls", "first"),), (), (("bertencoder0_layernorm0_fwd", "eps", "1e-3"),))
    edit(bundles["cls"], tmp_path / "other", edits)
    done = cli("diff", bundles["cls"], tmp_path / "other", "--json", "--run")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["graph"]["removed"], found["graph"]["added"]) == (["cls"], ["first"])
    assert found["graph"]["changed"] == [{"name": "bertencoder0_layernorm0_fwd", "what": "eps 1e-12 -> 1e-3"}]
    assert found["graph"]["outputs"] == [["cls"], ["first"]]
    assert found["runs"][0]["first_layer"] == "embeddings"
    assert found["runs"][0]["first_node"] == "bertencoder0_layernorm0_fwd"
    assert not found["same"]


def test_added_removed_and_changed_parameters(cli: Cli, tmp_path: Path) -> None:
    x = mx.sym.var("x")
    for name, width, dtype in (("a", 3, "float32"), ("b", 4, "float16")):
        net = mx.sym.FullyConnected(mx.sym.FullyConnected(x, num_hidden=width, name="one"), num_hidden=2, name=name)
        shapes, _, _ = net.infer_shape(x=(1, 5))
        params = {key: mx.nd.ones(shape) for key, shape in zip(net.list_arguments(), shapes) if key != "x"}
        params["one_bias"] = mx.nd.ones((3,), dtype=dtype) if name == "b" else params["one_bias"]
        mx.model.save_checkpoint(str(tmp_path / name), 0, net, params, {})
    lines = cli("diff", tmp_path / "a", tmp_path / "b").out
    assert "  ~ one_weight: (3, 5) <f4 -> (4, 5) <f4" in lines
    assert "  ~ one_bias: (3,) <f4 -> (3,) <f2" in lines
    assert "  - a_weight" in lines
    assert "  + b_weight" in lines
    assert "  ~ one: num_hidden 3 -> 4" in lines


def test_nodes_with_the_same_name_are_distinguished(cli: Cli, tmp_path: Path) -> None:
    for name, slope in (("a", 2), ("b", 3)):
        net = mx.sym.var("x")
        for factor in (5, slope, 7):
            net = mx.sym._internal._mul_scalar(net, scalar=factor, name="times")
        net.save(str(tmp_path / f"{name}-symbol.json"))
    done = cli("diff", tmp_path / "a", tmp_path / "b")
    assert "  ~ times#2: scalar 2 -> 3" in done.out
    assert done.out.count("  ~ ") == 1
    assert "not compared, because one symbol has no parameter file" in done.out


def test_a_node_that_reads_another_node_of_the_same_name_has_changed(cli: Cli, tmp_path: Path) -> None:
    once = mx.sym._internal._mul_scalar(mx.sym.var("x"), scalar=5, name="times")
    twice = mx.sym._internal._mul_scalar(once, scalar=2, name="times")
    for name, read in (("a", once), ("b", twice)):
        mx.sym.Group([twice, mx.sym.exp(read, name="end")]).save(str(tmp_path / f"{name}-symbol.json"))
    done = cli("diff", tmp_path / "a", tmp_path / "b")
    assert "  ~ end: inputs times -> times#2" in done.out


def test_gluonnlps_own_symbol_and_the_portable_form_agree_layer_by_layer(tmp_path: Path) -> None:
    """The one runs time-major with interleaved attention, the other batch-major, with other nodes."""
    source = gluonnlp_checkpoint(tmp_path, "pooled")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(45))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    symbol, arguments, _ = mx.model.load_checkpoint(str(source), 0)
    used = {name: arguments[name] for name in symbol.list_arguments() if name in arguments}
    mx.nd.save(str(tmp_path / "bert.params"), used)
    options = SourceOptions(vocab=str(tmp_path / "vocab.txt"), num_heads=4)
    portable = export(
        f"params:{tmp_path / 'bert.params'}",
        tmp_path / "portable",
        ExportOptions(output="sequence"),
        source_options=options,
    )
    (run,) = diff(source, portable.bundle.prefix, run=True).runs
    assert [layer.name for layer in run.layers] == ["embeddings", "layer 0", "layer 1"]
    assert max(layer.relative for layer in run.layers) < 1e-5
    assert run.first_layer is None


def test_a_checkpoint_that_is_not_a_bert_needs_the_shape_of_its_input(cli: Cli, tmp_path: Path) -> None:
    net = conv_checkpoint(tmp_path)
    missing = refusal(cli("diff", net, net, "--run"), code=2)
    assert "give it with --shape data=" in missing
    edit(ModelSource(net, epoch=3), tmp_path / "other", Edits(dropout="off"))
    done = cli("diff", net, tmp_path / "other", "--run", "--shape", IMAGES)
    assert done.code == 0, done.err
    assert "first difference: no encoder layer, at conv0" in done.out
    two = split_checkpoint(tmp_path)
    (run,) = diff(two, two, run=True, shapes={"x": (2, 4)}).runs
    assert [output.name for output in run.outputs] == ["cut:2", "cut"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_elements_that_are_not_finite_are_counted(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, value: float
) -> None:
    def change(array: Array) -> None:
        array.flat[3] = value

    name = "bertencoder0_transformer1_proj_weight"
    other = with_weight(bundles["cls"], tmp_path / "other", name, change)
    found = diff(bundles["cls"], other, run=True)
    assert not found.same
    assert found.runs[0].first_layer == "layer 1"
    document = json.loads(cli("diff", bundles["cls"], other, "--run", "--json").out, parse_constant=pytest.fail)
    assert [entry["max_difference"] for entry in document["params"]["values"]] == [None]
    itself = diff(other, other, run=True)
    assert itself.same
    assert itself.params is not None
    assert itself.params.values == []


UNSAFE: dict[str, tuple[dict[str, object], str]] = {
    "id of the vocabulary's size": ({"data0": np.full((3, 9), CONFIG["vocab_size"])}, "token ids must be"),
    "negative id": ({"data0": np.full((3, 9), -1)}, "token ids must be"),
    "half an id": ({"data0": np.full((3, 9), 1.5)}, "token ids must be"),
    "huge id": ({"data0": np.full((3, 9), 1e300)}, "token ids must be"),
    "third token type": ({"data1": np.full((3, 9), 2)}, "token types must be"),
    "length 0": ({"data2": np.array([9, 0, 4])}, "valid_length must be integers from 1 to 9: row 1 holds 0"),
    "length above T": ({"data2": np.array([10, 1, 4])}, "valid_length must be integers from 1 to 9"),
    "length NaN": ({"data2": np.array([9, np.nan, 4])}, "valid_length must be"),
    "too long": ({"data0": np.ones((3, 41)), "data1": np.zeros((3, 41))}, "length 41 is outside"),
    "one axis": ({"data0": np.ones(9)}, "inputs need the shapes (N, T)"),
    "other lengths": ({"data1": np.zeros((3, 8))}, "inputs need the shapes (N, T)"),
    "other batch": ({"data2": np.array([1, 2])}, "inputs need the shapes (N, T)"),
    "no text": ({name: array[:0] for name, array in texts().items()}, "at least one row is needed"),
    "a number": ({"data2": np.float32(3)}, "at least one row is needed"),
    "words": ({"data0": np.full((3, 9), "cat")}, "data0 is not an array of numbers"),
    "complex": ({"data0": np.ones((3, 9), complex)}, "data0 is not an array of numbers"),
    "objects": ({"data0": np.full((3, 9), None)}, "not an .npz file of plain arrays"),
    "one missing": ({"data1": None}, "the arrays must be data0, data1, data2; missing or unknown: data1"),
    "one too many": ({"data3": np.ones(3)}, "missing or unknown: data3"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_out_of_range_inputs_are_a_one_line_error(
    cli: Cli, bundles: dict[str, Path], inputs: Callable[..., Path], case: str
) -> None:
    changed, message = UNSAFE[case]
    result = cli("diff", bundles["cls"], bundles["mean"], "--inputs", inputs(**changed))
    assert message in refusal(result)
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("dtype", ["int64", "uint8", "uint16", "float64", "bool"])
def test_inputs_may_be_integers_of_any_dtype(bundles: dict[str, Path], inputs: Callable[..., Path], dtype: str) -> None:
    changed = {"data0": np.ones((3, 9), dtype)}
    (run,) = diff(bundles["cls"], bundles["cls"], inputs=inputs(**changed)).runs
    (expected,) = computed(bundles["cls"], {**texts(), "data0": np.ones((3, 9))})
    assert run.outputs[0].scale == pytest.approx(np.abs(expected).max())


def test_inputs_are_checked_against_both_symbols(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    """The second has fewer positions and words than the first."""
    rng = np.random.default_rng(0)
    small = gluonnlp_checkpoint(tmp_path, "sequence")  # 24 positions, 50 words
    arrays = {"data0": np.ones((1, 30)), "data1": np.zeros((1, 30)), "data2": np.array([30])}
    np.savez(tmp_path / "long.npz", **arrays)
    refused = refusal(cli("diff", bundles["sequence"], small, "--inputs", tmp_path / "long.npz"))
    assert f"{small}: length 30 is outside the 24 positions of the model" in refused
    arrays = {"data0": rng.integers(50, 53, size=(1, 9)), "data1": np.zeros((1, 9)), "data2": np.array([9])}
    np.savez(tmp_path / "words.npz", **arrays)
    refused = refusal(cli("diff", bundles["sequence"], small, "--inputs", tmp_path / "words.npz"))
    assert f"{small}: token ids must be integers from 0 to 49" in refused
    done = cli("diff", bundles["sequence"], small, "--run")
    assert done.code == 0, done.err
    assert "shapes (2, 16, 32) and (2, 16, 16)" in done.out


def test_positions_of_masked_tokens_are_checked(cli: Cli, tmp_path: Path) -> None:
    source = gluonnlp_checkpoint(tmp_path, "pretraining")
    done = cli("diff", source, source, "--run", "--shape", "data3=2,3")
    assert done.code == 0, done.err
    assert "no difference above the tolerance" in done.out
    for positions, fits in (([0, 8], True), ([0, 9], False), ([-1, 2], False), ([np.nan, 2], False)):
        np.savez(tmp_path / "inputs.npz", **texts(), data3=np.array([positions] * 3, np.float32))
        result = cli("diff", source, source, "--inputs", tmp_path / "inputs.npz")
        if fits:
            assert result.code == 0, result.err
        else:
            assert "positions data3 must be integers from 0 to 8" in refusal(result)


def test_lengths_are_checked_in_a_part_that_is_not_a_bert(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    rest = extract(bundles["mean"], tmp_path / "rest", ["mean"], ["layer 1"]).bundle.prefix
    fed = LAYER.format(1)
    done = cli("diff", rest, rest, "--run", "--shape", f"{fed}=2,5,32", "--shape", "data2=2")
    assert done.code == 0, done.err
    assert "no difference above the tolerance" in done.out
    values = np.random.default_rng(0).normal(size=(2, 5, 32)).astype(np.float32)
    for lengths, fits in (([5, 2], True), ([6, 2], False), ([0, 2], False), ([np.nan, 2], False), ([1.5, 2], False)):
        np.savez(tmp_path / "inputs.npz", **{fed: values, "data2": np.array(lengths, np.float32)})
        result = cli("diff", rest, rest, "--inputs", tmp_path / "inputs.npz")
        if fits:
            assert result.code == 0, result.err
        else:
            assert "lengths data2 must be integers from 1 to 5" in refusal(result)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 and no more", None])
def test_a_file_that_is_not_npz_is_a_one_line_error(
    cli: Cli, bundles: dict[str, Path], inputs: Callable[..., Path], tmp_path: Path, content: bytes | None
) -> None:
    whole = inputs().read_bytes()
    path = tmp_path / "x.npz"
    path.write_bytes(whole[:170] + b"\xff" + whole[171:] if content is None else content)
    assert "not an .npz file" in refusal(cli("diff", bundles["cls"], bundles["cls"], "--inputs", path))
    np.save(tmp_path / "x.npy", np.ones(3))
    assert "not an .npz" in refusal(cli("diff", bundles["cls"], bundles["cls"], "--inputs", tmp_path / "x.npy"))
    with pytest.raises(DataError, match="No such file"):
        diff(bundles["cls"], bundles["cls"], inputs=tmp_path / "nothing.npz")


def test_random_texts_have_a_length_that_both_symbols_take(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    fixed = gluonnlp_checkpoint(tmp_path, "static_classifier", "0.8.3")  # length 8
    free = gluonnlp_checkpoint(tmp_path, "classifier")
    (run,) = diff(free, fixed, run=True).runs
    assert all(layer.shapes is None for layer in run.layers)
    assert run.outputs[0].shapes is None
    given = refusal(cli("diff", bundles["cls"], bundles["cls"], "--run", "--shape", "data0=2,41"), code=2)
    assert "can't take length 41" in given


@pytest.mark.parametrize("rtol", [0.0, -1.0, float("nan"), float("inf")])
def test_an_invalid_tolerance_is_refused(cli: Cli, bundles: dict[str, Path], rtol: float) -> None:
    refusal(cli("diff", bundles["cls"], bundles["mean"], "--run", "--rtol", rtol), code=2)
    with pytest.raises(UsageError, match="rtol"):
        diff(bundles["cls"], bundles["mean"], rtol=rtol)


def test_incomparable_symbols_are_a_one_line_error(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    nothing = refusal(cli("diff", bundles["cls"], tmp_path / "nothing"), code=2)
    assert "no nothing-symbol.json" in nothing
    source = gluonnlp_checkpoint(tmp_path, "sequence")
    extract(source, tmp_path / "rest", ["layer 1"], ["layer 0"])
    assert "has an input" in refusal(cli("diff", source, tmp_path / "rest", "--run"), code=2)
    Path(f"{source}-0000.params").unlink()
    assert "there are no parameters" in refusal(cli("diff", bundles["cls"], source, "--run"))
