"""`bertsym inspect` on files of every kind: which it finds, what it lists, what it refuses, and what it costs."""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import VOCABULARY
from inspecting import SYMBOLS, Command, as_json, as_text, exported_by_gluonnlp, field
from refusals import refusal

from bertsym import BertConfig, output_symbol
from bertsym.bundle.files import file_digest
from bertsym.encoders.outputs import output_parameters
from bertsym.encoders.parameters import parameter_shapes
from bertsym.mxnet_runtime import mx

WEIGHTS = SYMBOLS / "gluonnlp-0.10.0" / "weights-0000.params"
STATIC = SYMBOLS / "gluonnlp-0.6.0"


# Which files


def test_the_symbol_file_itself_finds_its_parameters(cli: Command, tmp_path: Path) -> None:
    prefix = exported_by_gluonnlp(tmp_path, "0.10.0", "classifier")
    of_file, of_prefix = as_json(cli, f"{prefix}-symbol.json"), as_json(cli, prefix)
    assert of_file["params"] == of_prefix["params"] == f"{prefix}-0000.params"
    assert of_file["answers"] == of_prefix["answers"]
    assert (of_file["bundle"], of_file["written_by_mxnet"]) == (None, "1.9.1")


def test_the_parameters_may_lie_elsewhere(cli: Command) -> None:
    document = as_json(cli, SYMBOLS / "gluonnlp-0.10.0" / "classifier-symbol.json", "--params", WEIGHTS)
    assert document["params"] == str(WEIGHTS)


def test_the_symbol_file_may_have_any_name(cli: Command, tmp_path: Path) -> None:
    shutil.copy(SYMBOLS / "mxnet-1.9.1" / "lstm.json", tmp_path / "net.json")
    assert as_json(cli, tmp_path / "net.json")["params"] is None


def test_the_training_symbol_belongs_to_the_bundle(cli: Command, classifier: Path) -> None:
    document = as_json(cli, f"{classifier}-train-symbol.json")
    assert [fact["name"] for fact in document["label_inputs"]] == ["softmax_label"]
    assert document["params"] == f"{classifier}-0000.params"
    assert document["answers"][0]["kind"] == "cls"


def test_the_given_epoch_or_epoch_0_or_the_last_epoch_is_read(cli: Command, tmp_path: Path) -> None:
    prefix = exported_by_gluonnlp(tmp_path, "0.10.0", "classifier", weights=False)
    for epoch in (3, 12):
        shutil.copy(WEIGHTS, f"{prefix}-{epoch:04d}.params")
    assert as_json(cli, prefix)["params"] == f"{prefix}-0012.params"
    assert as_json(cli, prefix, "--epoch", 3)["params"] == f"{prefix}-0003.params"
    shutil.copy(WEIGHTS, f"{prefix}-0000.params")
    assert as_json(cli, prefix)["params"] == f"{prefix}-0000.params"
    line = refusal(cli("inspect", prefix, "--epoch", 4), code=2)
    assert line == f"Error: old-0004.params: no such file in {tmp_path}"


# What is not there, or is something else


@pytest.mark.parametrize("options", [(), ("--json",), ("--shapes",)])
def test_wrong_files_are_refused_in_one_line(cli: Command, tmp_path: Path, options: tuple[str, ...]) -> None:
    symbol = SYMBOLS / "gluonnlp-0.10.0" / "classifier-symbol.json"
    (tmp_path / "empty-symbol.json").write_text("")
    (tmp_path / "half-symbol.json").write_text(symbol.read_text()[:2000])
    (tmp_path / "half.params").write_bytes(WEIGHTS.read_bytes()[:9000])
    (tmp_path / "binary-symbol.json").write_bytes(b"\xff\xfe\x00")
    for arguments, code, message in (
        (
            (tmp_path / "nothing",),
            2,
            f"nothing: no nothing-symbol.json in {tmp_path}, and no such symbol file",
        ),
        ((tmp_path,), 2, "is a folder: give the PREFIX of the files in it, or a symbol file"),
        ((WEIGHTS,), 2, "has parameters and no graph: give the symbol file, or the PREFIX of both"),
        ((tmp_path / "empty",), 1, "empty-symbol.json: not valid JSON"),
        ((tmp_path / "half",), 1, "half-symbol.json: not valid JSON"),
        ((tmp_path / "binary",), 1, "binary-symbol.json: not UTF-8 text"),
        ((STATIC / "expected.json",), 1, "expected.json: not an MXNet symbol, there is no list of nodes"),
        ((symbol, "--params", tmp_path / "none.params"), 1, "none.params: No such file or directory"),
        ((symbol, "--params", tmp_path), 1, f"{tmp_path}: Is a directory"),
        ((symbol, "--params", symbol), 1, "classifier-symbol.json: not a readable MXNet .params file"),
        (
            (symbol, "--params", tmp_path / "half.params"),
            1,
            "half.params: not a readable MXNet .params file: truncated",
        ),
    ):
        assert message in refusal(cli("inspect", *arguments, *options), code=code)


