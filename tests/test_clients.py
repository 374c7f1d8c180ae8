"""The clients in other languages: what they print is what bertsym computes, and they refuse what would go wrong."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import computed, gluonnlp_checkpoint, texts
from conftest import Result, Tables, in_turn
from headed import write_headed
from signed_bundle import SignedBundle
from tools import is_missing

from bertsym import BundleTokenizer, Classifier, FinetuneOptions, export, finetune, graft_head, lower
from bertsym.array import Array
from bertsym.mxnet_runtime import mx

Cli = Callable[..., Result]
Record = dict[str, Any]

CLIENTS = Path(__file__).parent.parent / "scripts" / "clients"
# These build without downloads; the others fetch what they need on the first run.
OFFLINE = ("c", "cpp", "perl")
LANGUAGES = [
    pytest.param(language, marks=() if language in OFFLINE else pytest.mark.slow)
    for language in sorted(run.parent.name for run in CLIENTS.glob("*/run"))
]
# The oldest one for each language, and a newer one in turn. DJL takes no MXNet before 1.6.
_OTHERS = [parameter.values[0] for parameter in LANGUAGES if parameter.values[0] != "djl"]
OTHER_MXNETS = [
    *((language, "1.4.1") for language in _OTHERS),
    *in_turn(_OTHERS, ["1.5.1", "1.8.0"]),
    *(("djl", version) for version in ("1.6.0", "1.8.0")),
]
C_API = [parameter for parameter in LANGUAGES if parameter.values[0] in (*OFFLINE, "node")]

# DJL's client opens bundles, reads rows and prints predictions by the classes of the Java client.
OWN_READERS = [parameter for parameter in LANGUAGES if parameter.values[0] != "djl"]

every_language = pytest.mark.parametrize("language", LANGUAGES)
each_with_its_own_reader = pytest.mark.parametrize("language", OWN_READERS)
each_of_the_c_api = pytest.mark.parametrize("language", C_API)

_spec = importlib.util.spec_from_file_location("compare", CLIENTS / "compare.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
compare = _module.compare


def run(
    language: str, *arguments: object, program: str = "run", stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a client; skip where what it needs is missing, unless CI=true."""
    # python3 is this one, whose mxnet brings libmxnet.so.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [str(CLIENTS / language / program), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "PATH": path, **variables},
    )
    if result.returncode == 3:
        is_missing(f"{language}: {result.stderr.splitlines()[-1]}")
    return result


