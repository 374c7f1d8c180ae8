"""The engine onnxruntime: the same numbers as MXNet within 1e-5 of their scale, the same checks and limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from checkpoints import conv_checkpoint, gluonnlp_checkpoint
from conftest import Result, Tables, in_turn
from refusals import refusal
from tools import needs

from bertsym import (
    Bundle,
    Classifier,
    DataError,
    EvaluateOptions,
    ModelError,
    UsageError,
    evaluate,
    lower,
    open_model,
    using_engine,
    verify,
)
from bertsym.cli.group import cli as cli_group
from bertsym.encoders.catalogue import OUTPUTS
from bertsym.encoders.forms import FORMS
from bertsym.errors import InstallationError
from bertsym.execution import model_values, sample_inputs, sandbox, tensor_shapes
from bertsym.execution.engines import ENGINES, engine_name, load_engine
from bertsym.execution.engines.onnxruntime import Session
from bertsym.mxnet_runtime import mx
from bertsym.reference.functions import ACTIVATIONS
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import shapes_of

pytestmark = needs("onnx", "onnxruntime")

Cli = Callable[..., Result]
RTOL = 1e-5  #: largest difference from MXNet, as a fraction of the scale


@pytest.fixture
def onnxruntime() -> Iterator[None]:
    with using_engine("onnxruntime"):
        yield


def assert_as_mxnet(prefix: Path, **shapes: tuple[int, ...]) -> None:
    """Outputs, their names and all shapes are the same by both engines."""
    model = open_model(prefix)
    inputs = sample_inputs(model, shapes)
    found: dict[str, Any] = {}
    for engine in ("mxnet", "onnxruntime"):
        with using_engine(engine):
            names = load_engine(engine).list_outputs(model.graph.to_json(), "it")
            known = tensor_shapes(model.graph, {**model.param_shapes, **shapes_of(inputs)}, "it")
            found[engine] = names, {str(output): shape for output, shape in known.items()}, model_values(model, inputs)
    (names, known, expected), (same_names, same_shapes, values) = found["mxnet"], found["onnxruntime"]
    assert (same_names, same_shapes) == (names, known)
    for one, other in zip(expected, values):
        assert other.dtype == np.float32
        assert np.abs(one - other).max() <= RTOL * np.abs(one).max()


# Numbers, names, shapes


@pytest.mark.parametrize(("output", "form"), in_turn([*OUTPUTS, "sequence"], FORMS))
def test_every_output_in_every_form_is_as_by_mxnet(exported: Callable[..., Path], form: str, output: str) -> None:
    assert_as_mxnet(exported(output=output, form=form))


@pytest.mark.parametrize("task", ["classification", "regression", "qa"])
def test_every_finished_head_is_as_by_mxnet(exported: Callable[..., Path], task: str) -> None:
    assert_as_mxnet(exported(task=task))


@pytest.mark.parametrize("version", ["0.6.0", "0.8.3", "0.9.2", "0.10.0"])
def test_exports_of_gluonnlp_have_the_shapes_of_mxnet(tmp_path: Path, version: str) -> None:
    assert_as_mxnet(gluonnlp_checkpoint(tmp_path, "classifier", version))


def test_predictions_and_metrics_are_as_by_mxnet(classifier: Path, tables: Tables) -> None:
    texts = ["the happy cat sat", "a sad dog", "the sad bird ran under the old house quickly"]
    predicted = {}
    for engine in ("mxnet", "onnxruntime"):
        with using_engine(engine):
            rows = Classifier(classifier).predict(texts)
            metrics = evaluate(classifier, tables.dev, EvaluateOptions(batch_size=5)).metrics
            predicted[engine] = [list(row.probabilities.values()) for row in rows], metrics
    (expected, metrics), (found, same_metrics) = predicted["mxnet"], predicted["onnxruntime"]
    np.testing.assert_allclose(found, expected, atol=RTOL)
    assert same_metrics == pytest.approx(metrics, abs=1e-5)


# Verification


def test_verify_prints_which_engine_computed(cli: Cli, classifier: Path) -> None:
    result = cli("verify", classifier, "--engine", "onnxruntime")
    assert result.code == 0, result.err
    assert {line.split()[0] for line in result.out.splitlines() if line.startswith("  ")} == {"onnxruntime", "train"}
    assert "verified by onnxruntime" in result.out
    assert "GluonNLP" not in result.out


@pytest.mark.usefixtures("onnxruntime")
def test_lower_writes_the_same_files_and_notes_the_engine(bundles: dict[str, Path], tmp_path: Path) -> None:
    written = lower(bundles["pooled"], tmp_path / "one", target="1.9", form="fast")
    assert written.verified
    assert written.loaders == ["onnxruntime"]
    assert written.bundle.manifest["verification"]["engine"].startswith("onnxruntime ")
    assert {check.loader for check in verify(tmp_path / "one")} == {"onnxruntime"}
    with using_engine("mxnet"):
        lower(bundles["pooled"], tmp_path / "two", target="1.9", form="fast")
    for path in tmp_path.glob("one-*"):
        same = path.read_bytes() == path.with_name(path.name.replace("one-", "two-")).read_bytes()
        assert same is ("manifest" not in path.name)


def test_a_graph_that_computes_something_else_is_found(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    done = cli("diff", bundles["cls"], bundles["mean"], "--run", "--engine", "onnxruntime", "--exit-code")
    assert done.code == 1, done.err


def test_an_onnx_file_is_compared_with_the_reference_encoder(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("onnx", bundles["pooled"], tmp_path / "it.onnx", "--engine", "onnxruntime")
    assert "verified in onnxruntime" in cli(*command).out
    monkeypatch.setitem(ACTIVATIONS, "gelu", lambda x: np.maximum(x, 0))
    assert "the outputs differ from those of the original" in refusal(cli(*command, "--force"))


def test_an_onnx_file_of_another_symbol_is_not_verified_without_mxnet(cli: Cli, tmp_path: Path) -> None:
    prefix = gluonnlp_checkpoint(tmp_path, "classifier")
    command = ("onnx", prefix, tmp_path / "it.onnx", "--engine", "onnxruntime")
    assert "not verified: without mxnet only the bundle of a BERT" in refusal(cli(*command), tmp_path / "it.onnx")
    done = cli(*command, "--no-verify")
    assert (done.code, "not verified" in done.out) == (0, True)


# Checks and limits


@pytest.mark.usefixtures("onnxruntime")
def test_inputs_are_checked_as_for_mxnet(bundles: dict[str, Path]) -> None:
    model = open_model(bundles["cls"])
    inputs = sample_inputs(model)
    wrong = {**inputs, "data2": inputs["data2"] + inputs["data0"].shape[1]}
    with pytest.raises(DataError, match="valid_length must be integers from 1 to 16"):
        model_values(model, wrong)


@pytest.mark.usefixtures("onnxruntime")
def test_an_untrusted_graph_runs_in_the_sandbox_with_its_limits(tmp_path: Path, cli: Cli) -> None:
    prefix = gluonnlp_checkpoint(tmp_path, "classifier")
    model = open_model(prefix)
    assert not model.trusted
    sandbox._stop()
    model_values(model, sample_inputs(model))
    assert list(sandbox._running) == ["onnxruntime"]
    x = mx.sym.var("x")
    mx.sym.sum(mx.sym.exp(mx.sym.broadcast_axis(x, axis=(0, 1), size=(1 << 15, 1 << 15))), axis=0).save(
        f"{tmp_path / 'large'}-symbol.json"
    )
    mx.nd.save(f"{tmp_path / 'large'}-0000.params", {})
    line = refusal(
        cli("diff", tmp_path / "large", tmp_path / "large", "--run", "--shape", "x=1,1", "--engine", "onnxruntime")
    )
    assert "onnxruntime can't run it" in line or "onnxruntime crashed on it" in line or "too large" in line


@pytest.mark.usefixtures("onnxruntime")
def test_an_unconvertible_graph_is_refused_with_the_node(tmp_path: Path) -> None:
    model = open_model(conv_checkpoint(tmp_path))
    message = r"node 'conv0' \(Convolution\) does not convert to ONNX; the engine mxnet runs it"
    with pytest.raises(ModelError, match=message):
        model_values(model, sample_inputs(model, {"data": (2, 1, 6, 6)}))


@pytest.mark.usefixtures("onnxruntime")
def test_devices_are_refused(classifier: Path) -> None:
    with pytest.raises(UsageError, match="the engine onnxruntime runs on the CPU only"):
        Classifier(classifier, "gpu:0")


def test_a_child_opens_a_session_of_its_own_after_a_fork(bundles: dict[str, Path]) -> None:
    bundle = Bundle.open(bundles["cls"])
    inputs = sample_inputs(open_model(bundles["cls"]))
    session = Session(bundle.graph(), bundle.params(), shapes_of(inputs), "it")
    expected = session.run(inputs)[0]
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, session.run(inputs)[0].tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        found = np.frombuffer(file.read(), np.float32)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(found, expected.ravel())


# Choosing


def test_mxnet_is_the_default_and_other_names_are_refused() -> None:
    assert engine_name() == "mxnet"
    with using_engine("onnxruntime"):
        assert engine_name() == "onnxruntime"
    with pytest.raises(UsageError, match="engine 'torch' is not one of mxnet, onnxruntime"), using_engine("torch"):
        pass


@pytest.mark.parametrize("command", ["export", "lower", "verify", "predict", "evaluate", "diff", "onnx", "extract"])
def test_every_engine_can_be_chosen(command: str) -> None:
    found = cli_group.get_command(click.Context(cli_group), command)
    assert found is not None
    (option,) = (each for each in found.params if each.name == "engine")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == [*ENGINES, *(["auto"] if command == "predict" else [])]


def test_an_engine_that_is_not_installed_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsym.execution.engines.is_installed", lambda name: name != "onnx")
    message = "engine onnxruntime is not installed; run: .* install onnxruntime onnx$"
    with pytest.raises(InstallationError, match=message), using_engine("onnxruntime"):
        pass


def test_shapes_follow_from_those_of_inputs_without_parameters(bundles: dict[str, Path]) -> None:
    """As MXNet infers them: a layer's weight from what it reads."""
    graph = SymbolGraph.load(f"{bundles['pooled']}-symbol.json")
    shapes = {"data0": (2, 7), "data1": (2, 7), "data2": (2,)}
    by_engine = [load_engine(name).infer_shapes(graph.to_json(), "it", shapes) for name in ("mxnet", "onnxruntime")]
    arguments, same = ({name: tuple(shape or ()) for name, shape in found[0].items()} for found in by_engine)
    assert same == arguments
