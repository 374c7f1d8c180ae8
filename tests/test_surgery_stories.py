"""Typical uses of old exports: free a fixed length, use an inner layer, train elsewhere and return."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import gluonnlp_checkpoint
from conftest import Result, Tables
from refusals import refusal

from bertsym import (
    Bundle,
    Classifier,
    FinetuneOptions,
    ModelError,
    ParamsFile,
    SymbolBundle,
    extract,
    finetune,
    inspect,
)
from bertsym.analysis.classifier_report import InputKind
from bertsym.bundle import open_any
from bertsym.model import open_model
from bertsym.mxnet_runtime import mx
from bertsym.surgery.output_comparison import difference

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def locked(bundles: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier on the whole sequence, as MXNet's Clojure example made them: locked to 24 tokens."""
    options = FinetuneOptions(epochs=1, max_length=24, whole_sequence=True)
    prefix = tmp_path_factory.mktemp("locked") / "locked"
    return finetune(bundles["sequence"], tables.train, tables.dev, prefix, options=options).bundle.prefix


# An old head that locks the length


def test_the_part_upstream_of_a_head_of_fixed_length_takes_any_length(cli: Cli, locked: Path, tmp_path: Path) -> None:
    assert inspect(locked).classifiers[0].locked_length == 24
    done = cli("extract", locked, tmp_path / "part", "--output", "layer 1")
    assert "outputs: bertencoder0_transformer1_positionwiseffn0_layernorm0_fwd_output (batch, length, 32)" in done.out
    symbol = mx.sym.load(f"{tmp_path / 'part'}-symbol.json")
    _, (shape,), _ = symbol.infer_shape(data0=(3, 11), data1=(3, 11), data2=(3,))
    assert shape == (3, 11, 32)


def test_a_new_head_on_cls_frees_the_length_and_gives_a_bert_bundle(cli: Cli, locked: Path, tmp_path: Path) -> None:
    out = tmp_path / "unlocked"
    done = cli("graft", locked, out, "--at", "sequence", "--cls-slice", "--num-classes", 5)
    assert (done.code, done.err) == (0, "")
    bundle = Bundle.open(out)
    assert (bundle.signature.output, bundle.signature.length, bundle.signature.max_length) == ("cls", None, 40)
    assert inspect(out).sentences[0].endswith("[CLS], position 0 of the sequence: (N, 32)")


# From an inner layer on


