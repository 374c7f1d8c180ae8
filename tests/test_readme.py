"""README.md tells the truth: commands, options, files, and the lines that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from conftest import Result, Tables

from bertsym.bundle import FILE_NAMES
from bertsym.cli.group import COMMANDS
from bertsym.cli.group import cli as group
from bertsym.sources.registry import load_source

Cli = Callable[..., Result]

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def numbers_aside(text: str) -> str:
    return re.sub(r"\d+", "N", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_table(command: str) -> None:
    assert f"| `bertsym {command} " in README


def test_every_option_that_is_named_exists() -> None:
    context = click.Context(group)
    commands = [group.get_command(context, name) for name in COMMANDS]
    options = {
        option
        for command in commands
        if command
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", README)) - {"--help"}
    assert named <= options


@pytest.mark.parametrize("name", FILE_NAMES)
def test_every_file_of_the_bundle_is_in_the_table(name: str) -> None:
    assert f"`PREFIX-{name}`" in README


def test_every_kind_of_source_is_in_the_table() -> None:
    for kind in ("hf", "gluonnlp", "params", "random"):
        assert f"`{kind}:" in README
    with pytest.raises(Exception, match=r"one of gluonnlp:..., hf:..., params:..., random:..."):
        load_source("other")


def test_the_answer_to_the_question_is_what_the_commands_print(
    cli: Cli, tiny_hf: Path, tables: Tables, tmp_path: Path
) -> None:
    whole, base = tmp_path / "whole", tmp_path / "base"
    assert cli("export", f"hf:{tiny_hf}", whole, "--output", "sequence").code == 0
    assert cli("export", f"hf:{tiny_hf}", base).code == 0
    train = ["--train", tables.train, "--dev", tables.dev, "--epochs", 1, "--max-length", 24]
    printed = [
        cli("finetune", whole, *train, tmp_path / "a").err,
        cli("finetune", whole, *train, tmp_path / "a", "--whole-sequence").err,
        cli("finetune", base, *train, tmp_path / "b").err,
    ]
    said = numbers_aside("".join(printed).replace(str(tmp_path), "out"))
    shown = re.findall(r"^(?:Error|fc-finetune) .*$|^Error: .*$", README.partition("## Commands")[0], re.MULTILINE)
    assert len(shown) == 3
    for line in shown:
        assert numbers_aside(line) in said.splitlines()
