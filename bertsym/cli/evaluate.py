"""``bertsym evaluate``."""

from __future__ import annotations

import json

import click

from bertsym.cli.options import (
    device_option,
    drop_label_option,
    engine_option,
    inference_batch_size_option,
    on_error_option,
    row_bar,
    table_format,
    table_options,
    task_option,
    threads_option,
    warn,
)


@click.command("evaluate")
@click.argument("model")
@click.argument("file")
@task_option()
@table_options
@drop_label_option
@on_error_option("At a row that can't be read or has an unknown label: stop, or report it and leave it out.")
@inference_batch_size_option
@device_option
@threads_option
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: str,
    file: str,
    task: str | None,
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    drop_labels: tuple[str, ...],
    on_error: str,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Print the metrics of the classifier MODEL on FILE, over all of its rows.

    Header, columns, dropped labels and task are those of the training unless others are given.
    """
    tables = table_format(kind, header, text_column, pair_column, label_column, drop_labels)

    from bertsym.inference.evaluate import evaluate
    from bertsym.inference.metrics import format_metrics
    from bertsym.text.bad_rows import BadRows

    bad_rows = BadRows(on_error, warn)
    with row_bar() as on_rows:
        result = evaluate(
            model,
            file,
            table_format=tables,
            task=task,
            device=device,
            batch_size=batch_size,
            on_bad_row=bad_rows,
            on_rows=on_rows,
            warn=warn,
        )
    bad_rows.finish(result.rows + result.left_out)
    if as_json:
        names = ("rows", "truncated", "left_out", "dropped_labels")
        counts = {name: getattr(result, name) for name in names}
        click.echo(json.dumps({**result.metrics, **counts}))
    else:
        truncated = f", {result.truncated} truncated" if result.truncated else ""
        dropped = [f", {count} dropped with the label {label!r}" for label, count in result.dropped_labels.items()]
        click.echo(f"{file}: {result.rows} rows{truncated}{''.join(dropped)}", err=True)
        click.echo(format_metrics(result.metrics))
