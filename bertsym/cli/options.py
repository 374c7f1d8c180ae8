"""Options that several commands share, and helpers for their arguments."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

force_option = click.option("--force", is_flag=True, help="Overwrite an existing bundle.")
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, gpu:0 or gpu:0,1.")


def table_options(function: Function) -> Function:
    """How a table is read: format, header, columns."""
    for option in reversed(
        (
            click.option(
                "--format",
                "kind",
                type=click.Choice(["tsv", "csv", "jsonl"]),
                help="Of the tables; by default from their names.",
            ),
            click.option("--no-header", is_flag=True, help="The tables have no header line; columns are numbers."),
            click.option("--text-column", metavar="COLUMN", help="Header name, or number from 1, of the text."),
            click.option("--pair-column", metavar="COLUMN", help="The same for the second text."),
            click.option("--label-column", metavar="COLUMN", help="The same for the label."),
        )
    ):
        function = option(function)
    return function


def table_format(
    kind: str | None,
    no_header: bool,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
) -> Any:
    """The TableFormat that `table_options` asked for."""
    from bertsym.text.tables import TableFormat
    from bertsym.text.tasks import Columns

    return TableFormat(kind, not no_header, Columns(text_column, pair_column, label_column))


def task_option(**settings: Any) -> Callable[[Function], Function]:
    """``--task``, one of the table of tasks."""
    from bertsym.text.tasks import TASKS

    described = "; ".join(f"{task.name}: {task.description}" for task in TASKS.values())
    return click.option("--task", type=click.Choice(list(TASKS)), help=f"{described}.", **settings)


def command_line(target: str) -> list[str]:
    """The command as typed, for a manifest, with PREFIX for the target: it doesn't change the content."""
    arguments: list[str] = click.get_current_context().obj
    return ["bertsym", *("PREFIX" if argument == target else argument for argument in arguments)]


@contextlib.contextmanager
def row_bar(shown: bool = True) -> Iterator[Callable[[int], object]]:
    """A count of rows and their speed on a terminal, nothing elsewhere; yields what moves it."""
    from tqdm import tqdm

    with tqdm(unit=" rows", leave=False, disable=not (shown and sys.stderr.isatty())) as bar:
        yield bar.update
