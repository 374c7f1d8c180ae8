"""docs/signature.schema.json and manifest.schema.json describe the bundles of every command that writes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import Tables

from bertsym import (
    Edits,
    FinetuneOptions,
    ModelSource,
    NewHead,
    QuantizeOptions,
    edit,
    extract,
    finetune,
    graft_head,
    lower,
    quantize,
)
from bertsym.bundle import FILE_NAMES, MANIFEST

DOCS = Path(__file__).parent.parent / "docs"
OLD = Path(__file__).parent / "symbols" / "gluonnlp-0.6.0" / "sequence-symbol.json"


def schema(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return document


def check(prefix: Path, **expected: str) -> None:
    """Validate both files of a bundle; `expected` are values of its signature."""
    for name in ("signature", "manifest"):
        document = json.loads(Path(f"{prefix}-{name}.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(schema(name)).validate(document)
        known = schema(name)["properties"]
        assert set(document) <= set(known), f"{name}: keys without a description"
        if name == "signature":
            assert {key: document[key] for key in expected} == expected


@pytest.mark.parametrize("name", ["signature", "manifest"])
def test_the_schemas_are_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
def test_export(output: str, bundles: dict[str, Path]) -> None:
    check(bundles[output], kind="encoder", encoder_output=output)


def test_export_with_a_head(exported: Callable[..., Path]) -> None:
    check(exported(task="classification"), kind="logits", task="classification")


def test_finetune(classifier: Path) -> None:
    check(classifier, kind="classifier", task="classification")


def test_a_frozen_encoder(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=1, max_length=24, freeze_encoder=True)
    finetune(bundles["mean"], tables.train, tables.dev, tmp_path / "model", options=options)
    check(tmp_path / "model", kind="classifier")


def test_quantize(classifier: Path, tables: Tables, tmp_path: Path) -> None:
    quantize(classifier, tmp_path / "int8", tables.train, QuantizeOptions(rows=16, max_drop=1.0), dev=tables.dev)
    check(tmp_path / "int8", precision="int8")


def test_commands_on_graphs(bundles: dict[str, Path], classifier: Path, tmp_path: Path) -> None:
    graft_head(bundles["cls"], tmp_path / "grafted", NewHead(num_classes=3))
    check(tmp_path / "grafted", kind="classifier")
    graft_head(bundles["sequence"], tmp_path / "tagger", NewHead("tagging", 3))
    check(tmp_path / "tagger", kind="symbol")
    extract(classifier, tmp_path / "head", outputs=["softmax"], inputs=["cls"])
    check(tmp_path / "head", kind="symbol")
    edit(classifier, tmp_path / "edited", Edits(dropout="off"))
    check(tmp_path / "edited", kind="classifier")


def test_lower(bundles: dict[str, Path], tmp_path: Path) -> None:
    lower(bundles["cls"], tmp_path / "lowered", target="1.9", guard=True)
    check(tmp_path / "lowered", target_mxnet="1.9")
    lower(ModelSource(OLD, OLD.with_name("weights-0000.params")), tmp_path / "old")
    check(tmp_path / "old", kind="symbol")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("signature", "kind", "other"),
        ("signature", "class_names", ["a", "a"]),
        ("signature", "inputs", [{"name": "data0"}]),
        ("signature", "max_length", 0),
        ("manifest", "format_version", 1),
        ("manifest", "files", {"other": {"sha256": "0" * 64, "size": 1}}),
        ("manifest", "files", {"symbol.json": {"sha256": "0", "size": 1}}),
    ],
)
def test_other_values_are_refused(name: str, key: str, value: object, classifier: Path) -> None:
    document = json.loads(Path(f"{classifier}-{name}.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema(name)).validate({**document, key: value})


def test_the_manifest_lists_every_other_file() -> None:
    names = schema("manifest")["$defs"]["files"]["propertyNames"]["enum"]
    assert {*names, MANIFEST} == set(FILE_NAMES)
