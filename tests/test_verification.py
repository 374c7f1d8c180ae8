"""``bertsym verify``: what it prints of a good bundle, and what it finds in bad ones."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from conftest import Result, Tables, hugging_face_weights, write_hugging_face
from refusals import refusal

from bertsym import Bundle, ExportOptions, FinetuneOptions, ModelError, VerificationError, export, finetune, verify
from bertsym.array import Array
from bertsym.mxnet_runtime import mx
from bertsym.symbol.params import write_params
from bertsym.verifier import DEFAULT_RTOL, verify_bundle

Cli = Callable[..., Result]
Document = dict[str, Any]

OUTPUTS = ("cls", "pooled", "mean", "sequence")
FILES = ("symbol.json", "0000.params", "tokenizer.json", "vocab.txt", "vocab.json", "signature.json")
LAYER = "bertencoder0_transformer0"

_CHECK = re.compile(
    r"  (Module|SymbolBlock|train symbol|GluonNLP) +(\w+) \(([\d, ]+)\) +length (\d+) +"
    r"max difference (\S+) \((\S+) of scale (\S+)\)"
)


@pytest.fixture
def copied(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """Prefix of a copy of the ``pooled`` bundle, to be damaged."""
    return copy(bundles["pooled"], tmp_path)


def copy(prefix: Path, folder: Path) -> Path:
    for path in prefix.parent.glob(f"{prefix.name}-*"):
        shutil.copy(path, folder / path.name)
    return folder / prefix.name


def file_of(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}-{name}")


def edit_json(path: Path, edit: Callable[[Document], object]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def edit_manifest(prefix: Path, edit: Callable[[Document], object]) -> None:
    edit_json(file_of(prefix, "manifest.json"), edit)


def redigest(prefix: Path) -> None:
    """Make the manifest right for the files as they are now."""

    def edit(manifest: Document) -> None:
        for name, entry in manifest["files"].items():
            content = file_of(prefix, name).read_bytes()
            entry.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())

    edit_manifest(prefix, edit)


def node_of(symbol: Document, name: str) -> Document:
    (node,) = (node for node in symbol["nodes"] if node["name"] == name)
    assert isinstance(node, dict)
    return node


def change_symbol(prefix: Path, edit: Callable[[Document], object], name: str = "symbol.json") -> None:
    """Change the graph, with a manifest that agrees."""
    before = file_of(prefix, name).read_text()
    edit_json(file_of(prefix, name), edit)
    assert json.loads(before) != json.loads(file_of(prefix, name).read_text())
    redigest(prefix)


def change_attribute(prefix: Path, node: str, attribute: str, value: str, name: str = "symbol.json") -> None:
    change_symbol(prefix, lambda symbol: node_of(symbol, node)["attrs"].update({attribute: value}), name)


def change_params(prefix: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the parameters, with a manifest that agrees."""
    path = file_of(prefix, "0000.params")
    arrays = mx.nd.load(str(path))
    edit(arrays)
    mx.nd.save(str(path), arrays)
    redigest(prefix)


# --- good bundles ---


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_is_verified_with_its_shapes_and_differences(
    cli: Cli, bundles: dict[str, Path], output: str
) -> None:
    result = cli("verify", bundles[output])
    assert (result.code, result.err) == (0, "")
    *lines, verified, last = result.out.splitlines()
    checks = [_CHECK.fullmatch(line) for line in lines]
    found = {check.group(1, 2, 3, 4) for check in checks if check}
    expected = set()
    for loader in ("Module", "SymbolBlock", "GluonNLP"):
        for batch_size in (1, 3):
            for length in (23, 40):  # 48 is beyond the position table
                shape = (batch_size, length, 32) if output == "sequence" else (batch_size, 32)
                expected.add((loader, f"{output}_output", ", ".join(map(str, shape)), str(length)))
    assert found == expected
    assert len(checks) == len(expected)
    for check in checks:
        assert check is not None
        difference, relative, scale = map(float, check.group(5, 6, 7))
        assert 0 < difference < 2e-5
        assert relative == pytest.approx(difference / scale, rel=0.1)
        assert scale > 0.5
    assert verified == (
        f"{bundles[output]}: verified by mxnet 1.9.1 (Module, SymbolBlock) against the float64 reference encoder and "
        "gluonnlp 0.10.0 BERTModel"
    )
    assert last == f"{bundles[output]}: digests and outputs are correct"


def test_the_manifest_has_the_comparison_and_its_reference(bundles: dict[str, Path]) -> None:
    assert Bundle.open(bundles["cls"]).manifest["verification"] == {
        "engine": "mxnet 1.9.1",
        "reference": "bertsym float64",
        "second_reference": "gluonnlp 0.10.0 BERTModel",
        "loaders": ["Module", "SymbolBlock"],
        "lengths": [16, 40],
        "rtol": 1e-5,
    }


