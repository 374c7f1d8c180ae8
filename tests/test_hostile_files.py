"""No file runs code, escapes its folder, or is read without end."""

from __future__ import annotations

import ast
import http.server
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import BERTSYM
from conftest import Result, Tables, write_hugging_face
from refusals import refusal
from third_party import checkpoint

import bertsym
from bertsym import ExportOptions, ModelError, SymbolGraph, file_reader
from bertsym.bundle.files import file_digest
from bertsym.json_reader import MAX_DEPTH

Cli = Callable[..., Result]
SOURCES = sorted(Path(bertsym.__file__).parent.rglob("*.py"))

# What runs code that is in a file.
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "imp", "runpy"}
BUILTINS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {"yaml.load", "os.system", "os.popen", "numpy.load", "mx.nd.load_frombuffer"}
METHODS |= {"pickle.load", "pickle.loads", "pandas.read_pickle"}
OPTIMIZER_STATES = {"load_optimizer_states", "set_states", "set_optimizer"}  # mxnet unpickles or pickles there
#: keyword arguments without which a call executes its input
REQUIRED = {"np.load": {"allow_pickle": False}, "torch.load": {"weights_only": True}}


def called_name(function: ast.expr) -> str:
    """What is called, as in the source: ``np.load``; a part that is not a name is left out: ``.load``."""
    if isinstance(function, ast.Attribute):
        return f"{called_name(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def faults(source: str, place: str) -> Iterator[str]:
    """The imports and calls of a module that could execute a file, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Import, ast.ImportFrom, ast.Call)):
            continue
        found = []
        if not isinstance(node, ast.Call):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = [f"import {name}" for name in names if name.partition(".")[0] in MODULES]
        else:
            name = called_name(node.func)
            required = REQUIRED.get(name, {})
            given = {
                keyword.arg: getattr(keyword.value, "value", None)
                for keyword in node.keywords
                if keyword.arg == "shell" or keyword.arg in required
            }
            if name in BUILTINS | METHODS or name.rpartition(".")[2] in OPTIMIZER_STATES or given.get("shell") is True:
                found = [name]
            found += [f"{name} without {key}={value}" for key, value in required.items() if given.get(key) is not value]
        yield from (f"{place}:{node.lineno}: {what}" for what in found)


def test_no_module_executes_its_input() -> None:
    package = SOURCES[0].parent
    assert [fault for path in SOURCES for fault in faults(path.read_text(), path.relative_to(package).as_posix())] == []


@pytest.mark.parametrize(
    "statement",
    [
        "import pickle",
        "from marshal import loads",
        "from dill.source import getsource",
        "eval(text)",
        "yaml.load(file)",
        "trainer().set_states(content)",
        "run(command, shell=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_a_module_that_executes_its_input_would_be_found(statement: str) -> None:
    assert len(list(faults(f"\n{statement}\n", "module.py"))) == 1
    assert list(faults("np.load(path, allow_pickle=False)\ntorch.load(path, weights_only=True)\nrun(a)", "x")) == []


# Payloads


class Payload:
    """What makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The folder that a payload makes; it does when it is unpickled, and must never be there."""
    made = tmp_path / "made"
    pickle.loads(pickle.dumps(Payload(made)))
    made.rmdir()
    yield made
    assert not made.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_refused_as_a_parameter_file(cli: Cli, tmp_path: Path, mark: Path, protocol: int) -> None:
    prefix = checkpoint(tmp_path / "m")
    payload = tmp_path / "m-0001.params"
    payload.write_bytes(pickle.dumps({"arg:x": Payload(mark)}, protocol))
    (tmp_path / "m-0001.states").write_bytes(payload.read_bytes())
    for command in (
        ("inspect", prefix, "--epoch", "1"),
        ("inspect", prefix, "--params", tmp_path / "m-0001.states"),
        ("lower", prefix, tmp_path / "out", "--epoch", "1"),
        ("export", f"params:{payload}", tmp_path / "out", "--vocab", payload),
    ):
        refusal(cli(*command))


def test_without_torch_its_pickles_are_not_opened(
    cli: Cli, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Payload(mark)))
        file.writestr("../escaped", b"x")
    assert "a pickle, which can run code" in refusal(cli("export", f"hf:{folder}", tmp_path / "x"))
    assert not (tmp_path / "escaped").exists()


def test_pickles_in_an_npz_file_are_not_loaded(cli: Cli, tmp_path: Path, mark: Path) -> None:
    prefix = checkpoint(tmp_path / "m")
    member = io.BytesIO()
    # The header of an array of objects, whose values are a pickle.
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    member.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + pickle.dumps([Payload(mark)]))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("data0.npy", member.getvalue())
        file.writestr("../escaped.npy", member.getvalue())
    assert "not an .npz file of plain arrays" in refusal(cli("diff", prefix, prefix, "--inputs", tmp_path / "x.npz"))


def test_a_download_stays_in_its_folder_and_must_have_its_digest(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: Path
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("../escaped", "/escaped", "a/../../escaped"):
            file.writestr(name, pickle.dumps(Payload(mark)))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive.getvalue())))
            self.end_headers()
            self.wfile.write(archive.getvalue())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    cache = tmp_path / "home" / "cache"
    source = "gluonnlp:bert_12_768_12/book_corpus_wiki_en_uncased"
    result = cli("export", source, tmp_path / "x", "--cache", cache)
    server.shutdown()
    assert (result.code, "gluonnlp can't load it" in result.err) == (1, True)
    assert not [path for path in tmp_path.rglob("escaped") if cache not in path.parents]


# Names, links, and paths that are not files


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a bundle at the prefix ``m``."""
    for path in bundles["cls"].parent.glob("cls-*"):
        shutil.copy(path, tmp_path / path.name.replace("cls", "m", 1))
    return tmp_path / "m"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "x/../../secret", "..", ""])