def output(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, after what MXNet may say."""
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == result.stderr.splitlines()[-1:]
    return errors[0]


def as_json_lines(records: list[Record]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def tokenized(prefix: Path, table: Path) -> list[Record]:
    return [record for features in BundleTokenizer.open(prefix).encode_table(table) for record in features.inputs()]


@pytest.fixture(scope="module")
def rows(classifier: Path, tables: Tables) -> list[Record]:
    """The inputs of the classifier for the dev texts, which differ in length."""
    records = tokenized(classifier, tables.dev)
    assert len({record["data2"] for record in records}) > 5
    return records


@functools.cache
def expected(prefix: Path, table: Path) -> str:
    model = Classifier(prefix)
    lines = [["label", *(f"p({label})" for label in model.class_names)]]
    for prediction in model.predict_table(table):
        lines.append([prediction.label, *(f"{value:.9g}" for value in prediction.probabilities.values())])
    return "".join("\t".join(line) + "\n" for line in lines)


@pytest.fixture
def copy(classifier: Path, tmp_path: Path) -> Path:
    """A bundle of its own, which a test may corrupt."""
    for path in classifier.parent.glob(f"{classifier.name}-*"):
        shutil.copy(path, tmp_path)
    return tmp_path / classifier.name


def beside(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}-{name}")


def test_every_client_is_tested_and_has_a_readme() -> None:
    assert {parameter.values[0] for parameter in LANGUAGES} >= {"c", "cpp", "node", "perl"}
    for parameter in LANGUAGES:
        assert (CLIENTS / str(parameter.values[0]) / "README.md").exists()


@every_language
def test_probabilities_are_those_of_python_and_a_second_run_builds_nothing(
    language: str, classifier: Path, tables: Tables, rows: list[Record], tmp_path: Path
) -> None:
    """From a file, and then from standard input. First runs at once each archive their classes; the last one stays."""

    def built() -> dict[Path, int]:
        folder = Path(os.environ.get("BERTSYM_CLIENTS_BUILD", CLIENTS / ".build")) / language
        files = (path for path in folder.rglob("*") if path.is_file() and ".jsa" not in path.name)
        return {path: path.stat().st_mtime_ns for path in files}

    inputs = tmp_path / "inputs.jsonl"
    inputs.write_text(as_json_lines(rows))
    first = output(run(language, classifier, inputs)), built()
    assert compare(first[0], expected(classifier, tables.dev)) <= 1e-5
    assert (output(run(language, classifier, stdin=inputs.read_text())), built()) == first


def test_first_runs_at_once_wait_for_one_build(classifier: Path, rows: list[Record], tmp_path: Path) -> None:
    def first_run(_: int) -> str:
        return output(run("c", classifier, stdin=as_json_lines(rows), BERTSYM_CLIENTS_BUILD=str(tmp_path)))

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(first_run, range(3)))) == 1


@every_language
@pytest.mark.parametrize("names", [("data0", "data1", "data2"), ("data0", "data2")])
def test_the_inputs_of_the_signature_are_fed_and_token_ids_are_padded_with_pad_id(
    language: str, names: tuple[str, ...], bundles: dict[str, Path], tmp_path: Path
) -> None:
    """In the bundle of an encoder, whose output is printed as numbers: here it is what it was fed."""
    lists = [mx.sym.var(name) for name in names[:-1]]
    length = mx.sym.expand_dims(mx.sym.var("data2"), axis=1)
    length = mx.sym.broadcast_mul(length, mx.sym.var("factor", shape=(1, 1)))
    symbol = mx.sym.concat(*lists, length, dim=1, name="fed")
    bundle = SignedBundle(bundles["cls"])
    bundle.documents["symbol.json"] = json.loads(symbol.tojson())
    bundle.params = {"factor": np.ones((1, 1), np.float32)}
    kept = [tensor for tensor in bundle.signature["inputs"] if tensor["name"] in names]
    bundle.signature.update(inputs=kept, pad_id=7)
    bundle.write(tmp_path / "m")
    records: list[Record] = [
        {"data0": [3, 4], "data1": [0, 1], "data2": 2},
        {"data0": [3, 5, 4], "data1": [1, 1, 1], "data2": 3},
    ]
    if names == ("data0", "data2"):
        records = [{name: record[name] for name in names} for record in records]
    printed = output(run(language, tmp_path / "m", stdin=as_json_lines(records)))
    rows = [[float(value) for value in line.split("\t")] for line in printed.splitlines()]
    types = [[0, 1, 0], [1, 1, 1]] if "data1" in names else [[], []]
    assert rows == [[3, 4, 7, *types[0], 2], [3, 5, 4, *types[1], 3]]


@pytest.fixture(scope="module")
def locked(bundles: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a classifier whose symbol takes one length."""
    options = FinetuneOptions(epochs=1, max_length=20, whole_sequence=True)
    out = tmp_path_factory.mktemp("locked") / "locked"
    return finetune(bundles["sequence"], tables.train, tables.dev, out, options=options).bundle.prefix


@every_language
def test_a_symbol_that_takes_one_length_gets_it(language: str, locked: Path, tables: Tables) -> None:
    printed = output(run(language, locked, stdin=as_json_lines(tokenized(locked, tables.dev))))
    assert compare(printed, expected(locked, tables.dev)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("language", "version"), OTHER_MXNETS)
def test_another_mxnet_gives_the_same(
    language: str, version: str, classifier: Path, tables: Tables, rows: list[Record]
) -> None:
    script = f". {CLIENTS}/libmxnet.sh; fetch_libmxnet {version}"
    fetched = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=600)
    if fetched.returncode == 3:
        is_missing(fetched.stderr.splitlines()[-1])
    assert fetched.returncode == 0, fetched.stderr
    result = run(language, classifier, stdin=as_json_lines(rows), LIBMXNET=fetched.stdout.strip())
    assert compare(output(result), expected(classifier, tables.dev)) <= 1e-5


