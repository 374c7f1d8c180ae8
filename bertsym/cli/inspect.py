"""``bertsym inspect``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, collected, option
from bertsym.cli.model_options import model_source, sandbox_options
from bertsym.cli.options import json_option
from bertsym.cli.output import note, print_lines

if TYPE_CHECKING:
    from bertsym.inspection.report import InspectResult
    from bertsym.model import ModelSource


@click.command("inspect", cls=Command)
@model_source
@collected(
    "lists",
    dict,
    option("--nodes", is_flag=True, help="List all nodes with their shapes."),
    option("--arrays", is_flag=True, help="List all arrays of the parameter file."),
    option("--ops", is_flag=True, help="List the operators and how often each occurs."),
)
@option("--path", nargs=2, metavar="A B", help="List the nodes on the paths from node A to node B.")
@option("--shapes", "infer_shapes", is_flag=True, help="Compute the shapes of all tensors with MXNet.")
@sandbox_options
@json_option
def command(
    model: ModelSource, lists: dict[str, bool], path: tuple[str, str] | None, infer_shapes: bool, as_json: bool
) -> None:
    """Describe the symbol of MODEL: what it is, and what its classifier reads.

    Any MXNet symbol is accepted. A symbol file whose parameters can't be read is described without them, with a note.
    The graph is not run; mxnet is needed only for --shapes and --shape.

    MODEL may also be hf:DIR or hf:ORG/NAME, a Hugging Face model, or tf:DIR, a TensorFlow checkpoint. inspect then
    prints its family, trained head with task and class names, tokenizer and lengths, and what export would assume or
    leave out; options other than --json have no effect.

    NODE#2 is the second node with a repeated name, here and in every command that takes a NODE.
    docs/inspect.schema.json describes the output of --json.
    """
    if str(model.path).startswith(("hf:", "tf:")):
        _describe_source(str(model.path), as_json)
        return
    from bertsym.inspection.report import inspect

    facts = inspect(model, path=path or None, infer_shapes=infer_shapes)
    if as_json:
        _print_json(facts.to_json(nodes=lists["nodes"], params=lists["arrays"]))
        return
    for text in facts.notes:
        note(text)
    click.echo("\n".join(_lines(facts, path, **lists)))


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _describe_source(source: str, as_json: bool) -> None:
    from bertsym.sources.description import describe_source

    found = describe_source(source)
    if as_json:
        _print_json(found.to_json())
        return
    for text in found.notes:
        note(text)
    print_lines(found.lines())


def _lines(facts: InspectResult, path: tuple[str, str] | None, nodes: bool, arrays: bool, ops: bool) -> list[str]:
    """The lists that were asked for, or the summary."""
    from bertsym.inspection.formatting import array_lines, node_lines, operator_lines, summary

    lines = [*(node_lines(facts.nodes) if nodes else ()), *(array_lines(facts) if arrays else ())]
    lines += operator_lines(facts) if ops else ()
    if facts.path is not None and path is not None:
        lines += node_lines(facts.path) or [f"no data flows from {path[0]} to {path[1]}"]
    return lines if nodes or arrays or ops or path else [summary(facts)]
