"""Every command but training and int8 works without mxnet and gluonnlp.

An import hook fails on them; tests marked without_mxnet also run where they are not installed (scripts/test_matrix).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Once
from headed import write_headed
from tools import needs

from bertsym import Classifier
from bertsym.cli.group import run
from bertsym.compat.installing import missing_mxnet

pytestmark = needs("onnx", "onnxruntime")

# Runs commands, a list of words each, without some packages; prints code, output and errors of each as JSON.
_RUN = """
import contextlib, io, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.meta_path.insert(0, Absent())
from bertsym import Classifier
from bertsym.cli.group import run
results = []
for command in commands:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(command)
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""
WITHOUT = ["mxnet", "gluonnlp"]
TEXTS = ["the happy cat sat", "a sad dog ran", "the old bird flew in the park", "a red house"]


def run_without(absent: list[str], commands: list[list[str]]) -> list[tuple[int, str, str]]:
    arguments = [sys.executable, "-W", "ignore", "-c", _RUN, json.dumps(absent), json.dumps(commands)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[tuple[int, str, str]] = [(code, out, err) for code, out, err in json.loads(done.stdout)]
    return found


def writing(folder: Path, source: Path, classifier: Path) -> list[list[str]]:
    """Commands that write bundles into `folder`."""
    base = f"{folder}/base"
    return [
        ["export", f"hf:{source}", base, "--output", "pooled"],
        ["export", f"hf:{source}", f"{folder}/head", "--task", "qa"],
        [
            "export",
            f"params:{base}-0000.params",
            f"{folder}/params",
            "--vocab",
            f"{base}-vocab.txt",
            "--num-heads",
            "4",
        ],
        ["extract", base, f"{folder}/extracted", "--output", "layer 0"],
        ["graft", base, f"{folder}/grafted", "--num-classes", "3"],
        ["edit", base, f"{folder}/edited", "--dropout", "0.2"],
        ["lower", base, f"{folder}/lowered", "--target-mxnet", "1.5"],
        ["lower", str(classifier), f"{folder}/fast", "--form", "fast"],
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if "manifest" not in path.name}


@pytest.fixture(scope="module")
def classifier(once: Once) -> Path:
    """Prefix of a classifier that was exported trained, which needs no mxnet."""

    def make(folder: Path) -> None:
        assert run(["export", f"hf:{write_headed(folder / 'hf', 'classification')}", f"{folder}/entailment"]) == 0

    return once("entailment", make) / "entailment"


@pytest.fixture(scope="module")
def table(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TEXTS, with the labels that the classifier predicts by the engine in use."""
    path = tmp_path_factory.mktemp("table") / "table.tsv"
    lines = [f"{found.label}\t{text}" for found, text in zip(Classifier(classifier).predict(TEXTS), TEXTS)]
    path.write_text("\n".join(["label\ttext", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def written(tiny_hf: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands wrote without mxnet."""
    folder = tmp_path_factory.mktemp("without")
    for code, _, err in run_without(WITHOUT, writing(folder, tiny_hf, classifier)):
        assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def usual(tiny_hf: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the same commands wrote with mxnet."""
    folder = tmp_path_factory.mktemp("usual")
    for command in writing(folder, tiny_hf, classifier):
        assert run(command) == 0
    return folder


def test_written_files_are_byte_identical_to_those_of_mxnet(written: Path, usual: Path) -> None:
    found, expected = files(written), files(usual)
    assert set(found) == set(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_manifests_differ_in_engine_versions_and_checks_alone(written: Path, usual: Path) -> None:
    def manifest(path: Path) -> dict[str, Any]:
        text = path.read_text().replace(str(path.parent), "FOLDER")  # in the command
        document: dict[str, Any] = json.loads(text)
        assert document.pop("verification")
        del document["versions"]
        return document

    for path in written.glob("*-manifest.json"):
        assert manifest(path) == manifest(usual / path.name)


@pytest.mark.without_mxnet
def test_a_manifest_names_the_engine_and_what_was_compared(written: Path) -> None:
    document = json.loads((written / "base-manifest.json").read_text())
    assert document["verification"]["engine"].startswith("onnxruntime ")
    assert document["verification"]["reference"] == "bertsym float64"
    assert document["verification"]["second_reference"] is None


@pytest.mark.without_mxnet
def test_commands_that_read_work(written: Path, classifier: Path, table: Path, tmp_path: Path) -> None:
    base, text = str(written / "base"), ["--text", TEXTS[0]]
    commands = [
        ["inspect", base, "--shapes"],
        ["diff", base, f"{written}/lowered", "--run"],
        ["draw", base, f"{tmp_path}/it.html"],
        ["tokenize", str(classifier), *text],
        ["verify", str(classifier)],
        ["predict", str(classifier), *text],
        ["evaluate", str(classifier), str(table)],
        ["onnx", str(classifier), f"{tmp_path}/it.onnx"],
    ]
    results = run_without(WITHOUT, commands)
    for command, (code, out, err) in zip(commands, results):
        assert (code, bool(out)) == (0, True), (command, out, err)
    assert results[5][1].splitlines()[1].split("\t")[0] == table.read_text().splitlines()[1].split("\t")[0]
    assert "accuracy 1.0000" in results[6][1]
    assert "(N, T, 32)" in results[0][1]


@pytest.mark.without_mxnet
def test_training_and_int8_print_the_command_that_installs_mxnet(
    bundles: dict[str, Path], classifier: Path, table: Path, tmp_path: Path
) -> None:
    labelled, out = str(table), f"{tmp_path}/new"
    commands = [
        ["finetune", str(bundles["cls"]), out, "--train", labelled, "--dev", labelled],
        ["quantize", str(classifier), out, "--calibrate", labelled],
    ]
    for code, _, err in run_without(WITHOUT, commands):
        assert (code, err.splitlines()[-1]) == (1, f"Error: {missing_mxnet()}")


@pytest.mark.without_mxnet
def test_without_an_engine_nothing_is_written_unless_asked_for(tiny_hf: Path, tmp_path: Path) -> None:
    absent = [*WITHOUT, "onnx", "onnxruntime"]
    base = f"{tmp_path}/base"
    commands = [
        ["export", f"hf:{tiny_hf}", base],
        ["export", f"hf:{tiny_hf}", base, "--no-verify"],
        ["lower", base, f"{tmp_path}/low", "--form", "fast"],
        ["lower", base, f"{tmp_path}/low", "--form", "fast", "--no-verify"],
        ["verify", base],
        ["inspect", base],
    ]
    refused, exported, not_lowered, lowered, not_verified, inspected = run_without(absent, commands)
    for code, out, err in (refused, not_lowered, not_verified):
        assert (code, out) == (1, "")
        assert "not verified: install mxnet, or the engine that installs everywhere: " in err
        assert " install onnxruntime onnx; commands that write take --no-verify" in err
    assert (exported[0], "not verified" in exported[1]) == (0, True), exported
    assert (lowered[0], "not verified" in lowered[2]) == (0, True), lowered
    assert inspected[0] == 0, inspected
