"""``bertsym verify``."""

from __future__ import annotations

import click

from bertsym.cli.options import engine_option


@click.command("verify")
@click.argument("model")
@click.option(
    "--rtol",
    type=click.FloatRange(0, min_open=True),
    default=1e-5,
    show_default=True,
    help="Largest difference allowed, as a fraction of the output's scale.",
)
@engine_option
def command(model: str, rtol: float) -> None:
    """Check the digests of the bundle MODEL and compare its outputs with a reference encoder.

    The reference is a BERT in numpy, float64. The files run at two batch sizes and two lengths, with padded rows: by
    mxnet through Module and SymbolBlock, or converted to ONNX by onnxruntime. With mxnet and gluonnlp, GluonNLP's
    BERTModel is compared with the reference too.
    """
    from bertsym.verifier import describe_verification, verify

    checks = verify(model, rtol=rtol)
    for check in checks:
        click.echo(f"  {check}")
    click.echo(f"{model}: {describe_verification(checks)}")
    click.echo(f"{model}: digests and outputs are right")
