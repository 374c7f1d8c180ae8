"""``bertsym evaluate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command
from bertsym.cli.evaluation_options import evaluation_events, evaluation_options
from bertsym.cli.model_options import model_argument
from bertsym.cli.output import print_report
from bertsym.cli.table_options import MODEL_LABEL

if TYPE_CHECKING:
    from bertsym.inference.evaluate import EvaluateOptions
    from bertsym.reports.options import ReportOptions
    from bertsym.text.table_format import TableFormat


@click.command("evaluate", cls=Command)
@model_argument
@evaluation_options("MODEL", unknown_label=MODEL_LABEL)
def command(
    model: str,
    file: str | None,
    table_format: TableFormat,
    options: EvaluateOptions,
    report: ReportOptions | None,
    as_json: bool,
    log_json: str | None,
) -> None:
    """Print the metrics of the trained MODEL on the labelled FILE, computed over all rows.

    By default, task, header, columns and dropped labels are as in training. With --task or --data-dir, they and the
    metrics are those of the data set. bertsym tasks lists the known data sets.

    With --report, a page shows the metrics with their intervals, the errors with their texts, the data and the model.

    \b
    bertsym evaluate out/mnli --data-dir glue/MNLI
    bertsym evaluate out/mnli --data-dir glue/MNLI --task mnli-mm
    """
    from bertsym.inference.evaluate import evaluate
    from bertsym.metrics.classification import format_metrics

    with evaluation_events(file, options, [model], log_json, quiet=as_json) as events:
        result = evaluate(model, file, options, table_format=table_format, report=report, on_event=events)
    if as_json:
        names = ("rows", "truncated", "left_out", "dropped_labels")
        counts = {name: getattr(result, name) for name in names}
        click.echo(json.dumps({**result.metrics, **counts}))
    else:
        click.echo(format_metrics(result.metrics))
    print_report(report)