def test_a_manifest_names_only_files_of_the_bundle(cli: Cli, bundle: Path, name: str) -> None:
    path = Path(f"{bundle}-manifest.json")
    document = json.loads(path.read_text())
    document["files"][name] = {"sha256": "0", "size": 0}
    path.write_text(json.dumps(document))
    for command in ("inspect", "verify"):
        assert "m-manifest.json: unknown file" in refusal(cli(command, bundle))


@pytest.mark.parametrize("name", ["vocab.txt", "symbol.json", "0000.params", "signature.json"])
def test_links_that_escape_their_folder_are_refused(cli: Cli, bundle: Path, name: str, tmp_path: Path) -> None:
    path = Path(f"{bundle}-{name}")
    inside, outside = tmp_path / "data" / "file", tmp_path.parent / f"{tmp_path.name}-outside"
    inside.parent.mkdir()
    path.rename(inside)
    path.symlink_to("data/file")
    assert cli("inspect", bundle).code == 0
    shutil.move(inside, outside)
    path.unlink()
    path.symlink_to(outside)
    assert f"m-{name}: a link that escapes its folder" in refusal(cli("inspect", bundle))


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_links_that_escape_a_hugging_face_folder_are_refused(cli: Cli, tmp_path: Path, name: str) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    (folder / name).rename(tmp_path / "secret")
    (folder / name).symlink_to(tmp_path / "secret")
    assert f"{name}: a link that escapes its folder" in refusal(cli("export", f"hf:{folder}", tmp_path / "x"))


@pytest.mark.parametrize("name", ["symbol.json", "0000.params", "vocab.txt", "manifest.json", "signature.json"])
def test_a_named_pipe_is_refused_without_waiting(cli: Cli, bundle: Path, name: str) -> None:
    path = Path(f"{bundle}-{name}")
    manifest = Path(f"{bundle}-manifest.json")
    if name != "manifest.json":
        document = json.loads(manifest.read_text())
        document["files"][name]["size"] = 0
        manifest.write_text(json.dumps(document))
    path.unlink()
    os.mkfifo(path)
    assert f"m-{name}: not a regular file" in refusal(cli("inspect", bundle))


def test_a_text_file_beyond_the_limit_is_refused(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf")
    for name in ("vocab.txt", "config.json"):
        kept = (folder / name).read_bytes()
        os.truncate(folder / name, file_reader.MAX_TEXT + 1)
        assert f"{name}: more than 64 MiB" in refusal(cli("export", f"hf:{folder}", tmp_path / "x"))
        (folder / name).write_bytes(kept)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 100_000])
