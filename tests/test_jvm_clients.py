"""The clients on the JVM: what Clojure has fine-tuned comes back to Python, and old MXNets and odd bundles work too."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables
from test_clients import (
    CLIENTS,
    Cli,
    Record,
    as_json_lines,
    beside,
    compare,
    error_line,
    expected,
    output,
    run,
    tokenized,
)

from bertsym import Bundle

# The first run of each fetches jars from Maven Central.
pytestmark = pytest.mark.slow

BUILD = Path(os.environ.get("BERTSYM_CLIENTS_BUILD", CLIENTS / ".build"))
JVM = ("clojure", "djl", "java")
QUICKLY = "-XX:TieredStopAtLevel=1"  # as the clients start Java
every_language = pytest.mark.parametrize("language", JVM)
# DJL's client reads rows by the classes of the Java client.
each_with_its_own_reader = pytest.mark.parametrize("language", ["clojure", "java"])


def fine_tune(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Fine-tune by Clojure, as `run` predicts, with a small heap: memory that is freed too early crashes it."""
    return run("clojure", *arguments, program="fine_tune", JDK_JAVA_OPTIONS="-XX:+UseSerialGC -Xmn1m")


def labelled(prefix: Path, table: Path) -> list[Record]:
    """The inputs of a table with its labels no and yes as the classes 0 and 1."""
    words = [line.split("\t")[0] for line in table.read_text().splitlines()[1:]]
    return [{**record, "label": int(word == "yes")} for record, word in zip(tokenized(prefix, table), words)]


@dataclass(frozen=True)
class Fitted:
    """What Clojure made of the base that ends in [CLS], and what it printed."""

    prefix: Path
    params: Path
    printed: str
    losses: list[float]