@pytest.mark.parametrize(
    ("task", "shape"),
    [("classification", "(3, 2)"), ("regression", "(3, 1)"), ("qa", "(3, 23, 2)")],
)
def test_a_bundle_with_a_finished_head_is_verified(
    cli: Cli, tiny_hf: Path, tmp_path: Path, task: str, shape: str
) -> None:
    prefix = tmp_path / "task"
    assert cli("export", f"hf:{tiny_hf}", prefix, "--task", task).code == 0
    result = cli("verify", prefix)
    assert result.code == 0
    assert f"Module       logits_output {shape}" in result.out
    change_attribute(prefix, f"{LAYER}_attention", "axis", "-2")
    assert "logits_output" in refusal(cli("verify", prefix))


def test_a_classifier_is_verified_with_its_training_symbol(cli: Cli, classifier: Path) -> None:
    result = cli("verify", classifier)
    assert result.code == 0
    loaders = [check.group(1) for check in map(_CHECK.fullmatch, result.out.splitlines()) if check]
    assert loaders.count("Module") == loaders.count("SymbolBlock") == 4
    assert loaders.count("train symbol") == 4


def test_a_short_position_table_can_be_verified(tmp_path: Path, tables: Tables) -> None:
    weights = hugging_face_weights()
    name = "embeddings.position_embeddings.weight"
    weights[name] = np.ascontiguousarray(weights[name][:12])
    folder = write_hugging_face(tmp_path / "hf", weights, max_position_embeddings=12)
    base = export(f"hf:{folder}", tmp_path / "base").bundle.prefix
    assert {check.length for check in verify(base)} == {12}
    options = FinetuneOptions(epochs=1, max_length=12)
    fitted = finetune(base, tables.dev, tables.dev, tmp_path / "fitted", options=options)
    assert {check.length for check in verify(fitted.bundle.prefix)} == {12}


# --- how much may differ ---


def test_the_tolerance_is_relative_to_the_outputs_scale(cli: Cli, bundles: dict[str, Path]) -> None:
    worst = max(check.relative_difference for check in verify(bundles["sequence"]))
    assert 0 < worst < 1e-5
    assert cli("verify", bundles["sequence"], "--rtol", worst * 1.01).code == 0
    line = refusal(cli("verify", bundles["sequence"], "--rtol", worst * 0.99))
    assert "differs from the reference encoder by more than" in line
    assert "sequence_output" in line


@pytest.mark.parametrize(
    ("node", "attribute", "value", "said"),
    [
        ("bertencoder0_transformer0_query_scaled", "scalar", "1e38", "max difference nan"),
        ("bertencoder0_mask_padding", "value", "3e38", "max difference"),
    ],
    ids=["in every row", "in padded rows only"],
)
def test_numbers_that_are_too_large_are_found(
    cli: Cli, copied: Path, node: str, attribute: str, value: str, said: str
) -> None:
    change_attribute(copied, node, attribute, value)
    assert said in refusal(cli("verify", copied))


def test_a_graph_that_swaps_two_weights_is_found(cli: Cli, copied: Path) -> None:
    def swap(symbol: Document) -> None:
        names = [f"{LAYER}_dotproductselfattentioncell0_{part}_weight" for part in ("query", "key")]
        query, key = (node_of(symbol, name) for name in names)
        query["name"], key["name"] = key["name"], query["name"]

    change_symbol(copied, swap)
    assert "differs from the reference encoder" in refusal(cli("verify", copied))


def test_an_output_of_another_shape_is_found(cli: Cli, copied: Path) -> None:
    def cut(symbol: Document) -> None:
        node_of(symbol, "cls")["attrs"]["shape"] = "(1, -1, 32)"

    change_symbol(copied, cut)
    assert "the output has the shape" in refusal(cli("verify", copied))


