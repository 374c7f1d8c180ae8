"""Extract: a part of a symbol computes what mxnet's own internals are, with the parameters of that part only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
    IMAGES,
    array_names,
    bundle_bytes,
    computed,
    conv_checkpoint,
    gluonnlp_checkpoint,
    split_checkpoint,
    texts,
)
from conftest import CONFIG, Result
from refusals import refusal

from bertsym import Bundle, ExportOptions, ModelError, ParamsFile, SymbolBundle, UsageError, export, extract
from bertsym.mxnet_runtime import mx, quiet_stderr

Cli = Callable[..., Result]

LAYER = "bertencoder0_transformer{}_positionwiseffn0_layernorm0_fwd"


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of twelve layers, each of its own weights."""
    return export("random:bert_12_16_2", tmp_path_factory.mktemp("deep") / "base", ExportOptions(seed=3)).bundle.prefix


def signature(prefix: Path) -> dict[str, list[dict[str, object]]]:
    document: dict[str, list[dict[str, object]]] = json.loads(Path(f"{prefix}-signature.json").read_text())
    return document


@pytest.mark.parametrize("output", ["layer 6", LAYER.format(6), f"{LAYER.format(6)}_output"])
def test_layer_six_of_twelve_is_mxnets_own_internal_and_has_the_layers_up_to_six_only(
    cli: Cli, deep: Path, tmp_path: Path, output: str
) -> None:
    done = cli("extract", deep, tmp_path / "part", "--output", output)
    assert done.code == 0, done.err
    expected = computed(deep, texts(), f"{LAYER.format(6)}_output")
    np.testing.assert_array_equal(computed(tmp_path / "part", texts())[0], expected[0])
    layers = {
        int(number) for name in array_names(tmp_path / "part") for number in re.findall(r"transformer(\d+)", name)
    }
    assert layers == set(range(7))
    assert not any("pooler" in name for name in array_names(tmp_path / "part"))
    original, part = (ParamsFile(f"{prefix}-0000.params") for prefix in (deep, tmp_path / "part"))
    assert all(np.array_equal(part[name], original[name]) for name in part)


def test_an_internal_tensor_becomes_an_input_without_its_ancestors(deep: Path, tmp_path: Path) -> None:
    extract(deep, tmp_path / "rest", ["cls"], ["layer 6"])
    (fed,) = computed(deep, texts(), f"{LAYER.format(6)}_output")
    (expected,) = computed(deep, texts())
    mask = {name: array for name, array in texts().items() if name in ("data0", "data2")}
    (result,) = computed(tmp_path / "rest", {LAYER.format(6): fed, **mask})
    np.testing.assert_allclose(result, expected, atol=1e-6)
    names = array_names(tmp_path / "rest")
    assert names == {name for name in array_names(deep) if re.search(r"transformer(7|8|9|10|11)_", name)}
    shapes = {tensor["name"]: tensor["shape"] for tensor in signature(tmp_path / "rest")["inputs"]}
    assert shapes == {
        LAYER.format(6): ["batch", "length", 16],
        "data0": ["batch", "length"],
        "data2": ["batch"],
    }


@pytest.mark.parametrize(("made_of", "output"), [("mean", "sequence"), ("pooled", "cls"), ("cls", "cls")])
def test_a_part_that_ends_in_an_output_of_export_is_an_exported_bundle(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, made_of: str, output: str
) -> None:
    assert cli("extract", bundles[made_of], tmp_path / "part", "--output", output).code == 0
    written, exported = bundle_bytes(tmp_path / "part"), bundle_bytes(bundles[output])
    for name in exported.keys() - {"-manifest.json"}:
        assert written[name] == exported[name], name
    assert Bundle.open(tmp_path / "part").config == Bundle.open(bundles[output]).config
    assert cli("verify", tmp_path / "part").code == 0