@pytest.fixture(scope="module")
def train_rows(bundles: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text(as_json_lines(labelled(bundles["cls"], tables.train)))
    return path


@pytest.fixture(scope="module")
def fitted(bundles: dict[str, Path], train_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("clojure")
    result = fine_tune(bundles["cls"], train_rows, folder / "fitted", 4, 1e-2)
    losses = re.findall(r"^epoch \d+ .*cross entropy (\S+)$", result.stderr, re.MULTILINE)
    return Fitted(folder / "fitted", folder / "fitted-0004.params", output(result), [float(loss) for loss in losses])


def test_clojure_fine_tunes_to_a_falling_loss(fitted: Fitted) -> None:
    assert len(fitted.losses) == 4
    assert fitted.losses == sorted(fitted.losses, reverse=True)
    # 0.69 is what is lost by guessing.
    assert fitted.losses[-1] < 0.5


def test_a_classifier_fitted_in_clojure_gives_the_same_in_python(
    fitted: Fitted, bundles: dict[str, Path], tables: Tables, cli: Cli, tmp_path: Path
) -> None:
    assert cli("graft", bundles["cls"], tmp_path / "untrained", "--num-classes", 2).code == 0
    assert cli("edit", tmp_path / "untrained", tmp_path / "model", "--params", fitted.params).code == 0
    assert compare(fitted.printed, expected(tmp_path / "model", tables.train)) <= 1e-5


def test_clojure_saves_a_checkpoint_that_inspect_reads(fitted: Fitted, cli: Cli) -> None:
    """Its symbol is the training symbol, as Module saves it."""
    result: Result = cli("inspect", f"{fitted.prefix}-symbol.json", "--params", fitted.params)
    assert result.code == 0, result.err
    assert "`fc-finetune` reads `cls` = [CLS], position 0 of the sequence: (N, 32)" in result.out


def test_clojure_takes_no_base_that_a_classifier_would_misread(
    bundles: dict[str, Path], classifier: Path, train_rows: Path, tmp_path: Path
) -> None:
    for base in (bundles["sequence"], classifier):
        line = error_line(fine_tune(base, train_rows, tmp_path / "fitted"))
        assert line == f"error: {base}: not a headless encoder that ends in one vector per text"
    assert not list(tmp_path.glob("fitted*"))


@pytest.mark.parametrize("label", [None, -1, 0.5])
def test_clojure_names_the_line_of_an_unknown_label(
    label: object, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    first, second, *_ = labelled(bundles["cls"], tables.train)
    rows = tmp_path / "train.jsonl"
    rows.write_text(as_json_lines([first, {**second, "label": label}]))
    line = error_line(fine_tune(bundles["cls"], rows, tmp_path / "fitted"))
    assert line == "error: line 2: label must be a number from 0"


def test_usage_of_fine_tuning(tmp_path: Path) -> None:
    for arguments in ([], ["base", "rows"], ["base", "rows", "out", "0"], ["base", "rows", "out", "3", "fast"]):
        result = fine_tune(*arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("usage: ")


@every_language
def test_an_error_of_mxnet_is_shortened_to_its_first_line(
    language: str, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    for path in classifier.parent.glob(f"{classifier.name}-*"):
        shutil.copy(path, tmp_path)
    corrupted = tmp_path / classifier.name
    content = (
        beside(corrupted, "symbol.json").read_text().replace('"op": "LayerNorm"', '"op": "NoSuchOperator"').encode()
    )
    beside(corrupted, "symbol.json").write_bytes(content)
    manifest = json.loads(beside(corrupted, "manifest.json").read_text())
    manifest["files"]["symbol.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    beside(corrupted, "manifest.json").write_text(json.dumps(manifest))
    line = error_line(run(language, corrupted, stdin=as_json_lines(tokenized(classifier, tables.dev))))
    assert line.startswith("error: MXNet")
    assert "NoSuchOperator" in line


@each_with_its_own_reader
@pytest.mark.parametrize("wrong", [[3, 4.5], [3, None], "3"])
def test_ids_that_are_not_a_list_of_integers_are_named(language: str, wrong: object, classifier: Path) -> None:
    row = {"data0": wrong, "data1": [0, 0], "data2": 2}
    line = error_line(run(language, classifier, stdin=f"\n{json.dumps(row)}\n"))
    assert line.startswith("error: line 2: data0 must be a list of ")


@every_language
def test_a_missing_library_is_a_one_line_error_with_exit_code_3(
    language: str, tmp_path: Path, classifier: Path
) -> None:
    """So that it is skipped and not failed."""
    command = [str(CLIENTS / language / "run"), str(classifier)]
    variables = {**os.environ, "LIBMXNET": str(tmp_path / "libmxnet.so")}
    result = subprocess.run(command, input="", capture_output=True, text=True, check=False, env=variables, timeout=900)
    assert (result.returncode, result.stdout) == (3, "")
    *building, line = result.stderr.splitlines()
    assert line == f"error: missing: LIBMXNET={tmp_path}/libmxnet.so is not a file"
    assert not any("error" in other for other in building)


def test_clojure_replaces_no_bundle(bundles: dict[str, Path], train_rows: Path) -> None:
    before = beside(bundles["cls"], "symbol.json").read_bytes()
    line = error_line(fine_tune(bundles["cls"], train_rows, bundles["cls"]))
    assert line == f"error: {bundles['cls']}: is a bundle, take another prefix"
    assert beside(bundles["cls"], "symbol.json").read_bytes() == before


def test_clojure_saves_no_parameters_of_a_loss_that_is_not_finite(
    bundles: dict[str, Path], train_rows: Path, tmp_path: Path
) -> None:
    line = error_line(fine_tune(bundles["cls"], train_rows, tmp_path / "fitted", 3, "1e30"))
    assert re.fullmatch(r"error: epoch \d: the loss is not finite; try a lower learning rate", line)
    assert not list(tmp_path.glob("fitted*"))


# The programs of the model card


@pytest.mark.parametrize(
    ("language", "client", "repl"),
    [
        ("java", "djl", ("jshell", f"-J{QUICKLY}", f"-R{QUICKLY}", "-s", "--class-path", "JARS", "-")),
        ("clojure", "clojure", ("java", QUICKLY, "-cp", f"JARS:{CLIENTS}/clojure/src", "clojure.main", "-")),
    ],
)
def test_the_program_of_the_card_computes_what_the_client_does(
    language: str, client: str, repl: tuple[str, ...], classifier: Path, tmp_path: Path
) -> None:
    special = Bundle.open(classifier).signature.special_ids
    inputs = tmp_path / "inputs.jsonl"
    inputs.write_text(as_json_lines([{"data0": [special["cls"], special["sep"]], "data1": [0, 0], "data2": 2}]))
    printed = output(run(client, classifier, inputs))  # builds the folder of jars
    jars = ":".join(map(str, (BUILD / client / "lib").glob("*.jar")))
    program = re.findall(f"```{language}\n(.*?)```", beside(classifier, "card.md").read_text(), re.DOTALL)[0]
    spec = importlib.util.find_spec("mxnet")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).with_name("libmxnet.so")
    result = subprocess.run(
        [word.replace("JARS", jars) for word in repl],
        input=program.replace("PREFIX", str(classifier)),
        capture_output=True,
        text=True,
        env={**os.environ, "LIBMXNET": str(library), "MXNET_LIBRARY_PATH": str(library.parent)},
    )
    found = [float(number) for number in re.findall(r"\d+\.\d+(?:E-?\d+)?", result.stdout)]
    np.testing.assert_allclose(found, [float(cell) for cell in printed.split()[-2:]], rtol=1e-5, err_msg=result.stderr)
