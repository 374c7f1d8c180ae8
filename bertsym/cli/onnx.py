"""``bertsym onnx``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, argument, option
from bertsym.cli.model_options import model_source, sandbox_options
from bertsym.cli.options import FILE, force_option, options_of
from bertsym.cli.output import note, print_lines, print_tensors
from bertsym.cli.running_options import no_verify_option, verification_engine_option

if TYPE_CHECKING:
    from bertsym.model import ModelSource
    from bertsym.onnx_export.onnx_exporter import OnnxOptions


def _options(**values: Any) -> OnnxOptions:
    from bertsym.onnx_export.onnx_exporter import OnnxOptions

    return OnnxOptions(**values)


@click.command("onnx", cls=Command)
@model_source
@argument("out", "File to write, such as out/model.onnx.", type=FILE)
@options_of(
    _options,
    option(
        "--signature",
        group="Output",
        type=click.Choice(["mxnet", "hf"]),
        default="mxnet",
        show_default=True,
        help="Names of inputs and outputs. mxnet: those of the symbol; hf, for a BERT's bundle: those of transformers, "
        "input_ids, attention_mask and token_type_ids, and logits, start_logits and end_logits, last_hidden_state, "
        "pooler_output and sentence_embedding. A head then ends in its logits, without softmax or sigmoid, and an "
        "encoder that ends in one vector for a text gives the encodings of all tokens before it.",
    ),
    option(
        "--dtype",
        group="Output",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        show_default=True,
        help="Type of the stored weights. float16 halves the file; computations stay in float32, and the outputs may "
        "differ by 1e-2 of their scale.",
    ),
)
@sandbox_options
@force_option
@verification_engine_option
@no_verify_option
def command(model: ModelSource, out: str, options: OnnxOptions, force: bool) -> None:
    """Convert MODEL to an ONNX file at OUT (opset 13), verified in onnxruntime.

    Inputs and outputs keep their MXNet names. With --signature hf they have the names of transformers, so that its
    pipelines and other tools load the file; in the attention mask, ones must come before zeros. Token ids (data0),
    token types (data1) and valid_length (data2) are int64; every other input, and every output, is float32. Batch size
    and length are free, unless MODEL is locked to one length or --shape gives a shape. The metadata of the file has
    class names, the tokenizer and the vocabulary.

    An int8 bundle becomes a file in QDQ format: QuantizeLinear and DequantizeLinear around each MatMul, weights in
    int8.

    Before the file is written, onnxruntime runs it on random inputs of two sizes, with padding, and the outputs are
    compared with MXNet's, or without mxnet with those of the reference encoder (float32 bundles of BERTs only). Each
    layer of an int8 file is also compared separately. Needs onnx and onnxruntime: pip install "bertsym[onnx]".
    """
    from bertsym.onnx_export.onnx_exporter import export_onnx

    done = export_onnx(model, out, options, force=force)
    for text in done.notes:
        note(text)
    print_lines(done.checks, "  ")
    size = sum(path.stat().st_size for path in done.files)
    click.echo(f"wrote {out}, {size / 1e6:.1f} MB, {'verified in onnxruntime' if done.checks else 'not verified'}")
    for what, tensors in (("inputs", done.inputs), ("outputs", done.outputs)):
        print_tensors(what, [(f"{tensor.name} {tensor.dtype}", tensor.shape) for tensor in tensors])
