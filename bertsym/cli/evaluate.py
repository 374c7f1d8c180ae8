"""``bertsym evaluate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, argument
from bertsym.cli.options import (
    FILE,
    device_option,
    engine_option,
    inference_batch_size_option,
    json_option,
    model_argument,
    only_report_options,
    options_of,
    threads_option,
)
from bertsym.cli.output import print_report
from bertsym.cli.run_events import Logs, log_json_option, run_events
from bertsym.cli.table_options import (
    MODEL_LABEL,
    build_task_options,
    data_dir_option,
    labelled_table_options,
    on_error_option,
    scheme_option,
    split_option,
    stride_option,
    task_option,
)

if TYPE_CHECKING:
    from bertsym.inference.evaluate import EvaluateOptions
    from bertsym.reports.options import ReportOptions
    from bertsym.text.tables import TableFormat


def _options(scheme: str | None, stride: int | None, **values: Any) -> EvaluateOptions:
    from bertsym.inference.evaluate import EvaluateOptions

    return EvaluateOptions(task_options=build_task_options(scheme=scheme, stride=stride), **values)


@click.command("evaluate", cls=Command)
@model_argument
@argument("file", "Labelled table, unless --data-dir is given.", required=False, type=FILE)
@labelled_table_options
@options_of(
    _options,
    task_option(),
    data_dir_option("that --task names, or that MODEL was trained on, instead of FILE"),
    split_option("dev"),
    scheme_option,
    stride_option,
    on_error_option(unknown_label=MODEL_LABEL),
    inference_batch_size_option,
    device_option,
)
@threads_option
@engine_option
@only_report_options
@json_option
@log_json_option("An existing file is an error, unless --force is given.")
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

    By default, task, header, columns and dropped labels are those that MODEL was trained with. With --task or
    --data-dir they are those of the data set, and so are the metrics. bertsym tasks lists the known data sets.

    With --report, a page shows the metrics with their intervals, the errors with their texts, the data and the model.

    \b
    bertsym evaluate out/mnli --data-dir glue/MNLI
    bertsym evaluate out/mnli --data-dir glue/MNLI --task mnli-mm
    """
    from bertsym.inference.evaluate import evaluate
    from bertsym.metrics.classification import format_metrics

    if file is None and options.data_dir is None:
        raise click.UsageError("Missing argument 'FILE', or the folder of a data set as '--data-dir'.")
    force = bool(click.get_current_context().params["replace"])
    with run_events(Logs(log_json), files=[file], bundles=[model], force=force, quiet=as_json) as events:
        result = evaluate(model, file, options, table_format=table_format, report=report, on_event=events)
    if as_json:
        names = ("rows", "truncated", "left_out", "dropped_labels")
        counts = {name: getattr(result, name) for name in names}
        click.echo(json.dumps({**result.metrics, **counts}))
    else:
        click.echo(format_metrics(result.metrics))
    print_report(report)
