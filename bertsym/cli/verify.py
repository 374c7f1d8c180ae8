"""``bertsym verify``."""

from __future__ import annotations

import click


@click.command("verify")
@click.argument("model")
@click.option(
    "--rtol",
    type=click.FloatRange(0, min_open=True),
    default=1e-5,
    show_default=True,
    help="Largest difference, as a part of the output's scale.",
)
def command(model: str, rtol: float) -> None:
    """Check the digests of the bundle MODEL, load it, and compare it with GluonNLP's own BERTModel.

    Through Module and SymbolBlock, at two batch sizes and two lengths, with padded rows.
    """
    from bertsym.verifier import verify

    for check in verify(model, rtol=rtol):
        click.echo(f"  {check}")
    click.echo(f"{model}: digests and outputs are right")
