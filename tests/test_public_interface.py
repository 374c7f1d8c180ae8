"""What is public is documented, every command has a function of the library, and both stay small."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import click
import pytest
from tools import run_python

import bertsym
from bertsym.cli.group import COMMANDS, cli

PACKAGE = Path(bertsym.__file__).parent


# What is public


@pytest.mark.parametrize("name", bertsym.__all__)
def test_a_public_name_is_a_documented_function_or_class(name: str) -> None:
    value = getattr(bertsym, name)
    assert inspect.isfunction(value) or inspect.isclass(value)
    assert value.__name__ == name
    assert value.__module__.startswith("bertsym.")
    # A dataclass without a docstring gets its signature for one.
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")


def test_public_names_stay_what_they_are_when_all_modules_are_imported() -> None:
    """``from bertsym.training import finetune`` must not turn ``bertsym.finetune`` into a module."""
    modules = [module.name for module in pkgutil.walk_packages(bertsym.__path__, "bertsym.")]
    modules.remove("bertsym.__main__")
    assert len(modules) > 40
    code = [
        "import json, types, importlib, bertsym",
        f"for name in {modules}:",
        "    importlib.import_module(name)",
        "print(json.dumps([n for n in bertsym.__all__ if isinstance(getattr(bertsym, n), types.ModuleType)]))",
    ]
    assert run_python("\n".join(code)) == []


def test_public_names_are_sorted_and_each_has_a_module() -> None:
    namespace: dict[str, object] = {}
    exec("from bertsym import *", namespace)
    assert set(bertsym.__all__) <= set(namespace)
    assert len(set(bertsym.__all__)) == len(bertsym.__all__)
    homes = {name: importlib.import_module(f"bertsym.{home}") for name, home in bertsym._HOME.items()}
    assert set(homes) == set(bertsym.__all__)
    assert [name for name, module in homes.items() if getattr(module, name) is not getattr(bertsym, name)] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "nothing"
    with pytest.raises(AttributeError, match="module 'bertsym' has no attribute 'nothing'"):
        getattr(bertsym, name)


def test_errors_are_of_one_family_and_usage_errors_exit_with_2() -> None:
    errors = {name: getattr(bertsym, name) for name in bertsym.__all__ if name.endswith("Error")}
    assert all(issubclass(error, bertsym.BertsymError) for error in errors.values())
    assert {name: error.exit_code for name, error in errors.items()} == {
        "BertsymError": 1,
        "DataError": 1,
        "InstallationError": 1,
        "ModelError": 1,
        "UsageError": 2,
        "VerificationError": 1,
    }


# Commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_is_listed_in_the_group(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert command.help
    first = command.help.split("\n\n")[0].split()
    assert len(first) > 5
    assert " ".join(first) in " ".join(command.get_help(click.Context(command)).split())
    assert COMMANDS[name] in cli.get_help(context)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_a_command_has_a_library_twin(name: str) -> None:
    """A function of its name; some are methods of a class, graft and onnx have other names, demo only runs commands."""
    others = {
        "predict": bertsym.Classifier.predict,
        "tokenize": bertsym.BundleTokenizer.encode,
        "graft": bertsym.graft_head,
        "onnx": bertsym.export_onnx,
        "hf": bertsym.export_hugging_face,
        "tasks": bertsym.find_dataset,
    }
    twin = others.get(name) or getattr(bertsym, name)
    assert inspect.isfunction(twin)


def test_every_option_of_finetune_is_a_field_of_its_options() -> None:
    command = cli.get_command(click.Context(cli), "finetune")
    assert command is not None
    parameters = {parameter.name for parameter in command.params}
    classes = (bertsym.FinetuneOptions, bertsym.CheckpointOptions)
    fields = {field.name for options in classes for field in dataclasses.fields(options)}
    assert fields - parameters == {"table_format", "task_options"}  # made from several options


# Sizes


def test_no_public_function_has_more_than_8_parameters() -> None:
    functions = {name: value for name in bertsym.__all__ if inspect.isfunction(value := getattr(bertsym, name))}
    counts = {name: len(inspect.signature(function).parameters) for name, function in functions.items()}
    assert "finetune" in counts
    assert {name: count for name, count in counts.items() if count > 8} == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_body_of_a_command_has_at_most_20_lines(name: str) -> None:
    tree = ast.parse((PACKAGE / "cli" / f"{name}.py").read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "command")
    body = function.body[1:]
    assert ast.get_docstring(function)
    end = body[-1].end_lineno
    assert end is not None
    assert end - body[0].lineno + 1 <= 20