def test_a_training_symbol_that_computes_something_else_is_found(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    prefix = copy(classifier, tmp_path)
    change_attribute(prefix, f"{LAYER}_attention", "axis", "-2", "train-symbol.json")
    assert "train symbol" in refusal(cli("verify", prefix))


def test_weights_that_are_not_the_sources_are_found_where_the_source_is_known(bundles: dict[str, Path]) -> None:
    bundle = Bundle.open(bundles["cls"])
    params = dict(bundle.params())
    assert verify_bundle(bundle, params, DEFAULT_RTOL, (16, 40), "here")
    query, key = (f"{LAYER}_dotproductselfattentioncell0_{part}_weight" for part in ("query", "key"))
    params[query], params[key] = params[key], params[query]
    with pytest.raises(VerificationError, match="here: differs from the reference encoder"):
        verify_bundle(bundle, params, DEFAULT_RTOL, (16, 40), "here")


def test_an_export_is_compared_with_its_source_and_not_with_its_own_file(
    cli: Cli, tiny_hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key = (f"{LAYER}_dotproductselfattentioncell0_{part}_weight" for part in ("query", "key"))

    def confuse(file: BinaryIO, arg_params: Mapping[str, Array], auxiliary: tuple[str, ...]) -> None:
        write_params(file, {**arg_params, query: arg_params[key], key: arg_params[query]})

    monkeypatch.setattr("bertsym.bundle.writing.write_params", confuse)
    line = refusal(cli("export", f"hf:{tiny_hf}", tmp_path / "out" / "base"), tmp_path / "out")
    assert "differs from the reference encoder" in line


# --- files that are not as they were written ---


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(cli: Cli, copied: Path, name: str) -> None:
    path = file_of(copied, name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = refusal(cli("verify", copied))
    assert str(path) in line
    assert "SHA-256" in line


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_size_is_found(cli: Cli, copied: Path, name: str) -> None:
    path = file_of(copied, name)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\n")
    assert f"{path}: {size + 1} bytes, but {size} in the manifest" in refusal(cli("verify", copied))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(cli: Cli, copied: Path, name: str) -> None:
    file_of(copied, name).unlink()
    assert str(file_of(copied, name)) in refusal(cli("verify", copied))


def test_a_prefix_without_a_manifest_is_not_a_bundle(cli: Cli, copied: Path) -> None:
    file_of(copied, "manifest.json").unlink()
    assert f"{copied} is not a bundle: {copied.name}-manifest.json does not exist" in refusal(cli("verify", copied))


# --- manifests ---


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, "bundle format 1 is too old: export the model again"),
        (3, "bundle format 3 is newer than 2, the format of this bertsym: update bertsym"),
        ("1", 'format_version: "1" is not an integer'),
        (None, "format_version: null is not an integer"),
    ],
)
def test_a_bundle_of_another_format_is_refused(cli: Cli, copied: Path, version: object, message: str) -> None:
    edit_manifest(copied, lambda manifest: manifest.update(format_version=version))
    assert refusal(cli("verify", copied)) == f"Error: {file_of(copied, 'manifest.json')}: {message}"


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest.clear(),
        lambda manifest: manifest["files"].clear(),
        lambda manifest: manifest.update(files=[]),
        lambda manifest: manifest["files"]["0000.params"].clear(),
        lambda manifest: manifest["files"].update({"../elsewhere": {"size": 0, "sha256": ""}}),
        lambda manifest: manifest.pop("config"),
        lambda manifest: manifest["config"].update(surprise=1),
    ],
    ids=["empty", "no files", "list of files", "no digest", "file elsewhere", "no config", "unknown config"],
)
def test_a_damaged_manifest_is_refused(cli: Cli, copied: Path, edit: Callable[[Document], object]) -> None:
    edit_manifest(copied, edit)
    refusal(cli("verify", copied))


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_manifest_that_is_not_a_json_object_is_refused(cli: Cli, copied: Path, text: str) -> None:
    path = file_of(copied, "manifest.json")
    path.write_text(text)
    line = refusal(cli("verify", copied))
    assert str(path) in line
    assert "JSON" in line


@pytest.mark.parametrize(("key", "value"), [("num_layers", 1), ("num_heads", 2), ("layer_norm_eps", 0.1)])
def test_a_config_that_is_not_the_graphs_is_found(cli: Cli, copied: Path, key: str, value: object) -> None:
    edit_manifest(copied, lambda manifest: manifest["config"].update({key: value}))
    refusal(cli("verify", copied))


@pytest.mark.parametrize(("key", "value"), [("num_layers", 3), ("units", 64), ("vocab_size", 60), ("max_length", 10)])
def test_a_config_that_is_not_the_parameters_is_found(cli: Cli, copied: Path, key: str, value: object) -> None:
    edit_manifest(copied, lambda manifest: manifest["config"].update({key: value}))
    refusal(cli("verify", copied))


# --- parameters and graphs that do not belong together ---


def test_a_parameter_too_many_is_found(cli: Cli, copied: Path) -> None:
    change_params(copied, lambda arrays: arrays.update({"arg:spare": mx.nd.ones(2)}))
    line = refusal(cli("verify", copied))
    assert str(file_of(copied, "0000.params")) in line
    assert "config: spare" in line


def test_a_missing_parameter_is_found(cli: Cli, copied: Path) -> None:
    change_params(copied, lambda arrays: arrays.pop("arg:bertmodel0_pooler_bias"))
    line = refusal(cli("verify", copied))
    assert str(file_of(copied, "0000.params")) in line
    assert "bertmodel0_pooler_bias" in line


