"""Conventions of the command line: arguments, names of options, kinds of task."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Result
from refusals import refusal

from bertsym.cli.group import COMMANDS, cli
from bertsym.datasets.dataset import TASK_KINDS
from bertsym.datasets.registry import known_datasets
from bertsym.encoders.catalogue import FINISHED_HEADS
from bertsym.encoders.graph_heads import HEADS

Cli = Callable[..., Result]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


# Arguments and names of options

WRITES_MODEL = {"export", "extract", "graft", "edit", "lower", "draw", "onnx", "finetune", "quantize"}
WITHOUT_MODEL = {"demo", "doctor", "tasks"}
FIRST_ARGUMENT = {"export": "source", "compare": "first"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in WITHOUT_MODEL])
def test_the_first_argument_is_the_model_and_the_second_is_the_place_to_write(name: str) -> None:
    arguments = [parameter.name for parameter in command(name).params if isinstance(parameter, click.Argument)]
    assert arguments[0] == FIRST_ARGUMENT.get(name, "model")
    assert (arguments[1:2] == ["out"]) == (name in WRITES_MODEL)


def test_no_option_has_two_names() -> None:
    """The synonyms that other programs use are not options of any command."""
    options = {option for name in COMMANDS for parameter in command(name).params for option in parameter.opts}
    assert options & {"--init", "--atol", "--tolerance", "--random-seed", "--output-dir"} == set()
    assert {"--seed", "--rtol", "--params", "--force"} <= options


# Kinds of task


def test_every_table_of_tasks_uses_the_names_of_the_signature() -> None:
    assert {*FINISHED_HEADS, *HEADS, *(dataset.kind for dataset in known_datasets())} <= {*TASK_KINDS}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("export", "--task", "tagging"), "export does not support 'tagging' yet; it supports classification, "),
        (("graft", "--head", "masked_lm"), "graft does not support 'masked_lm' yet; it supports classification, "),
        (
            ("finetune", "--train", "t", "--dev", "d", "--task", "masked_lm"),
            "task masked_lm: masked_lm is not supported; the supported kinds are classification",
        ),
        (("finetune", "--train", "t", "--dev", "d", "--task", "glue"), "task 'glue' is not one of classification, "),
    ],
)
def test_a_kind_of_task_without_support_is_refused_by_its_name(
    cli: Cli, tmp_path: Path, arguments: tuple[Any, ...], line: str
) -> None:
    out = tmp_path / "out"
    assert line in refusal(cli(arguments[0], "hf:x", out, *arguments[1:]), out, code=2)


# Shell completion, by the protocol of click's scripts


def asked(shell: str, **variables: str) -> str:
    environment = {**os.environ, "_BERTSYM_COMPLETE": shell, **variables}
    command = [sys.executable, "-m", "bertsym"]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def completed(shell: str, *words: str) -> list[str]:
    """What a shell gets for a line whose last word is being typed."""
    word = words[-1] if shell == "fish" else str(len(words))
    lines = asked(f"{shell}_complete", COMP_WORDS=" ".join(["bertsym", *words]), COMP_CWORD=word).splitlines()
    # zsh: type, value and help on three lines; others: type,value and perhaps help
    return lines[1::3] if shell == "zsh" else [line.partition(",")[2].partition("\t")[0] for line in lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_models_are_completed(tmp_path: Path, shell: str) -> None:
    (tmp_path / "base-symbol.json").touch()
    (tmp_path / "base-train-symbol.json").touch()
    assert completed(shell, "fine") == ["finetune"]
    assert completed(shell, "finetune", "--freeze-e") == ["--freeze-encoder"]
    assert completed(shell, "predict", f"{tmp_path}/b") == [f"{tmp_path}/base"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_bertsym_for_completions(shell: str) -> None:
    assert f"_BERTSYM_COMPLETE={shell}_complete" in asked(f"{shell}_source")


def test_the_script_of_fish_keeps_commas_in_descriptions() -> None:
    assert 'string split --max 1 ","' in asked("fish_source")


def test_a_misspelt_command_is_answered_with_close_names(cli: Cli) -> None:
    assert "No such command 'finetun'. Did you mean finetune?" in cli("finetun").error_line
