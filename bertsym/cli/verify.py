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
    help="Largest difference allowed, as a fraction of the output's scale.",
)
def command(model: str, rtol: float) -> None:
    """Check the digests of the bundle MODEL and compare its outputs with a reference encoder.

    The reference is a BERT in numpy, float64. The files are loaded through Module and SymbolBlock and run at two batch
    sizes and two lengths, with padded rows. Where gluonnlp is installed, its BERTModel is compared with the reference
    too.
    """
    from bertsym.verifier import describe_verification, verify

    checks = verify(model, rtol=rtol)
    for check in checks:
        click.echo(f"  {check}")
    click.echo(f"{model}: {describe_verification(checks)}")
    click.echo(f"{model}: digests and outputs are right")
