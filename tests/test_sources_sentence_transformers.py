"""The encoder of a sentence-transformers folder: it is found, and what is not exported is listed by name and value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, write_hugging_face
from refusals import refusal
from sentence_folders import POOLING, dense, write_json, write_sentence_folder

from bertsym import Bundle

Cli = Callable[..., Result]

ENCODER = ("--output", "cls")  # of the encoder alone


def notes(result: Result) -> list[str]:
    """The lines that are printed before the bundle is described."""
    assert result.code == 0, result.err
    return result.out[: result.out.index("wrote ")].splitlines()


@pytest.fixture
def export(cli: Cli, tmp_path: Path) -> Callable[..., Result]:
    """Run ``bertsym export hf:FOLDER``, without verification, into a folder of its own."""
    return lambda folder, *options: cli("export", f"hf:{folder}", tmp_path / "out" / "base", "--no-verify", *options)


def test_every_module_and_setting_that_is_ignored_is_listed(export: Callable[..., Result], tmp_path: Path) -> None:
    folder = write_sentence_folder(
        tmp_path / "st",
        *(("Pooling", POOLING), ("Dense", dense(32, 16)), ("Normalize", {})),
        settings={"max_seq_length": 25, "do_lower_case": False},
        prompts={"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"},
    )
    assert notes(export(folder, *ENCODER)) == [
        "2_Dense: Dense 32 -> 16, Tanh: ignored",
        "3_Normalize: embeddings scaled to length 1: not in this bundle; embed --normalize",
        "prompts query 'query: '; default_prompt_name 'query': not in this bundle; embed --prompt TEXT",
        "max_seq_length 25: not in this bundle, which truncates at 40; embed --max-length 25",
        "1_Pooling: mean of the tokens: not in this bundle; export --output mean or embed --pooling mean",
    ]
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= set(
        Bundle.open(tmp_path / "out" / "base").manifest["source"]["files"]
    )


@pytest.mark.parametrize(
    ("pooling", "output", "expected"),
    [
        ({}, "mean", []),
        (
            {},
            "sequence",
            ["1_Pooling: mean of the tokens: not in this bundle; export --output mean or embed --pooling mean"],
        ),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls", []),
        (
            {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
            "pooled",
            ["1_Pooling: the [CLS] token: not in this bundle; export --output cls or embed --pooling cls"],
        ),
        (
            {"pooling_mode_max_tokens": True},
            "mean",
            ["1_Pooling: maximum of the tokens beside mean of the tokens: not in this bundle"],
        ),
        (
            {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True},
            "cls",
            ["1_Pooling: maximum of the tokens: not in this bundle; embed --pooling max"],
        ),
        (
            {"pooling_mode_mean_tokens": False, "pooling_mode": "lasttoken"},
            "cls",
            ["1_Pooling: the last token: not in this bundle"],
        ),
    ],
)
def test_a_pooling_is_noted_unless_it_is_the_output(
    export: Callable[..., Result], tmp_path: Path, pooling: dict[str, Any], output: str, expected: list[str]
) -> None:
    folder = write_sentence_folder(tmp_path / "st", ("Pooling", {**POOLING, **pooling}))
    assert notes(export(folder, "--output", output)) == expected


def test_settings_that_change_nothing_are_not_noted(export: Callable[..., Result], tmp_path: Path) -> None:
    folder = write_sentence_folder(
        tmp_path / "st",
        settings={"max_seq_length": 40, "do_lower_case": True},
        prompts={"prompts": {"query": ""}, "default_prompt_name": None},
    )
    assert notes(export(folder)) == []


def test_lower_casing_of_a_cased_tokenizer_is_noted(export: Callable[..., Result], tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "st", settings={"max_seq_length": None, "do_lower_case": True})
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False})
    assert notes(export(folder)) == ["do_lower_case true: ignored, this bundle does not lower-case texts"]


@pytest.mark.parametrize("subfolder", ["0_Transformer", "0_BERT"])
def test_a_transformer_in_a_subfolder_is_found(export: Callable[..., Result], tmp_path: Path, subfolder: str) -> None:
    settings = {"max_seq_length": 25}
    folder = write_sentence_folder(tmp_path / "st", ("Pooling", POOLING), transformer=subfolder, settings=settings)
    assert notes(export(folder, *ENCODER))[:2] == [
        f"modules.json: the transformer is in {subfolder}",
        "max_seq_length 25: not in this bundle, which truncates at 40; embed --max-length 25",
    ]
    files = Bundle.open(tmp_path / "out" / "base").manifest["source"]["files"]
    assert {f"{subfolder}/model.safetensors", f"{subfolder}/vocab.txt", "1_Pooling/config.json"} <= set(files)


def test_a_subfolder_that_modules_json_does_not_name_is_suggested(
    export: Callable[..., Result], tmp_path: Path
) -> None:
    folder = tmp_path / "st"
    write_hugging_face(folder / "0_Transformer")
    line = refusal(export(folder), tmp_path / "out")
    assert f"{folder / 'config.json'}: no such file, but there is one in 0_Transformer" in line
    assert f"export hf:{folder / '0_Transformer'}" in line


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({}, "an object is not a JSON array"),
        ([], "0 elements"),
        ([1], "[0]: 1 is not an object"),
        ([{"type": "Transformer", "path": "../other"}], '[0].path: "../other" is not a file name'),
        ([{"type": "Transformer", "path": "/etc"}], '[0].path: "/etc" is not a file name'),
        ([{"type": "Transformer", "path": ""}, {"path": "1_Pooling"}], '[1]: the key "type" is missing'),
    ],
)
def test_a_modules_json_that_is_damaged_is_refused(
    export: Callable[..., Result], tmp_path: Path, modules: Any, message: str
) -> None:
    folder = write_hugging_face(tmp_path / "st")
    write_json(folder / "modules.json", modules)
    assert f"{folder / 'modules.json'}: {message}" in refusal(export(folder), tmp_path / "out")


def test_a_link_out_of_a_module_is_refused(export: Callable[..., Result], tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "st", transformer="0_Transformer")
    config = folder / "0_Transformer" / "config.json"
    config.rename(tmp_path / "elsewhere.json")
    config.symlink_to(tmp_path / "elsewhere.json")
    assert str(config) in refusal(export(folder), tmp_path / "out")
