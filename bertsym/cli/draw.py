"""``bertsym draw``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, argument, option
from bertsym.cli.model_options import model_source, sandbox_options
from bertsym.cli.options import FILE, force_option
from bertsym.cli.output import note

if TYPE_CHECKING:
    from bertsym.model import ModelSource


@click.command("draw", cls=Command)
@model_source
@argument("out", "File to write, with the suffix .svg, .png, .html or .netron.", type=FILE)
@option(
    "--expand",
    multiple=True,
    metavar="LAYER",
    help="Draw the nodes of an encoder layer: 3, 'layer 3', or all. In an html page, every layer can be opened by a "
    "click. Repeatable.",
)
@sandbox_options
@force_option
def command(model: ModelSource, out: str, expand: tuple[str, ...], force: bool) -> None:
    """Draw the symbol of MODEL, with encoder layers folded into boxes and shapes on the edges.

    The suffix of OUT chooses the format: .svg and .png are pictures by Graphviz; .html is one self-contained page, in
    which layers unfold and a click on a node shows its attributes; .netron is a model file for Netron with the shape
    of every edge.

    If MODEL is the path of a symbol file whose parameters can't be read, it is drawn without them, with a note.
    """
    from bertsym.drawing.draw import draw

    click.echo(f"wrote {draw(model, out, expand=expand, force=force, on_note=note)}")