def test_json_nested_too_deeply_is_refused(cli: Cli, tmp_path: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    (tmp_path / "m-symbol.json").write_text(f'{{"nodes": {deep}}}')
    assert "m-symbol.json: more than 64 levels" in refusal(cli("inspect", tmp_path / "m"))
    folder = write_hugging_face(tmp_path / "hf")
    (folder / "config.json").write_text(f'{{"model_type": {deep}}}')
    assert "config.json: more than 64 levels" in refusal(cli("export", f"hf:{folder}", tmp_path / "x"))


@pytest.mark.parametrize(
    ("corrupted", "reason"),
    [
        ({"name": "n" * 5000}, "node 1 has a name of more than 4096 characters"),
        ({"op": "n" * 5000}, "node 1 has a name of more than 4096 characters"),
        ({"attrs": {"a": "1" * 70_000}}, "an attribute is longer than 65536 characters"),
        ({"attrs": {"a" * 5000: "1"}}, "an attribute is longer than 65536 characters"),
    ],
)
def test_names_and_attributes_that_are_too_long_are_refused(corrupted: dict[str, object], reason: str) -> None:
    x = {"op": "null", "name": "x", "inputs": []}
    node = {"op": "exp", "name": "e", "inputs": [[0, 0, 0]], **corrupted}
    with pytest.raises(ModelError) as caught:
        SymbolGraph.parse(json.dumps({"nodes": [x, node], "arg_nodes": [0], "heads": [[1, 0, 0]]}), "it")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


def sign(prefix: Path) -> None:
    """Let a manifest say that a bundle's files are what they now are, as everybody can."""
    manifest = Path(f"{prefix}-manifest.json")
    document = json.loads(manifest.read_text())
    for name in document["files"]:
        path = Path(f"{prefix}-{name}")
        document["files"][name] = {"sha256": file_digest(path), "size": path.stat().st_size}
    manifest.write_text(json.dumps(document))


def change_json(prefix: Path, name: str, *keys: str | int, value: object) -> None:
    """Put another value into a JSON file of a bundle, or take it out where it is `...`; and sign."""
    path = Path(f"{prefix}-{name}")
    document = json.loads(path.read_text())
    place = document
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(document))
    sign(prefix)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("source", "command", "config") for value in (..., "x", 5)),
        ("source", None),
        ("base", []),
        ("base", {"config": "x"}),
    ],
)
def test_a_manifest_has_the_origin_of_the_symbol(
    cli: Cli, bundle: Path, tables: Tables, key: str, value: object
) -> None:
    """And is refused before the work: not when the fitted classifier is to be written."""
    change_json(bundle, "manifest.json", key, value=value)
    out = bundle.with_name("out")
    for command in (
        ("inspect", bundle),
        ("extract", bundle, out, "--output", "layer 0"),
        ("finetune", bundle, "--train", tables.train, "--dev", tables.dev, out),
    ):
        assert re.search(rf"m-manifest.json: .*{key}.* is (missing|not an)", refusal(cli(*command)))


def test_an_old_bundle_without_a_base_is_accepted(cli: Cli, bundle: Path) -> None:
    change_json(bundle, "manifest.json", "base", value={})
    assert cli("inspect", bundle).code == 0


