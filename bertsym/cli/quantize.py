"""``bertsym quantize``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from bertsym.cli.options import (
    command_line,
    drop_label_option,
    force_option,
    on_error_option,
    table_format,
    table_options,
    threads_option,
    warn,
)
from bertsym.terminal import escaped

if TYPE_CHECKING:
    from bertsym.quantization.quantize import QuantizeResult


@click.command("quantize")
@click.argument("model")
@click.argument("out")
@click.option("--calibrate", required=True, metavar="FILE", help="Table of texts as those that will be classified.")
@click.option("--dev", metavar="FILE", help="Labelled table that decides.  [default: the one of --calibrate]")
@table_options
@drop_label_option
@on_error_option("At a row that can't be read or has an unknown label: stop, or report it and leave it out.")
@click.option(
    "--calibration",
    type=click.Choice(["naive", "entropy"]),
    default="naive",
    show_default=True,
    help="Ranges of activations: their extremes, or such that their distribution is kept best.",
)
@click.option(
    "--granularity",
    type=click.Choice(["channel-wise", "tensor-wise"]),
    default="channel-wise",
    show_default=True,
    help="A scale for each output of a layer, or one for all: less exact, and a smaller file.",
)
@click.option("--rows", type=int, default=256, show_default=True, help="Of the table, that ranges are found on.")
@click.option(
    "--max-drop", type=float, default=0.01, show_default=True, help="Largest loss of the task's first metric."
)
@threads_option
@force_option
def command(
    model: str,
    out: str,
    calibrate: str,
    dev: str | None,
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    drop_labels: tuple[str, ...],
    on_error: str,
    calibration: str,
    granularity: str,
    rows: int,
    max_drop: float,
    force: bool,
) -> None:
    """Write the classifier MODEL in int8, as a bundle at OUT, and measure both on the dev table.

    Layers stay in float32 where too much would be lost otherwise; where that doesn't help, nothing is written.
    It is for MXNet on CPUs, quick on those with AVX-512 VNNI.
    """
    tables = table_format(kind, header, text_column, pair_column, label_column, drop_labels)

    from bertsym.quantization.quantize import quantize
    from bertsym.text.bad_rows import BadRows
    from bertsym.training.progress import TextProgress

    result = quantize(
        model,
        out,
        calibrate,
        dev=dev,
        calibration=calibration,
        granularity=granularity,
        rows=rows,
        max_drop=max_drop,
        table_format=tables,
        on_bad_row=BadRows(on_error, warn),
        force=force,
        command=command_line(),
        progress=TextProgress().note,
    )
    _show(result)
    pair = ' --text-pair "..."' if result.bundle.signature.pair else ""
    click.echo(f'next: bertsym predict {shlex.quote(out)} --text "..."{pair}')


def _show(result: QuantizeResult) -> None:
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
    for name, why in result.kept.items():
        click.echo(escaped(f"  {name} stays float32, {why}"))
    click.echo(f"wrote {result.bundle.prefix}-*; it loads in MXNet {result.bundle.signature.minimum_mxnet} and newer")
