"""``bertsym verify``."""

from __future__ import annotations

import click

from bertsym.cli.command import Command
from bertsym.cli.model_options import model_argument
from bertsym.cli.output import print_lines
from bertsym.cli.running_options import REFERENCE_RTOL, engine_option, rtol_option


@click.command("verify", cls=Command)
@model_argument
@engine_option
@rtol_option(REFERENCE_RTOL)
def command(model: str, rtol: float) -> None:
    """Check the SHA-256 digests of the bundle MODEL, and compare its outputs with a reference encoder.

    The reference encoder is an independent implementation in numpy, float64. The bundle is run at two batch sizes and
    two lengths, with padded rows: by mxnet through Module and SymbolBlock, or by onnxruntime after conversion to ONNX.
    If gluonnlp is installed too, its BERTModel is also compared with the reference encoder.
    """
    from bertsym.verifier import describe_verification, verify

    checks = verify(model, rtol=rtol)
    print_lines(checks, "  ")
    click.echo(f"{model}: {describe_verification(checks)}")
    click.echo(f"{model}: digests and outputs are correct")
