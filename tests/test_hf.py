"""``hf``: bundles become folders that transformers loads, with the same weights, config and outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOCABULARY, Result, Tables
from family_folders import write_family
from family_models import CONFIGS, ENDINGS
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

from bertsym import Bundle, ExportOptions, FinetuneOptions, export, export_hugging_face, finetune
from bertsym.families import FAMILIES

Cli = Callable[..., Result]
FAST = FinetuneOptions(epochs=1, max_length=24, learning_rate=1e-3)


def config_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return document


@pytest.mark.parametrize("task", [None, *ENDINGS])
@pytest.mark.parametrize("model_type", [name for name in CONFIGS if name in FAMILIES])
def test_weights_and_config_survive_the_way_to_mxnet_and_back(
    tmp_path: Path, model_type: str, task: str | None
) -> None:
    source = write_family(tmp_path / "hf", model_type, task)
    output = "pooled" if task is None and FAMILIES[model_type].names.pooler else "cls"
    options = ExportOptions() if task is not None else ExportOptions(output=output)
    export(f"hf:{source}", tmp_path / "x", options, verify=False)
    done = export_hugging_face(tmp_path / "x", tmp_path / "back", verify=False)
    assert done.architecture == config_of(source)["architectures"][0]
    original, written = load_file(source / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    for name, array in written.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, original[name], err_msg=name)
    # A class that does not read the pooler is saved without it by transformers too; a tied weight is saved once.
    tied = {name for head in FAMILIES[model_type].heads.values() for name in head.tied}
    assert {name for name in original if "pooler" not in name and name not in tied} <= {*written}
    found, expected = config_of(tmp_path / "back"), config_of(source)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("model_type", "output", "options", "architecture"),
    [
        ("bert", "pooled", {}, "BertForSequenceClassification"),
        ("roberta", "mean", {"head": "family"}, "RobertaForSequenceClassification"),
        ("distilbert", "cls", {"head": "family"}, "DistilBertForSequenceClassification"),
    ],
)
def test_a_fine_tuned_classifier_is_written_with_its_labels_and_equal_outputs(
    tables: Tables, tmp_path: Path, model_type: str, output: str, options: dict[str, Any], architecture: str
) -> None:
    source = write_family(tmp_path / "hf", model_type)
    (source / "vocab.txt").write_text("\n".join(sorted_vocabulary(CONFIGS[model_type]["pad_token_id"])) + "\n")
    export(f"hf:{source}", tmp_path / "base", ExportOptions(output=output), verify=False)
    settings = FinetuneOptions(epochs=1, max_length=24, learning_rate=1e-3, **options)
    finetune(tmp_path / "base", tables.train, tables.dev, tmp_path / "x", options=settings)
    done = export_hugging_face(tmp_path / "x", tmp_path / "back")
    assert done.architecture == architecture
    assert max(check.relative_difference for check in done.checks) < 1e-5
    config, names = config_of(tmp_path / "back"), Bundle.open(tmp_path / "x").signature.class_names
    assert config["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert config["problem_type"] == "single_label_classification"
    # It is read as any other folder of transformers, and continues where it was.
    again = export(f"hf:{tmp_path / 'back'}", tmp_path / "again").bundle
    assert (again.signature.task, again.signature.class_names) == ("classification", names)
    card = (tmp_path / "back" / "README.md").read_text()
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    # Header, title and programs are those of a folder of transformers, the rest is that of the bundle.
    between = re.compile("## Labels.*## Use", re.DOTALL)
    assert between.findall(card) == between.findall((tmp_path / "x-card.md").read_text()) != []
    assert ModelCard(card).data.eval_results[0].metric_type == "accuracy"


def sorted_vocabulary(pad_id: int) -> list[str]:
    """The words of the tables, with the padding at an id."""
    words = [token for token in VOCABULARY if token != "[PAD]"]
    return [*words[:pad_id], "[PAD]", *words[pad_id:]]


def test_folded_weights_are_split_again(tmp_path: Path) -> None:
    from bertsym import lower

    source = write_family(tmp_path / "hf", "bert")
    export(f"hf:{source}", tmp_path / "x", verify=False)
    lower(tmp_path / "x", tmp_path / "folded", fold=True)
    export_hugging_face(tmp_path / "folded", tmp_path / "back", verify=False)
    original, written = load_file(source / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    for name, array in written.items():
        np.testing.assert_allclose(array, original[name], rtol=1e-6, err_msg=name)


def test_a_head_without_a_class_is_refused_with_the_command_that_makes_one(
    cli: Cli, classifier: Path, tmp_path: Path
) -> None:
    result = cli("hf", classifier, tmp_path / "hf", "--as", "transformers")
    assert result.code == 1
    assert "BertForSequenceClassification can't express this model: the head reads cls" in result.error_line
    assert "finetune --head family trains a head that it has" in result.error_line
    assert not (tmp_path / "hf").exists()


def test_an_existing_folder_is_overwritten_by_request_only_and_other_files_are_kept(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "hf"
    assert cli("hf", bundles["cls"], folder, "--no-verify").code == 0
    result = cli("hf", bundles["cls"], folder)
    assert (result.code, "overwrite it with --force" in result.error_line) == (2, True)
    (folder / "model.onnx").write_text("of the bundle before")  # as bertsym onnx writes it there
    assert cli("hf", bundles["pooled"], folder, "--no-verify", "--force").code == 0
    assert not (folder / "model.onnx").exists()
    (folder / "notes.txt").write_text("mine")
    result = cli("hf", bundles["cls"], folder, "--force")
    assert (result.code, "holds 'notes.txt'" in result.error_line) == (2, True)
    result = cli("hf", bundles["cls"], tmp_path / "no" / "folder")
    assert (result.code, "does not exist" in result.error_line) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "family"}, "has no pooler, which --head family reads"),
        ({"head": "x"}, "head must be plain or family, not x"),
    ],
)
def test_a_family_head_that_is_impossible_is_refused(
    bundles: dict[str, Path], tables: Tables, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        finetune(bundles["cls"], tables.train, tables.dev, tmp_path / "x", options=FinetuneOptions(**options))
