"""``bertsym quantize``."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, option
from bertsym.cli.model_options import model_argument, out_argument
from bertsym.cli.options import FILE, force_option, options_of
from bertsym.cli.output import print_lines, print_report
from bertsym.cli.report_options import replacing, report_options
from bertsym.cli.run_events import Logs, log_json_option, run_events
from bertsym.cli.running_options import threads_option
from bertsym.cli.table_options import MODEL_LABEL, labelled_table_options, on_error_option

if TYPE_CHECKING:
    from bertsym.quantization.quantize import QuantizeOptions, QuantizeResult
    from bertsym.reports.options import ReportOptions
    from bertsym.text.table_format import TableFormat


def _options(**values: Any) -> QuantizeOptions:
    from bertsym.quantization.quantize import QuantizeOptions

    return QuantizeOptions(**values)


@click.command("quantize", cls=Command)
@model_argument
@out_argument
@option(
    "--calibrate",
    group="Data",
    required=True,
    metavar="FILE",
    type=FILE,
    help="Table of texts for computing activation ranges, which should be like the texts to be classified. It needs "
    "labels only without --dev.",
)
@option(
    "--dev",
    group="Data",
    metavar="FILE",
    type=FILE,
    help="Labelled table on which MODEL and the int8 model are compared.  [default: the table of --calibrate]",
)
@labelled_table_options
@options_of(
    _options,
    on_error_option(unknown_label=MODEL_LABEL),
    option(
        "--calibration-method",
        "calibration",
        group="Quantization",
        type=click.Choice(["naive", "entropy"]),
        default="naive",
        show_default=True,
        help="How activation ranges are computed. naive: minimum and maximum; entropy: the thresholds with the least "
        "KL divergence between the distributions before and after quantization.",
    ),
    option(
        "--granularity",
        group="Quantization",
        type=click.Choice(["channel-wise", "tensor-wise"]),
        default="channel-wise",
        show_default=True,
        help="Scales of the weights. channel-wise: one per output of a layer; tensor-wise: one per weight array, which "
        "is less accurate, but the file has int8 weights and is smaller.",
    ),
    option(
        "--for",
        "processors",
        group="Quantization",
        type=click.Choice(["auto", "vnni", "avx2"]),
        default="avx2",
        show_default=True,
        help="Processors on which MXNet computes the int8 model. avx2: every one, with the same integers; vnni: only "
        "those with VNNI (AVX-512 VNNI, AVX-VNNI), with slightly more exact weights; auto: vnni if this processor has "
        "VNNI, avx2 if not.",
    ),
    option(
        "--rows",
        group="Quantization",
        type=int,
        default=256,
        show_default=True,
        help="Maximum number of rows of --calibrate from which ranges are computed: a random sample, which is the same "
        "in every run.",
    ),
    option(
        "--max-drop",
        group="Quantization",
        type=float,
        default=0.01,
        show_default=True,
        help="Largest allowed drop in accuracy on the --dev table, absolute, from 0 to 1: 0.01 allows a drop from 0.90 "
        "to 0.89.",
    ),
)
@threads_option
@report_options
@log_json_option("An existing file is an error, unless --force is given.")
@force_option
def command(
    model: str,
    out: str,
    calibrate: str,
    dev: str | None,
    table_format: TableFormat,
    options: QuantizeOptions,
    report: ReportOptions | None,
    log_json: str | None,
    force: bool,
) -> None:
    """Quantize MODEL to int8, and write it as a bundle at OUT.

    MODEL must be the float32 bundle of a trained model, from finetune or from export of a model with a head, for one of
    the tasks that `bertsym tasks` lists.

    The metrics and the speed of MODEL and of the int8 model are measured on --dev and printed. If the first metric of
    the task (classification: accuracy) drops by more than --max-drop, the layers that change the output most stay in
    float32, as few as possible. If it still drops too much, the command fails with exit code 1 and writes nothing.

    With --report, a page shows both models on --dev: metrics with paired intervals, rows with different answers, speed.

    MXNet 1.9 and onnxruntime run the int8 model on a CPU: `bertsym predict --engine auto` uses the faster one, and
    `bertsym onnx` writes an int8 ONNX file. It is faster than float32 on CPUs with AVX-512 VNNI; on other CPUs, compare
    the printed speeds. The engine mxnet refuses a model --for vnni on CPUs without VNNI, where its products would
    saturate.
    """
    from bertsym.quantization.quantize import quantize

    with run_events(Logs(log_json), files=[calibrate, dev], bundles=[model, out], force=force) as events:
        result = quantize(
            model,
            out,
            calibrate,
            dataclasses.replace(options, table_format=table_format),
            dev=dev,
            force=force,
            on_event=events,
            report=replacing(report, force),
        )
    _print(result)
    print_report(report)
    pair = ' --text-pair "..."' if result.bundle.signature.pair else ""
    click.echo(f'next: bertsym predict {shlex.quote(out)} --text "..."{pair}')


def _print(result: QuantizeResult) -> None:
    both = (result.float32, result.int8)
    rows = [
        *((name, *(f"{each.metrics[name]:.4f}" for each in both)) for name in result.float32.metrics),
        ("agreement with float32", *(f"{each.agreement:.4f}" for each in both)),
        ("ms per row", *(f"{1e3 / each.rows_per_second:.3f}" for each in both)),
        ("rows per second", *(f"{each.rows_per_second:.1f}" for each in both)),
        ("parameters, MB", *(f"{each.params_bytes / 1e6:.1f}" for each in both)),
    ]
    click.echo(f"{'':24}{'float32':>10}{'int8':>10}")
    for name, *values in rows:
        click.echo(f"{name:24}" + "".join(f"{value:>10}" for value in values))
    ratio = result.int8.rows_per_second / result.float32.rows_per_second
    total = len(result.layers) + len(result.kept)
    click.echo(f"{ratio:.2f}x of float32's speed; {len(result.layers)} of {total} FullyConnecteds are int8")
    print_lines((f"{name} stays float32, {why}" for name, why in result.kept.items()), "  ")
    click.echo(f"wrote {result.bundle.prefix}-*; loads in MXNet {result.bundle.signature.minimum_mxnet} and later")
