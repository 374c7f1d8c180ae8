"""``bertsym extract``."""

from __future__ import annotations

import click

from bertsym.cli.options import command_line, show_written, surgery_options


@click.command("extract")
@click.argument("model")
@click.argument("out")
@click.option("--output", "outputs", multiple=True, required=True, metavar="NODE", help="A tensor that is an output.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NODE[:SHAPE]",
    help="A tensor that becomes an input; with a shape, as N,T,384, where it can't be inferred.",
)
@surgery_options
def command(
    model: str,
    out: str,
    outputs: tuple[str, ...],
    inputs: tuple[str, ...],
    params: str | None,
    epoch: int | None,
    shape: dict[str, tuple[int, ...]],
    force: bool,
) -> None:
    """Write the part of the symbol MODEL that computes the given nodes as a bundle at OUT.

    OUT-0000.params holds the parameters of this part only. The part is run beside the original on random
    inputs before it is written. `bertsym inspect PREFIX --nodes` lists the nodes; NODE#2 is the
    second node of a name that repeats.
    """
    from bertsym.surgery.extract import extract

    written = extract(
        model,
        out,
        outputs,
        inputs,
        params=params,
        epoch=epoch,
        shapes=shape,
        force=force,
        command=command_line(),
    )
    show_written(written)