def test_a_renamed_parameter_is_found(cli: Cli, copied: Path) -> None:
    change_params(copied, lambda arrays: arrays.update(arg_other=arrays.pop("arg:bertmodel0_pooler_bias")))
    assert "bertmodel0_pooler_bias" in refusal(cli("verify", copied))


def test_a_parameter_of_another_shape_is_found(cli: Cli, copied: Path) -> None:
    change_params(copied, lambda arrays: arrays.update({"arg:bertmodel0_pooler_bias": mx.nd.ones(31)}))
    assert "bertmodel0_pooler_bias" in refusal(cli("verify", copied))


def test_a_parameter_that_is_not_a_number_is_found(cli: Cli, copied: Path) -> None:
    change_params(copied, lambda arrays: arrays["arg:bertmodel0_pooler_bias"].__setitem__(3, np.nan))
    refusal(cli("verify", copied))


@pytest.mark.parametrize("size", [0, 10, 1000, -1])
def test_truncated_parameters_are_refused_though_their_digest_is_right(cli: Cli, copied: Path, size: int) -> None:
    path = file_of(copied, "0000.params")
    path.write_bytes(path.read_bytes()[:size])
    redigest(copied)
    assert str(path) in refusal(cli("verify", copied))


def test_a_second_graph_needs_the_same_parameters(classifier: Path, tmp_path: Path) -> None:
    prefix = copy(classifier, tmp_path)

    def rename(symbol: Document) -> None:
        node_of(symbol, "fc-finetune_bias")["name"] = "another"

    change_symbol(prefix, rename, "train-symbol.json")
    with pytest.raises(ModelError, match=r"train-symbol.json: variables differ from inputs and parameters"):
        verify(prefix)


@pytest.mark.parametrize(
    "edit",
    [
        lambda signature: signature["outputs"][0].update(name="another_output"),
        lambda signature: signature.update(max_length=99),
        lambda signature: signature.update(kind="another"),
        lambda signature: signature.update(kind="logits"),
        lambda signature: signature.update(encoder_output="cls"),
        lambda signature: signature.update(encoder_output="another"),
        lambda signature: signature["inputs"][0].update(shape=["batch", 41]),
    ],
    ids=["output name", "max length", "kind", "logits", "encoder output", "unknown output", "length"],
)
def test_a_signature_that_is_not_the_graphs_is_found(
    cli: Cli, copied: Path, edit: Callable[[Document], object]
) -> None:
    edit_json(file_of(copied, "signature.json"), edit)
    redigest(copied)
    refusal(cli("verify", copied))


# --- graphs that libmxnet must not see ---


@pytest.mark.parametrize(
    "edit",
    [
        lambda symbol: node_of(symbol, "pooled").update(op="NoSuchOperator"),
        lambda symbol: node_of(symbol, "pooled")["attrs"].update(foo="1"),
        lambda symbol: node_of(symbol, "pooled")["inputs"][0].__setitem__(0, 10**6),
        lambda symbol: symbol["heads"].clear(),
        lambda symbol: symbol.pop("nodes"),
    ],
    ids=["operator", "attribute", "absent input", "no output", "no nodes"],
)
def test_a_broken_graph_is_one_line_that_names_the_file(
    cli: Cli, copied: Path, edit: Callable[[Document], object]
) -> None:
    change_symbol(copied, edit)
    assert str(copied) in refusal(cli("verify", copied))


@pytest.mark.parametrize(
    "edit",
    [
        lambda symbol: symbol["heads"][0].__setitem__(1, 7),
        lambda symbol: node_of(symbol, "pooled")["inputs"][0].__setitem__(1, 5),
        lambda symbol: node_of(symbol, "pooled").update(op="_Native", attrs={"info": "4096"}),
    ],
    ids=["output of a head", "output of an input", "pointer"],
)
def test_a_graph_that_would_crash_libmxnet_is_refused(copied: Path, edit: Callable[[Document], object]) -> None:
    change_symbol(copied, edit)
    # In a process of its own, which may crash.
    command = [sys.executable, "-m", "bertsym", "verify", str(copied)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    refusal(Result(process.returncode, process.stdout, process.stderr))


def test_the_scale_is_that_of_all_forwards(tiny_hf: Path, tmp_path: Path) -> None:
    """Of one text alone, the one value of an untrained head may be next to zero."""
    checks = export(f"hf:{tiny_hf}", tmp_path / "head", ExportOptions(task="regression")).checks
    assert len({check.length for check in checks}) == 2
    assert len({check.scale for check in checks}) == 1