def test_the_encoder_of_a_classifier_can_be_trained_again(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    extract(classifier, tmp_path / "encoder", ["cls"])
    done = cli("graft", tmp_path / "encoder", tmp_path / "again", "--num-classes", 3)
    assert done.code == 0, done.err
    assert Bundle.open(tmp_path / "again").signature.kind == "classifier"


def test_another_part_is_inspected_but_not_trained_on(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    done = cli("extract", bundles["cls"], tmp_path / "part", "--output", "layer 0")
    assert "no longer an exported BERT" in done.err
    assert cli("inspect", tmp_path / "part").code == 0
    data = tmp_path / "data.tsv"
    data.write_text("label\ttext\na\tthe cat\nb\tthe dog\n")
    refused = cli("finetune", tmp_path / "part", "--train", data, "--dev", data, tmp_path / "out")
    assert "not of a BERT that export writes" in refusal(refused, tmp_path / "out-symbol.json")


def test_the_part_loads_as_a_symbol_block(bundles: dict[str, Path], tmp_path: Path) -> None:
    prefix = extract(bundles["cls"], tmp_path / "part", ["layer 0", "cls"]).bundle.prefix
    names = ["data0", "data1", "data2"]
    block = mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", names, f"{prefix}-0000.params")
    results = [array.asnumpy() for array in block(*(mx.nd.array(texts()[name]) for name in names))]
    for result, expected in zip(results, [LAYER.format(0), "cls"]):
        np.testing.assert_array_equal(result, computed(bundles["cls"], texts(), f"{expected}_output")[0])


@pytest.mark.parametrize("name", ["pooled", "pretraining", "roberta"])
@pytest.mark.parametrize("version", ["0.8.3", "0.10.0"])
def test_layers_of_gluonnlps_own_symbols_are_extracted(cli: Cli, tmp_path: Path, name: str, version: str) -> None:
    if (version, name) == ("0.8.3", "pooled"):
        name = "classifier"
    source = gluonnlp_checkpoint(tmp_path, name, version)
    out = tmp_path / "part"
    done = cli("extract", source, out, "--output", "layer 0", "--params", f"{source}-0000.params")
    assert done.code == 0, done.err
    assert ", verified" in done.out
    (tensor,) = signature(out)["outputs"]
    inputs = {entry["name"]: texts()[str(entry["name"])] for entry in signature(out)["inputs"]}
    if name == "roberta":  # words and lengths
        inputs = {"data0": texts()["data0"], "data1": texts()["data2"]}
    given = {str(key): array for key, array in inputs.items()}
    expected = computed(source, given, str(tensor["name"]))
    np.testing.assert_array_equal(computed(out, given)[0], expected[0])
    assert "transformer0" in str(tensor["name"])
    assert not any("transformer1" in array for array in array_names(out))


@pytest.mark.parametrize("epoch", [3, 12])
def test_a_checkpoint_with_auxiliary_states_of_an_epoch(cli: Cli, tmp_path: Path, epoch: int) -> None:
    net = conv_checkpoint(tmp_path)
    done = cli("extract", net, tmp_path / "part", "--output", "bn0", "--shape", IMAGES, "--epoch", epoch)
    assert done.code == 0, done.err
    images = {"data": np.random.default_rng(0).normal(size=(5, 1, 6, 6))}
    (expected,) = computed(net, images, "bn0_output", epoch)
    np.testing.assert_array_equal(computed(tmp_path / "part", images)[0], expected)
    assert {"aux:bn0_moving_mean", "aux:bn0_moving_var"} < array_names(tmp_path / "part")
    assert "arg:fc_weight" not in array_names(tmp_path / "part")


def test_a_training_symbol_keeps_its_label(cli: Cli, tmp_path: Path) -> None:
    net = conv_checkpoint(tmp_path)
    done = cli("extract", net, tmp_path / "part", "--output", "softmax", "--input", "flat", "--shape", IMAGES)
    assert done.code == 0, done.err
    assert [tensor["name"] for tensor in signature(tmp_path / "part")["label_inputs"]] == ["softmax_label"]
    flat = np.random.default_rng(0).normal(size=(2, 64))
    _, params, _ = mx.model.load_checkpoint(str(net), 12)
    logits = flat @ params["fc_weight"].asnumpy().T + params["fc_bias"].asnumpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(computed(tmp_path / "part", {"flat": flat})[0], expected, rtol=1e-4)


def test_any_output_of_an_operator_with_several(cli: Cli, tmp_path: Path) -> None:
    source = split_checkpoint(tmp_path)
    shape = ["--shape", "x=2,4"]
    done = cli("extract", source, tmp_path / "part", "--output", "cut:1", "--output", "fc", *shape)
    assert done.code == 0, done.err
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    expected = x @ np.arange(12).reshape(3, 4).T + [1, 2, 3]
    column, whole = computed(tmp_path / "part", {"x": x})
    np.testing.assert_allclose(column, expected[:, 1:2], rtol=1e-5)
    np.testing.assert_allclose(whole, expected, rtol=1e-5)
    outputs = [(tensor["name"], tensor["shape"]) for tensor in signature(tmp_path / "part")["outputs"]]
    assert outputs == [("cut_output1", [2, 1]), ("fc_output", [2, 3])]
    assert mx.sym.load(f"{tmp_path / 'part'}-symbol.json").list_outputs() == [name for name, _ in outputs]


def test_an_unknown_input_shape_is_noted_as_not_compared(cli: Cli, tmp_path: Path) -> None:
    done = cli("extract", conv_checkpoint(tmp_path), tmp_path / "part", "--output", "flat")
    assert done.code == 0
    assert "not compared with the original: the shape of data is unknown" in done.err
    assert "verified" not in done.out


def test_the_same_command_writes_the_same_bytes(cli: Cli, deep: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert cli("extract", deep, tmp_path / folder / "part", "--output", "layer 2").code == 0
    assert bundle_bytes(tmp_path / "a" / "part") == bundle_bytes(tmp_path / "b" / "part")


def test_nothing_is_overwritten_unless_it_is_asked_for(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "part"
    assert cli("extract", bundles["cls"], out, "--output", "layer 0").code == 0
    before = bundle_bytes(out)
    assert "exists" in refusal(cli("extract", bundles["cls"], out, "--output", "layer 1"), code=2)
    assert bundle_bytes(out) == before
    assert cli("extract", bundles["cls"], out, "--output", "layer 1", "--force").code == 0
    assert bundle_bytes(out) != before


@pytest.mark.parametrize("given", ["net", "net-symbol.json"])
def test_the_original_is_never_overwritten(cli: Cli, tmp_path: Path, given: str) -> None:
    net = conv_checkpoint(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused = cli("extract", tmp_path / given, net, "--output", "flat", "--force", "--shape", IMAGES)
    assert "is the input of this command" in refusal(refused, code=2)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


USAGE = {
    "unknown node": (["--output", "clss"], "did you mean cls or cls_slice?"),
    "nothing near": (["--output", "zzzzzz"], "no node is named 'zzzzzz'"),
    "no such layer": (["--output", "layer 9"], "has layers 0 to 1"),
    "no such output": (["--output", "cls:1"], "there is no cls:1"),
    "no output": ([], "Missing option '--output'"),
    "output twice": (["--output", "cls", "--output", "cls_output"], "an output is repeated"),
    "not needed": (["--output", "layer 0", "--input", "cls_slice"], "no output needs cls_slice"),
    "both": (["--output", "cls", "--input", "cls"], "both an input and an output"),
    "a variable": (["--output", "cls", "--input", "data0"], "is a variable already"),
    "input twice": (["--output", "cls", "--input", "layer 0", "--input", LAYER.format(0)], "repeated as an input"),
    "input of another shape": (["--output", "cls", "--input", "layer 0:N,T,33"], "has the shape (N, T, 32)"),
    "input of another rank": (["--output", "cls", "--input", "layer 0:N,32"], "has the shape (N, T, 32)"),
    "shape of no input": (["--output", "cls", "--shape", "words=2,3"], "has no input 'words'"),
    "shape of one axis": (["--output", "cls", "--shape", "data0=3"], "can't have the shape (3,)"),
    "shapes that differ": (["--output", "cls", "--shape", "data0=2,9", "--shape", "data2=3"], "can't have the shape"),
    "too long": (["--output", "cls", "--shape", "data0=2,41"], f"has {CONFIG['max_position_embeddings']} positions"),
    "no such epoch": (["--output", "cls", "--epoch", "7"], "cls-0007.params: no such file"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_usage_error_is_one_line(cli: Cli, bundles: dict[str, Path], tmp_path: Path, case: str) -> None:
    arguments, message = USAGE[case]
    result = cli("extract", bundles["cls"], tmp_path / "out" / "part", *arguments)
    assert message in refusal(result, tmp_path / "out", code=2)
    assert len(result.err.splitlines()) == 1


def test_missing_or_misshapen_parameters_are_a_one_line_error(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    source = gluonnlp_checkpoint(tmp_path, "sequence")
    other = cli("extract", bundles["cls"], tmp_path / "x", "--output", "cls", "--params", f"{source}-0000.params")
    assert "has shape (50, 16), the graph implies (53, 32)" in refusal(other, tmp_path / "x-symbol.json")
    Path(f"{source}-0000.params").unlink()
    missing = cli("extract", source, tmp_path / "x", "--output", "layer 0")
    assert "there are no parameters beside sequence-symbol.json" in refusal(missing, tmp_path / "x-symbol.json")
    with pytest.raises(UsageError, match="at least one output"):
        extract(bundles["cls"], tmp_path / "x", [])
    mx.nd.save(f"{source}-0000.params", {"arg:bertencoder0_position_weight": mx.nd.ones((24, 16))})
    with pytest.raises(ModelError, match="parameters of the graph are missing"):
        extract(source, tmp_path / "x", ["layer 0"])
    assert not list(tmp_path.glob("*x-*"))


def test_a_part_can_be_extracted_from_an_extracted_part(bundles: dict[str, Path], tmp_path: Path) -> None:
    extract(bundles["pooled"], tmp_path / "a", ["layer 1", "layer 0"])
    part = extract(tmp_path / "a", tmp_path / "b", ["layer 0"])
    assert isinstance(part.bundle, SymbolBundle)
    assert part.verified
    expected = computed(bundles["pooled"], texts(), f"{LAYER.format(0)}_output")
    np.testing.assert_array_equal(computed(tmp_path / "b", texts())[0], expected[0])


# Operators that MXNet must not be given


def with_unsafe_operators(folder: Path) -> Path:
    """PREFIX of x -> Custom -> fc -> relu -> WarpCTC, as a speech network that needs plugins to run."""
    variables = ["x", "fc_weight", "fc_bias", "label"]
    nodes: list[dict[str, object]] = [{"op": "null", "name": name, "inputs": []} for name in variables]
    nodes += [
        {"op": "Custom", "name": "plugin", "attrs": {"op_type": "filters"}, "inputs": [[0, 0, 0]]},
        {
            "op": "FullyConnected",
            "name": "fc",
            "attrs": {"num_hidden": "3"},
            "inputs": [[4, 0, 0], [1, 0, 0], [2, 0, 0]],
        },
        {"op": "Activation", "name": "relu", "attrs": {"act_type": "relu"}, "inputs": [[5, 0, 0]]},
        {"op": "WarpCTC", "name": "ctc", "attrs": {"label_length": "2"}, "inputs": [[6, 0, 0], [3, 0, 0]]},
    ]
    document = {"nodes": nodes, "arg_nodes": [0, 1, 2, 3], "heads": [[7, 0, 0]]}
    (folder / "m-symbol.json").write_text(json.dumps(document))
    arrays = {"arg:fc_weight": mx.nd.ones((3, 4)), "arg:fc_bias": mx.nd.zeros((3,))}
    mx.nd.save(str(folder / "m-0000.params"), arrays)
    return folder / "m"


def test_a_part_is_taken_out_between_operators_that_must_not_run(cli: Cli, tmp_path: Path) -> None:
    """The original can't be run, so that nothing is compared; the part itself loads and is checked."""
    prefix = with_unsafe_operators(tmp_path)
    done = cli("extract", prefix, tmp_path / "part", "--output", "relu", "--input", "plugin:2,4")
    assert done.code == 0, done.err
    assert "note: not compared with the original: " in done.err
    assert "node 'plugin' has the operator 'Custom', which is not allowed" in done.err
    assert f"wrote {tmp_path / 'part'}-*, not compared; 2 arrays" in done.out
    assert "inputs: plugin (2, 4)" in done.out
    with quiet_stderr():
        block = mx.gluon.SymbolBlock.imports(f"{tmp_path}/part-symbol.json", ["plugin"], f"{tmp_path}/part-0000.params")
    assert block(mx.nd.ones((2, 4))).asnumpy().tolist() == [[4.0] * 3] * 2


def test_a_part_before_an_operator_that_must_not_run_is_compared(cli: Cli, tmp_path: Path) -> None:
    prefix = with_unsafe_operators(tmp_path)
    text = Path(f"{prefix}-symbol.json").read_text()
    Path(f"{prefix}-symbol.json").write_text(text.replace('"Custom"', '"tanh"').replace('{"op_type": "filters"}', "{}"))
    for command in (
        ("extract", prefix, tmp_path / "a", "--output", "relu"),
        ("graft", prefix, tmp_path / "b", "--at", "relu", "--head", "regression"),
    ):
        done = cli(*command, "--shape", "x=2,4")
        assert (done.code, ", verified; " in done.out) == (0, True), done.err


def test_an_operator_that_stays_and_must_not_run_is_refused(cli: Cli, tmp_path: Path) -> None:
    prefix = with_unsafe_operators(tmp_path)
    for ends in (["--output", "relu"], ["--output", "ctc", "--input", "plugin"]):
        line = refusal(cli("extract", prefix, tmp_path / "part", *ends), tmp_path / "part-symbol.json")
        assert "which is not allowed" in line
