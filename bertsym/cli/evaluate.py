"""``bertsym evaluate``."""

from __future__ import annotations

import json

import click

from bertsym.cli.options import (
    device_option,
    inference_batch_size_option,
    row_bar,
    show_bad_rows,
    table_format,
    table_options,
    task_option,
    threads_option,
)


@click.command("evaluate")
@click.argument("prefix")
@click.argument("file")
@task_option()
@table_options
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="At a row that can't be read: stop, or leave it out of all counts, and say so.",
)
@inference_batch_size_option
@device_option
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    prefix: str,
    file: str,
    task: str | None,
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    on_error: str,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Print the metrics of the classifier at PREFIX on FILE, over all of its rows.

    Columns and task are those of the training unless others are given.
    """
    tables = table_format(kind, header, text_column, pair_column, label_column)

    from bertsym.inference.evaluate import evaluate
    from bertsym.inference.metrics import format_metrics

    with row_bar() as on_rows:
        result = evaluate(
            prefix,
            file,
            table_format=tables,
            task=task,
            device=device,
            batch_size=batch_size,
            on_bad_row=(lambda error: click.echo(f"{error}: left out", err=True)) if on_error == "skip" else None,
            on_rows=on_rows,
        )
    show_bad_rows(result.left_out, result.rows + result.left_out, "left out")
    if as_json:
        counts = {"rows": result.rows, "truncated": result.truncated, "left_out": result.left_out}
        click.echo(json.dumps({**result.metrics, **counts}))
    else:
        truncated = f", {result.truncated} truncated" if result.truncated else ""
        click.echo(f"{file}: {result.rows} rows{truncated}", err=True)
        click.echo(format_metrics(result.metrics))