@each_with_its_own_reader
@pytest.mark.parametrize("name", ["0000.params", "symbol.json"])
def test_a_changed_file_is_refused(language: str, name: str, copy: Path, rows: list[Record]) -> None:
    content = bytearray(beside(copy, name).read_bytes())
    content[-200] ^= 1
    beside(copy, name).write_bytes(content)
    assert name in error_line(run(language, copy, stdin=as_json_lines(rows)))


@each_with_its_own_reader
@pytest.mark.parametrize("wrong", [0, 25, 1.5, None])
def test_an_out_of_bounds_valid_length_is_refused(
    language: str, wrong: float | None, classifier: Path, rows: list[Record]
) -> None:
    result = run(language, classifier, stdin=as_json_lines([rows[0], {**rows[1], "data2": wrong}]))
    assert "data2" in error_line(result) or "valid_length" in error_line(result)


@every_language
def test_a_negative_id_is_refused(language: str, classifier: Path, rows: list[Record]) -> None:
    wrong = [*rows[0]["data0"][:-1], -1]
    error_line(run(language, classifier, stdin=as_json_lines([{**rows[0], "data0": wrong}])))


@each_with_its_own_reader
@pytest.mark.parametrize(
    ("stdin", "found"),
    [
        ("", "no rows"),
        ("a text\n", " 1: not a JSON object: the rows are the output of bertsym tokenize"),
        ('{"data0": [4]}\n', "data1"),
    ],
)
def test_invalid_inputs_are_refused(language: str, stdin: str, found: str, classifier: Path) -> None:
    assert found in error_line(run(language, classifier, stdin=stdin))


