"""``bertsym draw``."""

from __future__ import annotations

import click

from bertsym.cli.options import epoch_option, foreign_options, params_option, shape_option
from bertsym.terminal import escaped


@click.command("draw")
@click.argument("model")
@click.argument("out", metavar="OUT.svg|png|html|netron")
@click.option(
    "--expand", multiple=True, metavar="LAYER", help="Open a layer: 3, 'layer 3' or all; in html from the start."
)
@params_option
@epoch_option
@shape_option
@foreign_options
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(
    model: str,
    out: str,
    expand: tuple[str, ...],
    params: str | None,
    epoch: int | None,
    shape: dict[str, tuple[int, ...]],
    force: bool,
) -> None:
    """Draw the symbol MODEL: what reaches its classifier, encoder layers folded, shapes on the edges.

    svg, png and html are laid out by Graphviz. The html is one file without references, in which layers fold open
    and a node shows its attributes. A .netron file is for Netron, which then shows the shape of every edge.

    When PREFIX is the path of a symbol file, it is drawn without parameters, with a note, where the ones beside it
    can't be read.
    """
    from bertsym.drawing.of_model import draw

    def report(note: str) -> None:
        click.echo(escaped(f"note: {note}"), err=True)

    path = draw(model, out, expand=expand, params=params, epoch=epoch, shapes=shape, force=force, on_note=report)
    click.echo(f"wrote {path}")
