"""``bertsym compare``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, argument
from bertsym.cli.evaluation_options import evaluation_events, evaluation_options
from bertsym.cli.model_options import MODEL
from bertsym.cli.output import print_report, warn

if TYPE_CHECKING:
    from bertsym.inference.evaluate import EvaluateOptions
    from bertsym.reports.options import ReportOptions
    from bertsym.text.table_format import TableFormat


@click.command("compare", cls=Command)
@argument("first", "Prefix of the bundle to compare with, such as the model in use.", type=MODEL)
@argument("second", "Prefix of the other bundle, such as the new model.", type=MODEL)
@evaluation_options("FIRST", unknown_label="whose label is not a class of both models")
def command(
    first: str,
    second: str,
    file: str | None,
    table_format: TableFormat,
    options: EvaluateOptions,
    report: ReportOptions | None,
    as_json: bool,
    log_json: str | None,
) -> None:
    """Compare two trained models on the labelled FILE, and print whether their difference could be due to chance.

    Each metric is printed for FIRST and for SECOND, with the 95 % interval of the difference, by a bootstrap that draws
    the same rows for both models. If the interval contains 0, or FILE has fewer than 30 rows, the difference could be
    due to chance. A warning is printed if FILE was used in the training of a model.

    Both models must be for the same task, with the same class names. Each reads FILE with its own tokenizer, maximum
    length and columns.

    \b
    bertsym compare out/mrpc out/mrpc-large dev.tsv
    bertsym compare out/mrpc out/mrpc-int8 dev.tsv --report out/report
    """
    from bertsym.inference.compare import compare

    with evaluation_events(file, options, [first, second], log_json, quiet=True) as events:
        result = compare(first, second, file, options, table_format=table_format, report=report, on_event=events)
    if as_json:
        click.echo(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        click.echo(f"{'':14}{'FIRST':>10}{'SECOND':>10}{'difference':>12}  95 % interval")
        for each in result.differences:
            numbers = f"{each.first:>10.4f}{each.second:>10.4f}{each.interval.value:>+12.4f}"
            click.echo(f"{each.metric:14}{numbers}  {each.interval.low:+.4f} to {each.interval.high:+.4f}")
        counts = ", ".join(f"{name} {count}" for name, count in result.counts.items())
        click.echo(f"{result.rows} rows, same answer to {100 * result.agreement:.1f} %: {counts}")
        click.echo(result.verdict)
        for text in result.warnings:
            warn(f"warning: {text}")
    print_report(report)
