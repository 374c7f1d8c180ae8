"""Conventions of the command line: arguments, names of options, kinds of task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Result
from refusals import refusal

from bertsym.cli.group import COMMANDS, cli
from bertsym.encoders.catalogue import FINISHED_HEADS
from bertsym.encoders.graph_heads import HEADS
from bertsym.text.tasks import TASK_KINDS, TASKS

Cli = Callable[..., Result]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


# Arguments and names of options

WRITES_MODEL = {"export", "extract", "graft", "edit", "lower", "draw", "onnx", "finetune", "quantize"}
WITHOUT_MODEL = {"demo", "doctor"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in WITHOUT_MODEL])
def test_the_first_argument_is_the_model_and_the_second_is_the_place_to_write(name: str) -> None:
    arguments = [parameter.name for parameter in command(name).params if isinstance(parameter, click.Argument)]
    assert arguments[0] == ("source" if name == "export" else "model")
    assert (arguments[1:2] == ["out"]) == (name in WRITES_MODEL)


def test_no_option_has_two_names() -> None:
    """The synonyms that other programs use are not options of any command."""
    options = {option for name in COMMANDS for parameter in command(name).params for option in parameter.opts}
    assert options & {"--out", "--init", "--atol", "--tolerance", "--random-seed", "--output-dir"} == set()
    assert {"--seed", "--rtol", "--params", "--force"} <= options


# Kinds of task


def test_every_table_of_tasks_uses_the_names_of_the_signature() -> None:
    assert {*FINISHED_HEADS, *HEADS, *(task.kind for task in TASKS.values())} <= {*TASK_KINDS}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("export", "--task", "tagging"), "export does not support 'tagging' yet; it supports classification, "),
        (("graft", "--head", "masked_lm"), "graft does not support 'masked_lm' yet; it supports classification, "),
        (
            ("finetune", "--train", "t", "--dev", "d", "--task", "qa"),
            "finetune does not support 'qa' yet; it supports classification, mrpc",
        ),
        (("finetune", "--train", "t", "--dev", "d", "--task", "glue"), "'glue' is not one of 'classification', 'mrpc'"),
    ],
)
def test_a_kind_of_task_without_support_is_refused_by_its_name(
    cli: Cli, tmp_path: Path, arguments: tuple[Any, ...], line: str
) -> None:
    out = tmp_path / "out"
    assert line in refusal(cli(arguments[0], "hf:x", out, *arguments[1:]), out, code=2)
