"""Whether the weights of a bundle were trained: what the signature and everything that reads it say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables
from onnx_files import session
from refusals import refusal

from bertsym.array import Array
from bertsym.symbol.params import ParamsFile, write_params

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def random_encoder(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> Path:
    from bertsym import SourceOptions, export

    folder = tmp_path_factory.mktemp("random")
    options = SourceOptions(vocab=f"{bundles['cls']}-vocab.txt")
    return export("random:bert_1_16_2", folder / "base", source_options=options).bundle.prefix


def trained(cli: Cli, prefix: Path) -> tuple[bool | None, bool | None]:
    """``trained`` and ``encoder_trained`` of the signature; inspect and the ONNX metadata must agree."""
    document = json.loads(Path(f"{prefix}-signature.json").read_text())
    found = document["trained"], document.get("encoder_trained")
    inspected = json.loads(cli("inspect", prefix, "--json").out)
    assert (inspected["trained"], inspected["encoder_trained"]) == found
    file = Path(f"{prefix}.onnx")
    assert cli("onnx", prefix, file).code == 0
    metadata = session(file).get_modelmeta().custom_metadata_map
    assert (json.loads(metadata["trained"]), json.loads(metadata.get("encoder_trained", "null"))) == found
    return found


def run(cli: Cli, *arguments: object) -> Path:
    """Run a command and return the PREFIX that it wrote."""
    done = cli(*arguments)
    assert done.code == 0, done.err
    return Path(str(arguments[2]))


def with_params(prefix: Path, path: Path, change: Callable[[str, Array], Array]) -> Path:
    """A parameter file with changed arrays of a bundle."""
    params = ParamsFile(f"{prefix}-0000.params")
    with open(path, "wb") as file:
        write_params(file, {name: change(name, array) for name, array in params.items()})
    return path


def test_an_encoder_is_trained_unless_its_weights_are_random(
    cli: Cli, bundles: dict[str, Path], random_encoder: Path
) -> None:
    assert trained(cli, bundles["cls"]) == (True, True)
    assert trained(cli, random_encoder) == (False, False)


@pytest.mark.parametrize("task", ["classification", "regression", "qa"])
def test_a_finished_head_is_not_trained(cli: Cli, tiny_hf: Path, tmp_path: Path, task: str) -> None:
    prefix = run(cli, "export", f"hf:{tiny_hf}", tmp_path / "out", "--task", task)
    assert trained(cli, prefix) == (False, True)
    assert "UNTRAINED HEAD" in cli("inspect", prefix).out
    for command in (["predict", prefix, "--text", "happy"], ["evaluate", prefix, tiny_hf / "vocab.txt"]):
        assert f"Error: {prefix}: untrained head: " in refusal(cli(*command))


def test_a_grafted_head_is_untrained_and_keeps_the_state_of_the_encoder(
    cli: Cli, bundles: dict[str, Path], random_encoder: Path, tmp_path: Path
) -> None:
    for name, encoder in (("pretrained", True), ("random", False)):
        base = bundles["cls"] if encoder else random_encoder
        grafted = run(cli, "graft", base, tmp_path / name)
        assert trained(cli, grafted) == (False, encoder)
        assert "untrained head" in refusal(cli("predict", grafted, "--text", "happy"))
        removed = run(cli, "graft", grafted, tmp_path / f"{name}-removed", "--head", "none")
        assert trained(cli, removed) == (encoder, encoder)
        part = run(cli, "extract", grafted, tmp_path / f"{name}-part", "--output", "fc-finetune")
        assert trained(cli, part) == (False, None)
        part = run(cli, "extract", grafted, tmp_path / f"{name}-layer", "--output", "layer 0")
        assert trained(cli, part) == (encoder, None)


def test_a_head_of_another_kind_is_not_trained_even_when_it_is_renamed(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    grafted = run(cli, "graft", bundles["sequence"], tmp_path / "tagging", "--head", "tagging")
    assert trained(cli, grafted) == (False, None)
    renamed = run(cli, "edit", grafted, tmp_path / "renamed", "--rename", "fc-finetune*=dense*")
    assert trained(cli, renamed) == (False, None)


def test_fine_tuning_marks_the_unfrozen_parts_as_trained(
    cli: Cli, random_encoder: Path, tables: Tables, tmp_path: Path
) -> None:
    for name, options in (("all", []), ("head", ["--freeze-encoder"])):
        out = tmp_path / name
        arguments = ("--train", tables.train, "--dev", tables.dev, "--epochs", 1)
        assert cli("finetune", random_encoder, *arguments, out, *options).code == 0
        assert trained(cli, out) == (True, name == "all")
        assert cli("predict", out, "--text", "happy").code == 0


@pytest.mark.parametrize("changed", ["nothing", "head", "encoder"])
def test_parameters_of_another_file_are_trained_where_they_differ(
    cli: Cli, random_encoder: Path, tmp_path: Path, changed: str
) -> None:
    def change(name: str, array: Array) -> Array:
        in_head = name.startswith("fc-finetune")
        return array + np.float32(0.1) if changed == ("head" if in_head else "encoder") else array

    grafted = run(cli, "graft", random_encoder, tmp_path / "grafted")
    params = with_params(grafted, tmp_path / "fitted.params", change)
    edited = run(cli, "edit", grafted, tmp_path / "edited", "--params", params)
    assert trained(cli, edited) == (changed == "head", changed == "encoder")


def test_whether_files_without_a_bundle_are_trained_is_unknown(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("symbol.json", "0000.params"):
        shutil.copy(f"{bundles['cls']}-{name}", tmp_path / f"files-{name}")
    part = run(cli, "extract", tmp_path / "files", tmp_path / "part", "--output", "cls")
    assert trained(cli, part) == (None, None)
    grafted = run(cli, "graft", tmp_path / "files", tmp_path / "grafted")
    assert trained(cli, grafted) == (False, None)