def test_a_bundle_whose_files_were_changed_in_size_is_refused(
    cli: Command, bundles: dict[str, Path], tmp_path: Path
) -> None:
    for path in bundles["cls"].parent.glob("cls-*"):
        shutil.copy(path, tmp_path / path.name)
    with open(tmp_path / "cls-0000.params", "ab") as file:
        file.write(b"\0")
    assert "in the manifest: the file was changed" in refusal(cli("inspect", tmp_path / "cls"))


# Lists


def test_the_nodes_are_listed_a_line_each(cli: Command, classifier: Path) -> None:
    lines, document = as_text(cli, classifier, "--nodes"), as_json(cli, classifier, "--nodes")
    assert [line.split()[0] for line in lines] == [node["name"] for node in document["nodes"]]
    (line,) = [line for line in lines if line.startswith("cls_slice ")]
    assert " ".join(line.split()) == (
        "cls_slice slice_axis (N, 1, 32) <- bertencoder0_transformer1_positionwiseffn0_layernorm0_fwd "
        "axis=1 begin=0 end=1"
    )
    assert lines[0].split()[:2] == ["data0", "variable"]


def test_several_lists_follow_each_other(cli: Command, classifier: Path) -> None:
    lists = [as_text(cli, classifier, option) for option in ("--nodes", "--arrays", "--ops")]
    assert as_text(cli, classifier, "--ops", "--nodes", "--arrays") == [line for lines in lists for line in lines]


def test_the_path_from_one_node_to_another(cli: Command, classifier: Path) -> None:
    lines = as_text(cli, classifier, "--path", "cls_slice", "softmax")
    assert [line.split()[0] for line in lines] == ["cls_slice", "cls", "dropout-finetune", "fc-finetune", "softmax"]
    document = as_json(cli, classifier, "--path", "layer 1", "cls_output")
    assert [node["name"] for node in document["path"]][1:] == ["cls_slice", "cls"]
    assert "nodes" not in document


def test_the_path_is_empty_where_no_data_flows(cli: Command, classifier: Path) -> None:
    assert as_text(cli, classifier, "--path", "softmax", "data0") == ["no data flows from softmax to data0"]
    assert as_json(cli, classifier, "--path", "softmax", "data0")["path"] == []


def test_an_unknown_node_gets_the_nearest_names(cli: Command, classifier: Path) -> None:
    line = refusal(cli("inspect", classifier, "--path", "cls_slise", "softmax"), code=2)
    assert line.startswith("Error: no node is named 'cls_slise'; did you mean cls_slice")
    assert "layers 0 to 1" in refusal(cli("inspect", classifier, "--path", "layer 2", "softmax"), code=2)


# Shapes


def test_mxnet_computes_the_shapes_of_all_tensors(cli: Command, classifier: Path) -> None:
    nodes = {node["name"]: node["shape"] for node in as_json(cli, classifier, "--nodes", "--shapes")["nodes"]}
    assert None not in nodes.values()
    assert nodes["bertencoder0_transformer0_scores"] == ["4*N", "T", "T"]
    nodes = {
        node["name"]: node["shape"] for node in as_json(cli, classifier, "--nodes", "--shape", "data0=3,7")["nodes"]
    }
    assert (nodes["data1"], nodes["data2"], nodes["softmax"]) == ([3, 7], [3], [3, 2])
    assert nodes["bertencoder0_transformer0_scores"] == [12, 7, 7]