@pytest.fixture(scope="module")
def untrained(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a classifier whose probabilities would be noise."""
    return graft_head(bundles["cls"], tmp_path_factory.mktemp("untrained") / "grafted").bundle.prefix


@each_with_its_own_reader
def test_an_untrained_head_is_refused(language: str, untrained: Path, rows: list[Record]) -> None:
    assert f"{untrained}: untrained head" in error_line(run(language, untrained, stdin=as_json_lines(rows)))


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a bundle of a task that the clients do not have."""
    folder = tmp_path_factory.mktemp("masked")
    return export(f"hf:{write_headed(folder / 'hf', 'masked_lm')}", folder / "x", verify=False).bundle.prefix


@each_with_its_own_reader
def test_an_unknown_task_is_refused(language: str, masked_lm: Path, rows: list[Record]) -> None:
    found = error_line(run(language, masked_lm, stdin=as_json_lines(rows)))
    tasks = "classification, multilabel, regression, tagging, qa"
    assert found == f"error: {masked_lm}: task masked_lm: not one of {tasks}"


@each_with_its_own_reader
def test_a_signature_of_another_bundle_is_refused(
    language: str, copy: Path, bundles: dict[str, Path], rows: list[Record]
) -> None:
    shutil.copy(beside(bundles["cls"], "signature.json"), beside(copy, "signature.json"))
    assert "signature.json" in error_line(run(language, copy, stdin=as_json_lines(rows)))


@each_with_its_own_reader
def test_another_format_of_bundles_is_refused(language: str, copy: Path, rows: list[Record]) -> None:
    manifest = beside(copy, "manifest.json")
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 1'))
    assert f"{copy}: bundle format 1" in error_line(run(language, copy, stdin=as_json_lines(rows)))


@every_language
def test_a_missing_bundle_is_named(language: str, tmp_path: Path, rows: list[Record]) -> None:
    missing = tmp_path / "missing"
    assert str(missing) in error_line(run(language, missing, stdin=as_json_lines(rows)))


@each_of_the_c_api
def test_an_error_of_mxnet_is_shortened_to_its_first_line(language: str, copy: Path, rows: list[Record]) -> None:
    symbol, manifest = beside(copy, "symbol.json"), beside(copy, "manifest.json")
    content = symbol.read_text().replace('"op": "LayerNorm"', '"op": "NoSuchOperator"').encode()
    symbol.write_bytes(content)
    document = json.loads(manifest.read_text())
    document["files"]["symbol.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(document))
    line = error_line(run(language, copy, stdin=as_json_lines(rows)))
    assert line.startswith("error: MXPredCreate: ")
    assert "NoSuchOperator" in line


@each_of_the_c_api
@pytest.mark.parametrize(("content", "what"), [(None, "is not a file"), ("a text", "is not a libmxnet.so")])
def test_a_missing_program_is_a_one_line_error_with_exit_code_3(
    language: str, content: str | None, what: str, tmp_path: Path, classifier: Path
) -> None:
    """So that it is skipped and not failed."""
    library = tmp_path / "libmxnet.so"
    if content is not None:
        library.write_text(content)
    command = [str(CLIENTS / language / "run"), str(classifier)]
    variables = {**os.environ, "LIBMXNET": str(library)}
    result = subprocess.run(command, input="", capture_output=True, text=True, check=False, env=variables, timeout=60)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == f"error: missing: LIBMXNET={library} {what}\n"


@every_language
def test_usage(language: str) -> None:
    result = run(language)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("label\tp(0)\tp(1)\n0\t0.6\t0.40002\n", "p(1) differs by 2e-05"),
        ("label\tp(0)\tp(1)\n0\tnan\t0.4\n", "p(0) differs by nan"),
        ("label\tp(0)\tp(1)\n1\t0.6\t0.4\n", "line 2"),
        ("label\tp(1)\tp(0)\n0\t0.6\t0.4\n", "header"),
        ("label\tp(0)\tp(1)\n", "1 lines, expected 2"),
        ("label\tp(0)\tp(1)\n0\t0.6\n", "line 2"),
    ],
)
def test_a_difference_between_probabilities_is_detected(printed: str, message: str) -> None:
    right = "label\tp(0)\tp(1)\n0\t0.6\t0.4\n"
    assert compare(right, right) == 0
    with pytest.raises(ValueError, match=re.escape(message)):
        compare(printed, right)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array], Array]:
    """Prefix of a BERT that GluonNLP exported, lowered; inputs, and what the original computes from them."""
    folder, inputs = tmp_path_factory.mktemp("lowered"), texts(9)
    old = gluonnlp_checkpoint(folder / "old", "classifier")
    (answers,) = computed(old, inputs)
    return lower(old, folder / "new").bundle.prefix, inputs, answers


@every_language
def test_a_bert_that_gluonnlp_exported_runs_when_it_is_lowered(
    language: str, lowered: tuple[Path, dict[str, Array], Array]
) -> None:
    """Its signature has no labels, and its outputs are logits: the rows of numbers are printed."""
    prefix, inputs, answers = lowered
    lengths = inputs["data2"].astype(int)
    records: list[Record] = [
        {"data0": ids[:n].astype(int).tolist(), "data1": types[:n].astype(int).tolist(), "data2": int(n)}
        for ids, types, n in zip(inputs["data0"], inputs["data1"], lengths)
    ]
    printed = output(run(language, prefix, stdin=as_json_lines(records)))
    rows = np.array([[float(value) for value in line.split("\t")] for line in printed.splitlines()])
    np.testing.assert_allclose(rows, answers, rtol=0, atol=1e-5 * np.abs(answers).max())
    too_long: Record = {"data0": [1] * 25, "data1": [0] * 25, "data2": 25}
    assert "25" in error_line(run(language, prefix, stdin=as_json_lines([too_long])))
