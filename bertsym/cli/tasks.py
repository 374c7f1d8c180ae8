"""``bertsym tasks``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import click

from bertsym.cli.command import Command, option
from bertsym.cli.options import json_option
from bertsym.terminal import escaped


@click.command("tasks", cls=Command)
@option(
    "--show",
    metavar="NAME",
    help="Print the description of the data set NAME, or of a file NAME.toml, as TOML: a template for your own file.",
)
@json_option
def command(show: str | None, as_json: bool) -> None:
    """List the kinds of task and the known data sets, which --task accepts.

    A data set defines a kind of task, the names and columns of its published files, the order of its labels, and its
    metrics; the first metric decides which parameters finetune keeps. --task also accepts a file NAME.toml in the
    format that --show prints. docs/how-to/data-sets.md describes its keys.
    """
    from bertsym.datasets.registry import dataset_text, find_dataset, known_datasets
    from bertsym.tasks import TASKS

    if show is not None:
        click.echo(json.dumps(asdict(find_dataset(show)), indent=2) if as_json else dataset_text(show), nl=as_json)
        return
    kinds = [replace(find_dataset(name), metrics=kind.default_metrics) for name, kind in TASKS.items()]
    datasets = [*kinds, *known_datasets()]
    if as_json:
        click.echo(json.dumps([asdict(dataset) for dataset in datasets], indent=2))
        return
    rows = [("task", "kind", "metrics", "description")]
    rows += [(row.name, row.kind, ", ".join(row.metrics), row.description) for row in datasets]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo(escaped("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]])))
