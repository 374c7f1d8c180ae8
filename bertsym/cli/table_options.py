"""Options about tables: their format and columns, handed over as one TableFormat, their task and their bad rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Decorator, collected, option
from bertsym.cli.options import TaskChoice

if TYPE_CHECKING:
    from bertsym.text.tables import TableFormat


def _table_format(
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    drop_labels: tuple[str, ...] = (),
) -> TableFormat:
    from bertsym.datasets.columns import Columns
    from bertsym.text.tables import TableFormat

    return TableFormat(kind, header, Columns(text_column, pair_column, label_column), drop_labels)


def _column_options(default: str, label_use: str = "") -> tuple[Decorator[Any], ...]:
    described = {
        "text": ("the text", ""),
        "pair": ("the second text of a pair", "; none if --text-column is given"),
        "label": ("the label", ""),
    }
    return tuple(
        option(
            f"--{part}-column",
            group="Data",
            metavar="COLUMN",
            help=f"Column of {text}: its name in the header, or its number, counted from 1."
            f"{label_use if part == 'label' else ''}  [default: {default}{exception}]",
        )
        for part, (text, exception) in described.items()
    )


def _header_option(default: str) -> Decorator[Any]:
    return option(
        "--header/--no-header",
        group="Data",
        default=None,
        help="Whether the first line of a TSV or CSV table is a header. Tables without one need column numbers.  "
        f"[default: {default}]",
    )


_TRAINED_HEADER = _header_option("as in the table that MODEL was trained on, otherwise --header")


def _format_option(*others: str) -> Decorator[Any]:
    described = " lines: one text per line; pairs: two texts per line, separated by a tab." if others else ""
    return option(
        "--format",
        "kind",
        group="Data",
        type=click.Choice(["tsv", "csv", "jsonl", *others]),
        help=f"Table format; TSV is read without quoting.{described}  [default: by the suffix of the file: .tsv or "
        ".txt; .csv; .jsonl, .ndjson or .json]",
    )


_FORMAT = _format_option()
_TRAINED_COLUMN = "as in the table that MODEL was trained on, otherwise a usual name, as listed by finetune --help"


def _drop_label_option(addition: str) -> Decorator[Any]:
    return option(
        "--drop-label",
        "drop_labels",
        group="Data",
        metavar="VALUE",
        multiple=True,
        help=f"Leave out rows with the label VALUE, such as - in SNLI. {addition} Repeatable.",
    )


table_options = collected(
    "table_format",
    _table_format,
    _format_option("lines", "pairs"),
    _TRAINED_HEADER,
    *_column_options(_TRAINED_COLUMN, " Used only to check whether the first line is a header."),
)
labelled_table_options = collected(
    "table_format",
    _table_format,
    _FORMAT,
    _TRAINED_HEADER,
    *_column_options(_TRAINED_COLUMN),
    _drop_label_option("Labels that were given to finetune --drop-label are left out too."),
)
training_table_options = collected(
    "table_format",
    _table_format,
    _FORMAT,
    _header_option("--header"),
    *_column_options("that of --task, otherwise a usual name"),
    _drop_label_option("OUT records VALUE, and evaluate and quantize leave out these rows too."),
)


def task_option(default: str | None = None) -> Decorator[Any]:
    """``--task``: a kind of task, or a known data set, which implies its kind."""
    from bertsym.datasets.registry import DATASETS

    known = "; ".join(f"{task.name}: {task.description}" for task in DATASETS.values())
    return option(
        "--task",
        group="Data",
        type=TaskChoice(list(DATASETS)),
        default=default,
        help="Kind of task, or a known data set, which presets the columns and the positive class of the F1 score. "
        f"{known}.  "
        f"[default: {default or 'the task that MODEL was trained on'}]",
    )


MODEL_LABEL = "whose label is not a class of MODEL"


def on_error_option(
    *choices: str,
    unknown_label: str | None = None,
    blank: str = "print empty cells, or null in JSON, in its place",
) -> Decorator[Any]:
    """``--on-error fail|skip``, and further choices.

    `unknown_label` describes a label that makes a row a bad one, `blank` what that choice does.
    """
    bad = f"can't be read, or {unknown_label}" if unknown_label else "can't be read"
    blank = f"; blank: report it and {blank}" if "blank" in choices else ""
    return option(
        "--on-error",
        group="Data",
        type=click.Choice(["fail", "skip", *choices]),
        default="fail",
        show_default=True,
        help=f"What to do with a row that {bad}. fail: stop; skip: report it and leave it out{blank}.",
    )