@pytest.mark.parametrize("given", ["data0=3,8", "data1=3,8", "data2=3"])
def test_the_shapes_of_the_other_inputs_follow_from_one(cli: Command, given: str) -> None:
    arguments = (STATIC / "classifier-symbol.json", "--params", STATIC / "weights-0000.params", "--shape", given)
    document = as_json(cli, *arguments)
    shapes = {fact["name"]: fact["shape"] for fact in document["inputs"]}
    assert shapes == {"data0": [3, 8], "data1": [3, 8], "data2": [3]}
    assert document["outputs"][0]["shape"] == [3, 3]


def test_a_symbol_without_a_bert_takes_shapes_too(cli: Command) -> None:
    lines = as_text(cli, SYMBOLS / "mxnet-1.9.1" / "resnet50.json", "--shape", "data=1,3,224,224")
    assert field(lines, "inputs") == ["data (1, 3, 224, 224)"]
    assert "(1, 1000)" in field(lines, "outputs")[0]


def test_wrong_shapes_are_refused_in_one_line(cli: Command, classifier: Path) -> None:
    static = (STATIC / "classifier-symbol.json", "--params", STATIC / "weights-0000.params")
    for arguments, code, message in (
        ((classifier, "--shape", "data9=2,8"), 2, "has no input 'data9'; its inputs are data0, data1, data2"),
        ((classifier, "--shape", "data0=2,x"), 2, "'data0=2,x' is not of the form NAME=2,16"),
        ((classifier, "--shape", "data0"), 2, "is not of the form NAME=2,16"),
        ((classifier, "--shape", "data0=0,8"), 2, "is not of the form NAME=2,16"),
        ((classifier, "--shape", "data0=2,8", "--shape", "data2=3"), 1, "MXNet can't run it"),
        ((*static, "--shape", "data0=2,9"), 1, "MXNet can't run it"),
    ):
        assert message in refusal(cli("inspect", *arguments), code=code)


# What it costs

_CHILD = """
import sys
from bertsym.cli.group import run
code = run(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(code, peak, [name for name in ("mxnet", "gluonnlp", "tokenizers") if name in sys.modules], file=sys.stderr)
"""