def test_a_bert_of_the_first_layers_can_be_fine_tuned(
    cli: Cli, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    grafted, base = tmp_path / "grafted", tmp_path / "base"
    assert cli("graft", classifier, grafted, "--at", "Layer 0", "--cls-slice").code == 0
    assert cli("graft", grafted, base, "--head", "none").code == 0
    assert Bundle.open(base).config.num_layers == 1
    assert cli("verify", base).code == 0
    train = ["--train", tables.train, "--dev", tables.dev, "--epochs", 1]
    assert cli("finetune", base, *train, tmp_path / "tuned").code == 0


def test_the_embeddings_can_be_extracted_by_name(classifier: Path, tmp_path: Path) -> None:
    bundle = extract(classifier, tmp_path / "embeddings", ["embeddings"]).bundle
    assert bundle.signature.to_json()["outputs"][0]["name"] == "bertencoder0_layernorm0_fwd_output"


def test_the_output_of_a_time_major_layer_is_transposed_for_its_head(cli: Cli, tmp_path: Path) -> None:
    """GluonNLP 0.10 runs its layers as (T, N, U)."""
    old, out = gluonnlp_checkpoint(tmp_path, "classifier"), tmp_path / "tagger"
    done = cli("graft", old, out, "--at", "layer 1", "--head", "tagging", "--num-classes", 3)
    assert done.code == 0, done.err
    assert "outputs: softmax_output (batch, length, 3)" in done.out
    report = inspect(out).classifiers[0]
    assert (report.kind, report.shape) == (InputKind.TOKENS, ("N", "T", 16))


def test_grafting_a_head_onto_a_head_is_refused(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    line = refusal(cli("graft", classifier, tmp_path / "out", "--at", "softmax"), tmp_path / "out-symbol.json", 2)
    assert line == "Error: softmax is part of the head fc-finetune: remove the head first, with --head none"


# There and back


@pytest.fixture
def trained(bundles: dict[str, Path], cli: Cli, tmp_path: Path) -> tuple[Path, Path]:
    """A grafted bundle, and the parameters that Module fitted on its training symbol."""
    out = tmp_path / "grafted"
    assert cli("graft", bundles["cls"], out).code == 0
    _, arguments, auxiliary = mx.model.load_checkpoint(str(out), 0)
    symbol = mx.sym.load(f"{out}-train-symbol.json")
    module = mx.mod.Module(symbol, data_names=["data0", "data1", "data2"], label_names=["softmax_label"])
    ids = np.random.default_rng(0).integers(6, 40, size=(8, 6))
    data = {"data0": ids, "data1": np.zeros_like(ids), "data2": np.full(8, 6)}
    rows = mx.io.NDArrayIter(data, {"softmax_label": ids[:, 1] > 20}, batch_size=8)
    module.fit(rows, arg_params=arguments, aux_params=auxiliary, num_epoch=1, optimizer="adam")
    module.save_checkpoint(str(tmp_path / "trained"), 3)
    return out, tmp_path / "trained-0003.params"


def test_parameters_trained_in_mxnet_make_a_trained_classifier(
    cli: Cli, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    grafted, params = trained
    with pytest.raises(ModelError, match="untrained head"):
        Classifier(grafted)
    done = cli("edit", grafted, tmp_path / "model", "--params", params)
    assert done.code == 0, done.err
    assert f"parameters of {params}" in done.out
    for name, array in ParamsFile(params).items():
        np.testing.assert_array_equal(ParamsFile(f"{tmp_path / 'model'}-0000.params")[name], array)
    classifier = Classifier(tmp_path / "model")
    assert classifier.predict(["the cat"])[0].label in ("0", "1")
    # What it was trained on is not known.
    assert classifier.predict(["the cat"], ["a dog"])[0].label in ("0", "1")


def test_parameters_of_another_model_are_refused(
    cli: Cli, trained: tuple[Path, Path], bundles: dict[str, Path], tmp_path: Path
) -> None:
    done = cli("edit", trained[0], tmp_path / "model", "--params", f"{bundles['cls']}-0000.params")
    assert done.code == 1
    message = f"not the parameters of {trained[0]}: 2 missing: fc-finetune_weight, fc-finetune_bias"
    assert message in done.error_line
    assert not (tmp_path / "model-symbol.json").exists()


def test_a_params_file_of_an_epoch_names_the_checkpoint(cli: Cli, trained: tuple[Path, Path]) -> None:
    grafted, params = trained
    facts = inspect(params)
    assert (facts.params, facts.symbol) == (str(params), str(params.with_name("trained-symbol.json")))
    done = cli("diff", params, grafted)
    assert "- softmax_label" in done.out
    assert "39 of 39 with other values" in done.out


def test_an_overwritten_bundle_is_reported_with_the_fix(cli: Cli, trained: tuple[Path, Path]) -> None:
    """Module.save_checkpoint writes PREFIX-symbol.json, too."""
    grafted, params = trained
    shutil.copy(params.with_name("trained-symbol.json"), f"{grafted}-symbol.json")
    line = cli("inspect", grafted).error_line
    assert line.endswith("to use the files as they are, give --params too")
    assert cli("inspect", grafted, "--params", f"{grafted}-0000.params").code == 0


# What the numbers say


def test_elements_that_are_nan_are_counted() -> None:
    one, other = np.array([1.0, 2.0, np.nan]), np.array([1.0, np.inf, np.nan])
    assert str(difference("x", one, other)) == "x: 1 and 2 elements are not finite"
    assert difference("x", one, one).relative == 0


def test_outputs_that_operator_fusion_corrupts_are_named(cli: Cli, tmp_path: Path) -> None:
    layer = mx.sym.FullyConnected(mx.sym.var("x"), num_hidden=4, name="layer")
    symbol = mx.sym.FullyConnected(mx.sym.Activation(layer, act_type="tanh", name="act"), num_hidden=2, name="last")
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(x=(2, 3))[0]))
    values = {name: mx.nd.random.normal(shape=shape) for name, shape in shapes.items() if name != "x"}
    mx.model.save_checkpoint(str(tmp_path / "net"), 0, symbol, values, {})
    done = cli(
        "extract", tmp_path / "net", tmp_path / "two", "--output", "layer", "--output", "act", "--shape", "x=2,3"
    )
    assert done.code == 0
    assert "MXNet 1.9.1 computes act incorrectly unless MXNET_SUBGRAPH_BACKEND=NONE is set" in done.err


def test_the_parameters_of_another_model_are_detected(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    mx.nd.save(str(tmp_path / "other.params"), {"arg:a": mx.nd.ones((2,)), "arg:b": mx.nd.ones((2,))})
    done = cli("inspect", f"{bundles['cls']}-symbol.json", "--params", tmp_path / "other.params")
    assert "2 arrays, none of which the graph reads" in done.out
    table = "bertencoder0_position_weight"
    values = {**ParamsFile(f"{bundles['cls']}-0000.params"), table: np.ones((3, 5), np.float32)}
    mx.nd.save(str(tmp_path / "wrong.params"), {f"arg:{name}": mx.nd.array(array) for name, array in values.items()})
    model = open_model(f"{bundles['cls']}-symbol.json", tmp_path / "wrong.params")
    assert model.misshapen == [table]
    done = cli("inspect", f"{bundles['cls']}-symbol.json", "--params", tmp_path / "wrong.params")
    assert f"shape differs from the graph: {table}" in done.out


def test_an_empty_prefix_is_not_a_folder(cli: Cli) -> None:
    assert (
        cli("inspect", "").error_line
        == "Error: the PREFIX is empty: give a folder and the start of a file name, such as out/model"
    )


def test_free_axes_have_one_name_in_a_signature(classifier: Path, tmp_path: Path) -> None:
    """Of N*heads as of N."""
    prefix = extract(classifier, tmp_path / "scores", ["bertencoder0_transformer0_scores"]).bundle.prefix
    bundle = open_any(prefix)
    assert isinstance(bundle, SymbolBundle)
    assert bundle.signature.outputs[0].shape == ("4*batch", "length", "length")
