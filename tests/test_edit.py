"""edit changes names, attributes and dropout in all graphs and parameters, and outputs only if attributes are set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from conftest import Result, Tables
from refusals import refusal

from bertsym import Bundle, ModelError, ModelSource, ParamsFile, SymbolBundle, UsageError, edit, evaluate
from bertsym.mxnet_runtime import mx
from bertsym.surgery.edit import Edits

Cli = Callable[..., Result]

IMAGE = {"data": np.random.default_rng(0).normal(size=(3, 1, 6, 6))}


def nodes(prefix: Path, symbol: str = "symbol") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(f"{prefix}-{symbol}.json").read_text())["nodes"]
    return found


def test_prefixes_that_gluons_counters_made_are_renamed(cli: Cli, tmp_path: Path) -> None:
    source = gluonnlp_checkpoint(tmp_path, "classifier")
    arguments = ["--prefix", "bertencoder0_=encoder_", "--prefix", "bertmodel0_=bert_"]
    done = cli("edit", source, tmp_path / "new", *arguments, "--params", f"{source}-0000.params")
    assert done.code == 0, done.err
    assert ", verified" in done.out
    old_params, new_params = (ParamsFile(f"{prefix}-0000.params") for prefix in (source, tmp_path / "new"))
    for name, array in new_params.items():
        old = name.replace("encoder_", "bertencoder0_").replace("bert_", "bertmodel0_")
        assert np.array_equal(array, old_params[old])
    assert not any("bertencoder0_" in name or "bertmodel0_" in name for name in array_names(tmp_path / "new"))
    np.testing.assert_array_equal(computed(tmp_path / "new", texts())[0], computed(source, texts())[0])


def test_a_pattern_renames_all_matches_and_keeps_the_text_of_its_stars(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    done = cli("edit", bundles["cls"], tmp_path / "new", "--rename", "*transformer*_proj_weight=*layer*_out")
    assert done.code == 0, done.err
    assert "rename bertencoder0_transformer1_proj_weight -> bertencoder0_layer1_out" in done.out
    assert {"arg:bertencoder0_layer0_out", "arg:bertencoder0_layer1_out"} < array_names(tmp_path / "new")
    np.testing.assert_array_equal(computed(tmp_path / "new", texts())[0], computed(bundles["cls"], texts())[0])


def test_two_names_can_be_swapped(bundles: dict[str, Path], tmp_path: Path) -> None:
    names = [f"bertencoder0_transformer{i}_proj_bias" for i in (0, 1)]
    swap = Edits(renames=((names[0], names[1]), (names[1], names[0])))
    edit(bundles["cls"], tmp_path / "new", swap)
    before, after = (ParamsFile(f"{prefix}-0000.params") for prefix in (bundles["cls"], tmp_path / "new"))
    np.testing.assert_array_equal(after[names[0]], before[names[1]])
    np.testing.assert_array_equal(computed(tmp_path / "new", texts())[0], computed(bundles["cls"], texts())[0])


def test_a_classifier_with_another_name_of_its_output_still_works(
    cli: Cli, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    done = cli("edit", classifier, tmp_path / "new", "--rename", "softmax=answer", "--rename", "cls=first")
    assert done.code == 0, done.err
    assert [nodes(tmp_path / "new", symbol)[-1]["name"] for symbol in ("symbol", "train-symbol")] == ["answer"] * 2
    assert cli("verify", tmp_path / "new").code == 0
    assert cli("predict", tmp_path / "new", "--text", "a happy cat").out == (
        cli("predict", classifier, "--text", "a happy cat").out
    )
    assert evaluate(tmp_path / "new", tables.dev).metrics == evaluate(classifier, tables.dev).metrics


def test_other_parameter_names_make_a_symbol_that_is_not_fine_tuned(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    done = cli("edit", bundles["cls"], tmp_path / "new", "--prefix", "bertencoder0_=encoder_")
    assert "no longer an exported BERT" in done.err
    assert cli("inspect", tmp_path / "new").code == 0
    arguments = ["--train", tables.train, "--dev", tables.dev, tmp_path / "tuned"]
    refused = refusal(cli("finetune", tmp_path / "new", *arguments), tmp_path / "tuned-symbol.json")
    assert "not of a BERT that export writes" in refused
    back = edit(tmp_path / "new", tmp_path / "back", Edits(prefixes=(("encoder_", "bertencoder0_"),)))
    assert back.written is not None
    assert isinstance(back.written.bundle, Bundle)
    written, base = bundle_bytes(tmp_path / "back"), bundle_bytes(bundles["cls"])
    assert {name for name in base if written[name] != base[name]} == {"-manifest.json"}


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
def test_dropout_is_set_or_taken_out_and_stays_a_bert(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, output: str
) -> None:
    assert cli("edit", bundles[output], tmp_path / "half", "--dropout", 0.5).code == 0
    assert {node["attrs"]["p"] for node in nodes(tmp_path / "half") if node["op"] == "Dropout"} == {"0.5"}
    assert Bundle.open(tmp_path / "half").config.dropout == 0.5
    assert cli("edit", bundles[output], tmp_path / "none", "--dropout", "off").code == 0
    assert not [node for node in nodes(tmp_path / "none") if node["op"] == "Dropout"]
    for name in ("half", "none"):
        np.testing.assert_array_equal(computed(tmp_path / name, texts())[0], computed(bundles[output], texts())[0])
        assert cli("verify", tmp_path / name).code == 0


def test_dropout_is_removed_from_the_training_symbol_too(classifier: Path, tmp_path: Path) -> None:
    edit(classifier, tmp_path / "new", Edits(dropout="off"))
    symbol = mx.sym.load(f"{tmp_path / 'new'}-train-symbol.json")
    _, arguments, _ = mx.model.load_checkpoint(str(tmp_path / "new"), 0)
    arrays = {**arguments, **{name: mx.nd.array(array) for name, array in texts(8).items()}}
    executor = symbol.bind(mx.cpu(), {**arrays, "softmax_label": mx.nd.zeros(3)})
    trained = executor.forward(is_train=True)[0].asnumpy()
    np.testing.assert_allclose(trained, computed(classifier, texts(8))[0], atol=1e-5)


def test_an_attribute_that_changes_nothing_keeps_the_bert(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    done = cli("edit", bundles["cls"], tmp_path / "new", "--set", "cls.__note__=read by the head")
    assert done.code == 0, done.err
    assert ", verified" in done.out
    assert nodes(tmp_path / "new")[-1]["attrs"]["__note__"] == "read by the head"
    assert cli("verify", tmp_path / "new").code == 0


@pytest.mark.parametrize(
    "setting", ["*layernorm0_fwd.eps=0.1", "cls.shape=(-1, 64)", "*query_scaled.scalar=1000", "cls_slice.end=2"]
)
def test_an_attribute_that_changes_outputs_is_reported_and_ends_the_exported_bert(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, setting: str
) -> None:
    done = cli("edit", bundles["cls"], tmp_path / "new", "--set", setting)
    assert done.code == 0, done.err
    assert "its outputs differ from the original's" in done.out
    assert "verified" not in done.out
    renamed = edit(tmp_path / "new", tmp_path / "renamed", Edits(renames=(("cls", "first"),))).written
    assert renamed is not None
    assert isinstance(renamed.bundle, SymbolBundle)
    assert renamed.verified


def test_a_changed_epsilon_is_used(bundles: dict[str, Path], tmp_path: Path) -> None:
    node = "bertencoder0_layernorm0_fwd"
    edit(bundles["cls"], tmp_path / "new", Edits(attributes=((node, "eps", "0.5"),)))
    (x,) = computed(bundles["cls"], texts(), "bertencoder0_embed_output")
    params = ParamsFile(f"{bundles['cls']}-0000.params")
    centred = x - x.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 0.5)
    expected = expected * params["bertencoder0_layernorm0_gamma"] + params["bertencoder0_layernorm0_beta"]
    np.testing.assert_allclose(computed(tmp_path / "new", texts(), f"{node}_output")[0], expected, atol=1e-5)


INVALID = {
    "no such attribute": ("cls", "cls.axes=1", "Cannot find argument 'axes'"),
    "no number": ("cls", "*_fwd.eps=small", "eps is 'small', which is not a valid value"),
    "numbers lost": ("cls", "cls.shape=(-1, 31)", "cls can't reshape (2, 1, 32) into (2, 31)"),
    "axis": ("cls", "bertencoder0_layernorm0_fwd.axis=7", "Channel axis out of range"),
    "weight of another shape": ("cls", "bertmodel0_word_embed.input_dim=10", "Shape inconsistent"),
    "no such dtype": ("cls", "data0.__dtype__=99", "there is no dtype 99"),
    "training symbol only": ("classifier", "softmax.temperature=2", 'SoftmaxOutput(name="softmax"'),
    "inference symbol only": ("classifier", "softmax.grad_scale=2", 'softmax(name="softmax"'),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_attribute_that_mxnet_does_not_take_is_refused_before_anything_is_written(
    cli: Cli, bundles: dict[str, Path], classifier: Path, tmp_path: Path, case: str
) -> None:
    source, setting, message = INVALID[case]
    result = cli("edit", {**bundles, "classifier": classifier}[source], tmp_path / "out" / "x", "--set", setting)
    assert message in refusal(result, tmp_path / "out")
    assert len(result.err.splitlines()) == 1


def test_an_unknown_attribute_is_refused_where_outputs_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    net = conv_checkpoint(tmp_path)
    refused = cli("edit", net, tmp_path / "x", "--set", "conv0.kernels=9")
    assert "Cannot find argument 'kernels'" in refusal(refused, tmp_path / "x-symbol.json")


def test_a_dry_run_prints_the_changes_and_writes_nothing(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["--rename", "cls=first", "--set", "cls_slice.end=2", "--dropout", "off"]
    done = cli("edit", bundles["cls"], tmp_path / "new", *arguments, "--dry-run")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[:2] == ["rename cls -> first", "set cls_slice.end 1 -> 2"]
    assert len(lines) == 2 + sum(node["op"] == "Dropout" for node in nodes(bundles["cls"]))
    assert not list(tmp_path.iterdir())
    library = edit(bundles["cls"], None, Edits((("cls", "first"),), (), (("cls_slice", "end", "2"),), "off"))
    assert library.changes == lines
    assert library.written is None


@pytest.mark.parametrize(
    "arguments", [["--prefix", "bn0_=norm_"], ["--rename", "softmax_label=y"], ["--dropout", "off"]]
)
def test_a_checkpoint_of_module_fit_keeps_its_label_and_auxiliary_states(
    cli: Cli, tmp_path: Path, arguments: list[str]
) -> None:
    net = conv_checkpoint(tmp_path)
    done = cli("edit", net, tmp_path / "new", *arguments, "--epoch", 3, "--shape", IMAGES)
    assert done.code == 0, done.err
    assert ", verified" in done.out
    np.testing.assert_array_equal(computed(tmp_path / "new", IMAGE)[0], computed(net, IMAGE, epoch=3)[0])
    norm = "norm" if "--prefix" in arguments else "bn0"
    assert {f"aux:{norm}_moving_mean", f"arg:{norm}_gamma"} < array_names(tmp_path / "new")
    signature = json.loads(Path(f"{tmp_path / 'new'}-signature.json").read_text())
    label = "y" if "--rename" in arguments else "softmax_label"
    assert [tensor["name"] for tensor in signature["label_inputs"]] == [label]


@pytest.mark.parametrize("given", ["file", "epoch"])
def test_other_parameters_replace_those_of_a_plain_checkpoint(cli: Cli, tmp_path: Path, given: str) -> None:
    net = conv_checkpoint(tmp_path)
    arguments = ("--params", f"{net}-0003.params") if given == "file" else ("--epoch", 3)
    done = cli("edit", net, tmp_path / "new", *arguments, "--shape", IMAGES)
    assert done.code == 0, done.err
    assert f"parameters of {net}-0003.params" in done.out
    np.testing.assert_array_equal(computed(tmp_path / "new", IMAGE)[0], computed(net, IMAGE, epoch=3)[0])
    assert {"aux:bn0_moving_mean", "aux:bn0_moving_var"} < array_names(tmp_path / "new")


def renamed(arrays: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: array for name, array in arrays.items()}


UNFIT: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "name": (
        lambda arrays: renamed(arrays, "arg:fc_bias", "arg:fc_bais"),
        "1 missing: fc_bias; 1 not read by the graph: fc_bais",
    ),
    "shape": (
        lambda arrays: {**arrays, "arg:bn0_beta": mx.nd.ones((5,)), "arg:fc_bias": mx.nd.ones((3, 1))},
        "2 of another shape: bn0_beta (5,) instead of (4,), fc_bias (3, 1) instead of (3,)",
    ),
    "deeper network": (
        lambda arrays: {**arrays, "arg:conv1_weight": mx.nd.ones((2, 2))},
        "1 not read by the graph: conv1_weight",
    ),
    "names of save_parameters": (
        lambda arrays: {f"{i}.weight": array for i, array in enumerate(arrays.values())},
        "7.weight; names such as '0.weight' are those of Block.save_parameters: save the parameters with",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_parameters_that_do_not_fit_are_listed(cli: Cli, tmp_path: Path, case: str) -> None:
    change, message = UNFIT[case]
    net, params = conv_checkpoint(tmp_path), tmp_path / "other.params"
    mx.nd.save(str(params), change(mx.nd.load(f"{net}-0003.params")))
    line = refusal(cli("edit", net, tmp_path / "new", "--params", params), tmp_path / "new-symbol.json")
    assert f"{params}: not the parameters of {net}: " in line
    assert message in line


def test_an_unreadable_file_beside_the_symbol_does_not_stop_other_parameters(cli: Cli, tmp_path: Path) -> None:
    net = conv_checkpoint(tmp_path)
    Path(f"{net}-0012.params").write_bytes(b"damaged")
    assert cli("edit", net, tmp_path / "new", "--epoch", 3, "--shape", IMAGES).code == 0


def test_an_unread_array_does_not_replace_a_renamed_array(tmp_path: Path) -> None:
    source = split_checkpoint(tmp_path)
    arrays = dict(mx.nd.load(f"{source}-0000.params"))
    mx.nd.save(f"{source}-0000.params", {**arrays, "arg:w": mx.nd.zeros((3, 4))})
    edit(source, tmp_path / "new", Edits(renames=(("fc_weight", "w"),)))
    np.testing.assert_array_equal(ParamsFile(f"{tmp_path / 'new'}-0000.params")["w"], np.arange(12).reshape(3, 4))


def test_outputs_of_one_operator_keep_their_order(tmp_path: Path) -> None:
    source = split_checkpoint(tmp_path)
    edit(ModelSource(source, shapes={"x": (2, 4)}), tmp_path / "new", Edits(renames=(("cut", "columns"),)))
    assert mx.sym.load(f"{tmp_path / 'new'}-symbol.json").list_outputs() == ["columns_output2", "columns_output0"]
    x = {"x": np.eye(4)}
    for one, other in zip(computed(tmp_path / "new", x), computed(source, x)):
        np.testing.assert_array_equal(one, other)


USAGE = {
    "nothing": ([], "nothing to change"),
    "collision": (["--rename", "cls=cls_slice"], "another node has that name"),
    "collision of parameters": (
        ["--prefix", "bertencoder0_transformer0=bertencoder0_transformer1"],
        "another node has",
    ),
    "collision of prefixes": (["--prefix", "bertencoder0_=bertmodel0_"], "can't be renamed to bertmodel0_embed"),
    "two names at once": (["--rename", "cls=a", "--rename", "cl*=b*"], "would be renamed twice, to a and to bs"),
    "two to one": (["--rename", "cls=a", "--rename", "cls_slice=a"], "another node has that name"),
    "no match": (["--rename", "pooler*=p*"], "pooler*=p*: no node matches"),
    "no prefix": (["--prefix", "gpt_=x_"], "gpt_=x_: no node matches"),
    "no node to set": (["--set", "clss.x=1"], "no node is named 'clss'; did you mean cls"),
    "stars": (["--rename", "*=x"], "both sides need the same number of *"),
    "no new name": (["--rename", "cls="], "a rename is OLD=NEW"),
    "empty name": (["--prefix", "cls_slice="], "needs a name"),
    "no equals sign": (["--rename", "cls"], "is not of the form OLD=NEW"),
    "no dot": (["--set", "cls=1"], "is not of the form NODE.ATTR=VALUE"),
    "dropout of 1": (["--dropout", "1"], "neither off nor in [0, 1)"),
    "dropout below 0": (["--dropout", "-0.1"], "neither off nor in [0, 1)"),
    "dropout no number": (["--dropout", "nan"], "neither off nor in [0, 1)"),
    "dropout a word": (["--dropout", "none"], "neither a number nor off"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_usage_error_is_one_line(cli: Cli, bundles: dict[str, Path], tmp_path: Path, case: str) -> None:
    arguments, message = USAGE[case]
    result = cli("edit", bundles["cls"], tmp_path / "out" / "x", *arguments)
    assert message in refusal(result, tmp_path / "out", code=2)


def test_the_target_is_needed_and_is_never_the_original(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    assert "Missing argument 'OUT'" in refusal(cli("edit", bundles["cls"], "--dropout", "off"), code=2)
    source = gluonnlp_checkpoint(tmp_path, "sequence")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for given in (source, f"{source}-symbol.json"):
        refused = refusal(cli("edit", given, source, "--dropout", "off", "--force"), code=2)
        assert "is the input of this command" in refused
    assert "exists" in refusal(cli("edit", bundles["cls"], source, "--dropout", "off"), code=2)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    Path(f"{source}-0000.params").unlink()
    with pytest.raises(ModelError, match="there are no parameters"):
        edit(source, tmp_path / "x", Edits(dropout="off"))
    with pytest.raises(UsageError, match="folder"):
        edit(tmp_path, tmp_path / "x", Edits(dropout="off"))


def test_the_same_command_writes_the_same_bytes(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert cli("edit", classifier, tmp_path / folder / "x", "--dropout", 0.3, "--rename", "cls=c").code == 0
    assert bundle_bytes(tmp_path / "a" / "x") == bundle_bytes(tmp_path / "b" / "x")
