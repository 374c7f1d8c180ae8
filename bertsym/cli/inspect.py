"""``bertsym inspect``."""

from __future__ import annotations

import json

import click

from bertsym.cli.options import epoch_option, foreign_options, params_option, shape_option
from bertsym.terminal import escaped


@click.command("inspect")
@click.argument("model")
@params_option
@epoch_option
@click.option("--nodes", is_flag=True, help="List all nodes.")
@click.option("--arrays", is_flag=True, help="List all arrays of the parameter file.")
@click.option("--ops", is_flag=True, help="List the operators with their counts.")
@click.option("--path", nargs=2, metavar="A B", help="List the nodes through which data gets from node A to node B.")
@click.option("--shapes", is_flag=True, help="Let MXNet compute the shapes of all tensors.")
@shape_option
@foreign_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, as docs/inspect.schema.json describes it."
)
def command(
    model: str,
    params: str | None,
    epoch: int | None,
    nodes: bool,
    arrays: bool,
    ops: bool,
    path: tuple[str, str] | None,
    shapes: bool,
    shape: dict[str, tuple[int, ...]],
    as_json: bool,
) -> None:
    """Tell what the symbol MODEL is, and what reaches its classifier.

    PREFIX is that of a bundle or of any MXNet checkpoint (PREFIX-symbol.json, PREFIX-0000.params), or the path
    of a symbol file, with or without the one of its parameters. A symbol file is inspected without parameters, with
    a note, when the ones beside it can't be read. Nothing is run: mxnet is imported for --shapes and --shape only.

    MODEL may also be hf:DIR or hf:ORG/NAME, a Hugging Face model: family, trained head with its task and class names,
    tokenizer and lengths, and what export assumes or leaves out. Other options than --json have no effect then.

    Where several nodes have one name, NODE#2 is the second of them, here and in every command that takes a NODE.
    """
    if model.startswith("hf:"):
        _describe(model, as_json)
        return
    from bertsym.inspection.formatting import array_lines, node_lines, operator_lines, summary
    from bertsym.inspection.report import inspect

    facts = inspect(model, params, epoch=epoch, path=path or None, shapes=shape if shapes or shape else None)
    if as_json:
        click.echo(json.dumps(facts.to_json(nodes=nodes, params=arrays), indent=2, ensure_ascii=False))
        return
    for note in facts.notes:
        click.echo(escaped(f"note: {note}"), err=True)
    lists = []
    if nodes:
        lists.append(node_lines(facts.nodes))
    if arrays:
        lists.append(array_lines(facts))
    if ops:
        lists.append(operator_lines(facts))
    if facts.path is not None:
        lists.append(node_lines(facts.path) or [f"no way leads from {path[0]} to {path[1]}" if path else ""])
    for lines in lists:
        click.echo("\n".join(lines))
    if not lists:
        click.echo(summary(facts))


def _describe(source: str, as_json: bool) -> None:
    from bertsym.sources.description import describe_source

    found = describe_source(source)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    for note in found.notes:
        click.echo(escaped(f"note: {note}"), err=True)
    click.echo("\n".join(map(escaped, found.lines())))