def test_two_sets_of_attributes_with_a_signature_are_refused(tiny_hf: Path, tmp_path: Path) -> None:
    """Heads of 0 divide by zero in MXNet, and only the other set was checked: verify died by SIGFPE."""
    prefix = tmp_path / "m"
    bertsym.export(f"hf:{tiny_hf}", prefix, ExportOptions(form="gluonnlp"), verify=False)
    path = Path(f"{prefix}-symbol.json")
    document = json.loads(path.read_text())
    for number, node in enumerate(document["nodes"]):
        if "valatt" in node["op"]:
            node["attr"] = {**node["attrs"], "heads": "0"}
            first = number
            break
    path.write_text(json.dumps(document))
    sign(prefix)
    result = subprocess.run([*BERTSYM, "verify", str(prefix)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stderr
    assert f"m-symbol.json: node {first} ('" in result.stderr


@pytest.fixture
def labelled(classifier: Path, tmp_path: Path) -> Path:
    """A copy of a classifier at the prefix ``m``."""
    for path in classifier.parent.glob(f"{classifier.name}-*"):
        shutil.copy(path, tmp_path / path.name.replace(classifier.name, "m", 1))
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (["no\n\x1b[2J", "yes"], "is not printable"),
        (["no\tp", "yes"], "is not printable"),
        (["yes", "yes"], "the class name 'yes' is repeated"),
    ],
)
def test_labels_are_those_that_a_table_can_have(cli: Cli, labelled: Path, labels: list[str], why: str) -> None:
    """predict prints them, between tabs."""
    change_json(labelled, "signature.json", "class_names", value=labels)
    for command in ("inspect", "predict"):
        message = refusal(cli(command, labelled, *(("--text", "happy") if command == "predict" else ())))
        assert "m-signature.json: class_names[" in message
        assert message.isprintable()
        assert why in message


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("kind",), "encoder"),
        (("origin",), {}),
        (("origin", "tokenizer"), "x"),
        (("inputs", 0, "shape"), [0, 5]),
        (("inputs", 0, "shape"), ["9" * 5000]),
        (("inputs", 0, "shape"), [10**400]),
        (("outputs", 0, "shape"), ["a\nb"]),
    ],
)
def test_the_signature_of_an_extracted_part_is_checked(
    cli: Cli, bundle: Path, keys: tuple[str | int, ...], value: object
) -> None:
    part = bundle.with_name("part")
    assert cli("extract", bundle, part, "--output", "layer 0").code == 0
    change_json(part, "signature.json", *keys, value=value)
    for command in (("inspect", part), ("tokenize", part, "--text", "the cat"), ("diff", part, part, "--run")):
        assert f"part-signature.json: {keys[0]}" in refusal(cli(*command))


def test_the_size_of_the_vocabulary_must_match_the_config(cli: Cli, labelled: Path) -> None:
    vocabulary = Path(f"{labelled}-vocab.txt")
    lines = vocabulary.read_text().splitlines()
    vocabulary.write_text("\n".join([*lines[:10], *lines[11:]]) + "\n")
    sign(labelled)
    message = refusal(cli("predict", labelled, "--text", "happy"))
    assert message.endswith(f"m-vocab.txt: {len(lines) - 1} tokens, but vocab_size is {len(lines)}")


def losing_numbers(graph: SymbolGraph) -> None:
    """A Reshape that drops elements, which MXNet runs, and then writes out of bounds."""
    graph.set_attribute(graph.node("cls"), "shape", "(-1, 31)")


def losing_them_by_a_size_of_the_config(graph: SymbolGraph) -> None:
    shorter = graph.add("Reshape", "shorter", [graph.node("data0")], {"shape": "(-1, 32)"})
    total = graph.add("Reshape", "total", [graph.add("sum", "all", [shorter], {"axis": "(0, 1)"})], {"shape": "(1, 1)"})
    graph.insert_after(graph.node("cls"), "broadcast_add", "more", inputs=[total])


def dividing_by_nothing(graph: SymbolGraph) -> None:
    """MXNet's shape inference divides by the zero that the -1 becomes."""
    node = graph.node("bertencoder0_transformer0_query_split")
    graph.set_inputs(node, [graph.node("data0")])


def lengths_below_none(graph: SymbolGraph) -> None:
    mask = graph.node("bertencoder0_mask_padding")
    lengths = graph.add("_mul_scalar", "below", [graph.node("data2")], {"scalar": "-1000000"})
    graph.set_inputs(mask, [mask.inputs[0], lengths])


def lengths_that_overflow(graph: SymbolGraph) -> None:
    mask = graph.node("bertencoder0_mask_padding")
    graph.set_inputs(mask, [mask.inputs[0], graph.add("Cast", "small", [graph.node("data2")], {"dtype": "int8"})])


def axes_twice(graph: SymbolGraph) -> None:
    graph.set_attribute(graph.node("bertencoder0_transformer0_query_heads"), "axes", "(0, 2, 1, 1)")