def in_a_process(*arguments: object) -> tuple[str, int, int, list[str]]:
    """Output and exit code of a command, its peak memory in bytes, and which heavy packages it imported."""
    command = [sys.executable, "-c", _CHILD, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    code, peak, modules = result.stderr.splitlines()[-1].split(" ", 2)
    return result.stdout, int(code), int(peak) * 1024, json.loads(modules.replace("'", '"'))


def sparse_params(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A parameter file of zeros that takes no place on the disk."""
    with open(path, "wb") as file:
        file.write(struct.pack("<QQQ", 0x112, 0, len(shapes)))
        for shape in shapes.values():
            file.write(struct.pack(f"<Iii{len(shape)}q", 0xF993FAC9, 0, len(shape), *shape))
            file.write(struct.pack("<iii", 1, 0, 0))
            file.seek(4 * math.prod(shape), 1)
        file.write(struct.pack("<Q", len(shapes)))
        for name in shapes:
            file.write(struct.pack("<Q", len(name) + 4) + b"arg:" + name.encode())


@pytest.fixture(scope="module")
def base_bundle(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the size of BERT base, 440 MB; of the tiny one, with another graph and config."""
    prefix = tmp_path_factory.mktemp("base") / "base"
    config = BertConfig.from_model_name("bert_12_768_12", 30522)
    for path in bundles["cls"].parent.glob("cls-*"):
        shutil.copy(path, prefix.with_name(path.name.replace("cls", "base", 1)))
    output_symbol(config, "cls").save(f"{prefix}-symbol.json")
    shapes = parameter_shapes(config)
    sparse_params(Path(f"{prefix}-0000.params"), {name: shapes[name] for name in output_parameters(config, "cls")})
    words = [*VOCABULARY, *(f"word{i}" for i in range(config.vocab_size - len(VOCABULARY)))]
    Path(f"{prefix}-vocab.txt").write_text("\n".join(words) + "\n")
    signature_path = Path(f"{prefix}-signature.json")
    signature = json.loads(signature_path.read_text())
    signature["outputs"][0]["shape"] = ["batch", config.units]
    signature_path.write_text(json.dumps(signature))
    manifest_path = Path(f"{prefix}-manifest.json")
    manifest = json.loads(manifest_path.read_text())
    manifest["config"] = config.to_dict()
    for name, entry in manifest["files"].items():
        entry["size"] = Path(f"{prefix}-{name}").stat().st_size
    for name in ("symbol.json", "vocab.txt", "signature.json"):
        manifest["files"][name]["sha256"] = file_digest(Path(f"{prefix}-{name}"))
    manifest_path.write_text(json.dumps(manifest))
    return prefix


def test_a_bundle_of_440_mb_is_not_read_into_memory(base_bundle: Path) -> None:
    assert Path(f"{base_bundle}-0000.params").stat().st_size > 430_000_000
    for options in ((), ("--json", "--nodes", "--arrays"), ("--path", "data0", "cls")):
        out, code, peak, modules = in_a_process("inspect", base_bundle, *options)
        assert (code, modules) == (0, [])
        assert peak < 150_000_000
    out, *_ = in_a_process("inspect", base_bundle)
    assert "BERT of 12 layers, 768 units, 12 heads, vocabulary 30522, max length 512" in out
    assert "no head: ends in `cls` = [CLS], position 0 of the sequence: (N, 768)" in out
    assert "12 layers of 7,087,872 (28.4 MB each)" in out


def test_mxnet_is_imported_for_shapes_of_trusted_files_only(tmp_path: Path) -> None:
    prefix = exported_by_gluonnlp(tmp_path, "0.10.0", "classifier")
    imports: dict[tuple[str, ...], list[str]] = {
        (): [],
        ("--json", "--nodes"): [],
        ("--shapes",): [],
        ("--shapes", "--trust"): ["mxnet"],
    }
    for options, imported in imports.items():
        _, code, _, modules = in_a_process("inspect", prefix, *options)
        assert (code, modules) == (0, imported)


def test_a_constant_index_among_the_parameters_is_read_without_mxnet(tmp_path: Path) -> None:
    symbol = mx.sym.load(str(SYMBOLS / "gluonnlp-0.10.0" / "sequence-symbol.json"))
    taken = mx.sym.take(symbol, mx.sym.var("index"), axis=1, name="token")
    mx.sym.FullyConnected(taken, num_hidden=2, name="fc").save(str(tmp_path / "taken-symbol.json"))
    arrays = {**mx.nd.load(str(WEIGHTS)), "arg:index": mx.nd.array([2])}
    mx.nd.save(str(tmp_path / "taken-0000.params"), arrays)
    out, code, _, modules = in_a_process("inspect", tmp_path / "taken")
    assert (code, modules) == (0, [])
    assert "`fc` reads `token` = position 2 of the sequence: (N, 1, 16)" in out


# A symbol alone


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no parameters at all", "not a readable MXNet .params file"),
    ],
)
def test_a_symbol_that_is_named_by_its_path_needs_no_readable_parameters(
    cli: Command, tmp_path: Path, content: bytes, reason: str
) -> None:
    symbol = tmp_path / "m-symbol.json"
    shutil.copy(STATIC / "classifier-symbol.json", symbol)
    (tmp_path / "m-0003.params").write_bytes(content)
    done = cli("inspect", symbol)
    assert done.code == 0
    assert "BERT of 2 layers" in done.out
    assert done.err.startswith("note: opened without parameters: ")
    assert f"{tmp_path / 'm-0003.params'}: " in done.err
    assert reason in done.err
    document = json.loads(cli("inspect", symbol, "--json").out)
    assert (document["params"], len(document["notes"])) == (None, 1)
    done = cli("draw", symbol, tmp_path / "m.netron")
    assert (done.code, done.err.startswith("note: opened without parameters: ")) == (0, True)
    for asked in ((tmp_path / "m",), (symbol, "--params", tmp_path / "m-0003.params"), (symbol, "--epoch", 3)):
        assert reason in refusal(cli("inspect", *asked))


def test_a_symbol_of_a_damaged_bundle_is_inspected_by_its_path(
    cli: Command, bundles: dict[str, Path], tmp_path: Path
) -> None:
    for path in bundles["cls"].parent.glob("cls-*"):
        shutil.copy(path, tmp_path / path.name)
    with open(tmp_path / "cls-0000.params", "ab") as file:
        file.write(b"\0")
    done = cli("inspect", tmp_path / "cls-symbol.json")
    assert (done.code, "in the manifest: the file was changed" in done.err) == (0, True)
    assert "any MXNet symbol" in done.out
    refusal(cli("inspect", tmp_path / "cls"))
