"""A symbol without the input of token types: every command feeds the inputs that the signature lists."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables
from headed import headed_weights, write_headed
from runs import OPTIONS, Run, files
from signed_bundle import SignedBundle
from tools import needs

from bertsym import (
    Bundle,
    Classifier,
    ExportOptions,
    QuantizeOptions,
    UsageError,
    evaluate,
    export,
    open_model,
    quantize,
    using_engine,
)
from bertsym.encoders.forms import FORMS
from bertsym.execution import model_values, sample_inputs

Cli = Callable[..., Result]

TWO = ("data0", "data2")
TYPES = "bert.embeddings.token_type_embeddings.weight"
LABELS = {"0": "no", "1": "yes"}


def write_source(folder: Path, task: str = "classification", **changes: Any) -> Path:
    """The tiny BERT with a trained head and one token type, in Hugging Face's format."""
    weights = headed_weights(task)
    weights[TYPES] = weights[TYPES][1:]
    if task == "classification":
        weights.update({name: weights[name][:2] for name in ("classifier.weight", "classifier.bias")})
        changes["id2label"] = LABELS
    return write_headed(folder, task, weights, type_vocab_size=1, **changes)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def three(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of the classifier with all inputs."""
    return export(f"hf:{source}", tmp_path_factory.mktemp("three") / "m").bundle.prefix


@pytest.fixture(scope="module")
def two(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of the same classifier without token types."""
    options = ExportOptions(inputs=TWO)
    return export(f"hf:{source}", tmp_path_factory.mktemp("two") / "m", options).bundle.prefix


def listed(prefix: Path) -> list[str]:
    """The inputs in the signature."""
    signature = json.loads(prefix.with_name(f"{prefix.name}-signature.json").read_text())
    return [tensor["name"] for tensor in signature["inputs"]]


def values(prefix: Path) -> Any:
    """The output on random texts, with token types of zeros where the symbol takes them."""
    model = open_model(prefix)
    assert model.encoder is not None
    inputs = sample_inputs(model)
    rows = {name: inputs[name] for name in TWO}
    return model_values(model, {name: rows.get(name, np.zeros_like(inputs["data0"])) for name in inputs})[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", [None, "classification", "qa", "masked_lm"])
def test_the_symbol_computes_what_that_with_zeros_as_token_types_does(
    form: str, task: str | None, tmp_path: Path
) -> None:
    folder = write_source(tmp_path / "hf", task or "classification")
    chosen: dict[str, Any] = {"form": form, "headless": task is None}
    expected = export(f"hf:{folder}", tmp_path / "three", ExportOptions(**chosen), verify=False).bundle.prefix
    done = export(f"hf:{folder}", tmp_path / "two", ExportOptions(inputs=TWO, guard=True, **chosen))
    assert {check.loader for check in done.checks} >= {"Module", "SymbolBlock"}
    assert done.bundle.signature.input_names == TWO
    for name in ("symbol.json", "train-symbol.json"):
        assert not done.bundle.has(name) or "data1" not in done.bundle.graph(name).variables
    np.testing.assert_allclose(values(done.bundle.prefix), values(expected), rtol=0, atol=2e-5)


COMMANDS = [
    "verify",
    "inspect",
    "draw OUT.svg",
    "lower OUT",
    "lower OUT --form fast --fold",
    "lower OUT --form gluonnlp --guard",
    "edit OUT --dropout 0.2",
    "graft OUT --head none",
    "extract OUT --output pooled",
    "diff MODEL --run",
    "predict --text happy",
    "tokenize --text happy",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_the_symbol_and_keeps_its_inputs(command: str, two: Path, cli: Cli, tmp_path: Path) -> None:
    name, *arguments = command.replace("OUT", str(tmp_path / "out")).replace("MODEL", str(two)).split()
    done = cli(name, two, *arguments)
    assert done.code == 0, done.err
    if (tmp_path / "out-signature.json").exists():
        assert listed(tmp_path / "out") == [*TWO]
    if name == "tokenize":
        assert json.loads(done.out) == {"data0": [3, 30, 4], "data2": 3}


@needs("onnx", "onnxruntime")
def test_an_onnx_file_has_two_inputs(two: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("onnx", two, tmp_path / "m.onnx")
    assert done.code == 0, done.err
    assert "inputs: data0 int64 (batch, length), data2 int64 (batch)\n" in done.out


@pytest.mark.parametrize("engine", ["mxnet", pytest.param("onnxruntime", marks=needs("onnx", "onnxruntime"))])
def test_predictions_and_metrics_are_those_of_the_symbol_with_three_inputs(
    engine: str, two: Path, three: Path, tables: Tables, cli: Cli
) -> None:
    texts = ["the happy cat sat", "a dog", "never"] * 4
    with using_engine(engine):
        found, expected = (Classifier(prefix).predict(texts) for prefix in (two, three))
        metrics, expected_metrics = (evaluate(prefix, tables.dev).metrics for prefix in (two, three))
    for mine, other in zip(found, expected):
        assert mine.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert metrics == pytest.approx(expected_metrics, abs=1e-5)
    assert cli("verify", two, "--engine", engine).code == 0


@pytest.mark.parametrize("changes", [{}, {"freeze_encoder": True}])
def test_a_fine_tuned_bundle_has_the_inputs_of_its_base_and_resumes_to_the_same_bytes(
    changes: dict[str, Any], two: Path, tables: Tables, tmp_path: Path
) -> None:
    options = dataclasses.replace(OPTIONS, epochs=2, **changes)
    (tmp_path / "run").mkdir()
    run = Run(two, tables, tmp_path / "run")
    whole = run.elsewhere("whole")
    whole(options=options)
    run.stopped(8, options=options)
    run(options=options, resume=True)
    assert files(run.out) == files(whole.out)
    assert Bundle.open(run.out).signature.input_names == TWO


def test_a_quantized_bundle_has_two_inputs(two: Path, tables: Tables, tmp_path: Path) -> None:
    done = quantize(two, tmp_path / "int8", tables.dev, QuantizeOptions(max_drop=1.0))
    assert done.bundle.signature.input_names == TWO
    assert Classifier(done.bundle.prefix).predict(["the happy cat"])[0].label in ("no", "yes")


def test_a_model_with_two_token_types_keeps_their_input(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    done = cli("export", f"hf:{tiny_hf}", tmp_path / "x", "--inputs", "data0,data2")
    assert done.code == 2
    assert done.error_line == (
        f"Error: hf:{tiny_hf} has 2 token types, which the input data1 selects: export it with all inputs, without "
        "--inputs data0,data2"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inputs", [(), ("data0",), ("data2", "data0"), ("data0", "data2", "data3")])
def test_other_inputs_are_refused(inputs: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="are neither data0,data1,data2 nor data0,data2"):
        ExportOptions(inputs=inputs)


def test_a_signature_that_leaves_out_an_input_of_the_graph_is_refused(three: Path, cli: Cli, tmp_path: Path) -> None:
    bundle = SignedBundle(three)
    bundle.signature["inputs"] = [each for each in bundle.signature["inputs"] if each["name"] != "data1"]
    bundle.write(tmp_path / "m")
    done = cli("predict", tmp_path / "m", "--text", "happy")
    assert done.code == 1
    assert "variables differ from inputs and parameters: data1" in done.error_line