def too_large(graph: SymbolGraph) -> None:
    wide = graph.add("expand_dims", "wider", [graph.node("data2")], {"axis": "1"})
    wide = graph.add("broadcast_axis", "wide", [wide], {"axis": "1", "size": "16777216"})
    total = graph.add("sum", "all", [wide], {"axis": "1", "keepdims": "True"})
    graph.insert_after(graph.node("cls"), "broadcast_add", "more", inputs=[total])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (losing_numbers, "node 'cls' reshapes to sizes that are not in the config"),
        (losing_them_by_a_size_of_the_config, "node 'shorter': a Reshape does not take (11, 5)"),
        (dividing_by_nothing, "node 'bertencoder0_transformer0_query_split': a Reshape does not take (11, 5)"),
        (lengths_below_none, "node 'bertencoder0_mask_padding' reads lengths that are not computed from data2"),
        (lengths_that_overflow, "node 'bertencoder0_mask_padding' reads lengths that are not computed from data2"),
        (axes_twice, "node 'bertencoder0_transformer0_query_heads': axes is '(0, 2, 1, 1)', which names one twice"),
        (too_large, "wide has the shape (11, 16777216) for inputs of 11 x 5"),
    ],
)
def test_a_bundle_with_right_digests_is_still_checked(
    cli: Cli, bundle: Path, change: Callable[[SymbolGraph], object], why: str
) -> None:
    """An attacker whose graph makes MXNet access memory out of bounds can forge digests as well."""
    symbol = Path(f"{bundle}-symbol.json")
    graph = SymbolGraph.load(symbol)
    change(graph)
    symbol.write_text(graph.to_json())
    sign(bundle)
    for command in (("verify", bundle), ("inspect", bundle, "--shapes"), ("lower", bundle, bundle.with_name("out"))):
        assert f"m-symbol.json: {why}" in refusal(cli(*command))


def test_lengths_of_a_row_that_is_shorter_than_the_text_are_refused(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    """softmax reads beyond its row for a larger number."""
    prefix = tmp_path / "m"
    assert cli("export", f"hf:{tiny_hf}", prefix, "--form", "gluonnlp").code == 0
    symbol = Path(f"{prefix}-symbol.json")
    graph = SymbolGraph.load(symbol)
    softmax = graph.node("bertencoder0_transformer0_attention")
    first = graph.add("slice_axis", "first", [softmax.inputs[0]], {"axis": "2", "begin": "0", "end": "1"})
    graph.set_inputs(softmax, [first, softmax.inputs[1]])
    symbol.write_text(graph.to_json())
    sign(prefix)
    message = refusal(cli("verify", prefix))
    assert f"node '{softmax.name}' reads lengths that are not computed from data2" in message


def test_control_characters_in_errors_are_escaped(cli: Cli, tmp_path: Path) -> None:
    hostile = "\x1b]0;title\x07\u202e\u2028" + "x" * 5000
    folder = write_hugging_face(tmp_path / "hf", model_type=hostile)
    for source in (f"hf:{folder}", f"hf:{hostile}"):
        message = refusal(cli("export", source, tmp_path / "x"))
        assert message.isprintable()
        assert len(message) < 2100
        assert "xxx..." in message
    x = {"op": "null", "name": "\x1b[2J\n\u202ex", "inputs": []}
    e = {"op": "exp", "name": "\x9b31m", "attrs": {"\x07": "\r"}, "inputs": [[0, 0, 0]]}
    for name, node in (("m", e), ("n", {**e, "name": "\x1bc"})):
        document = {"nodes": [x, node], "arg_nodes": [0], "heads": [[1, 0, 0]]}
        (tmp_path / f"{name}-symbol.json").write_text(json.dumps(document))
    for command in (("inspect", "m"), ("inspect", "m", "--nodes"), ("diff", "m", "n")):
        result = cli(command[0], *(tmp_path / word if len(word) == 1 else word for word in command[1:]))
        assert result.code == 0
        assert all(line.isprintable() for line in result.out.split("\n"))
    unreadable = '{"nodes": [{"op": "null", "name": "\x1b[31m\\u001b[2J", "inputs": [[0, 0, 0]]}]}'
    (tmp_path / "m-symbol.json").write_text(unreadable)
    assert refusal(cli("inspect", tmp_path / "m")).isprintable()
