"""``bertsym verify``."""

from __future__ import annotations

import click


@click.command("verify")
@click.argument("prefix")
@click.option(
    "--atol",
    type=click.FloatRange(0, min_open=True),
    default=1e-5,
    show_default=True,
    help="Largest difference, as a part of the output's scale.",
)
def command(prefix: str, atol: float) -> None:
    """Check the digests of the bundle at PREFIX, load it, and compare it with GluonNLP's own BERTModel.

    Through Module and SymbolBlock, at two batch sizes and two lengths, with padded rows.
    """
    from bertsym.verifier import verify

    for check in verify(prefix, atol=atol):
        click.echo(f"  {check}")
    click.echo(f"{prefix}: digests and outputs are right")
