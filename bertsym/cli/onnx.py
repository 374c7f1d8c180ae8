"""``bertsym onnx``."""

from __future__ import annotations

import click

from bertsym.cli.options import (
    engine_option,
    epoch_option,
    foreign_options,
    no_verify_option,
    params_option,
    shape_option,
)
from bertsym.terminal import escaped


@click.command("onnx")
@click.argument("model")
@click.argument("out", metavar="OUT.onnx")
@params_option
@epoch_option
@shape_option
@foreign_options
@engine_option
@no_verify_option
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(
    model: str,
    out: str,
    params: str | None,
    epoch: int | None,
    shape: dict[str, tuple[int, ...]],
    force: bool,
) -> None:
    """Write the symbol MODEL and its parameters as an ONNX file, opset 13, for life without MXNet.

    Inputs and outputs keep MXNet's names. Token ids (data0), token types (data1) and valid_length (data2) are
    int64; any other input, and every output, is float32. Batch and length are free, unless the symbol is locked to
    one length; a shape given with --shape is fixed. The file's metadata holds labels, the tokenizer's settings and
    the vocabulary.

    The file is run by onnxruntime beside MXNet, or without mxnet beside the reference encoder (the bundle of a
    BERT only), on random inputs of two sizes with padding, before it appears.
    Needs onnx and onnxruntime: pip install "bertsym[onnx]".
    """
    from bertsym.onnx_export.exporter import export_onnx

    done = export_onnx(model, out, params=params, epoch=epoch, shapes=shape, force=force)
    for note in done.notes:
        click.echo(escaped(f"note: {note}"), err=True)
    for check in done.checks:
        click.echo(escaped(f"  {check}"))
    size = sum(path.stat().st_size for path in done.files)
    click.echo(f"wrote {out}, {size / 1e6:.1f} MB, {'verified in onnxruntime' if done.checks else 'not verified'}")
    for verb, tensors in (("reads", done.inputs), ("ends in", done.outputs)):
        shown = [f"{one.name} {one.dtype} ({', '.join(map(str, one.shape or '?'))})" for one in tensors]
        click.echo(escaped(f"  it {verb} {', '.join(shown)}"))
