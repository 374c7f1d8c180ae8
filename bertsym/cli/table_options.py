"""Options about tables: their format and columns, handed over as one TableFormat, their task and their bad rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bertsym.cli.command import Decorator, collected, option
from bertsym.cli.options import FILE, OptionType

if TYPE_CHECKING:
    from bertsym.tasks.options import TaskOptions
    from bertsym.text.table_format import TableFormat


def _table_format(
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    drop_labels: tuple[str, ...] = (),
) -> TableFormat:
    from bertsym.datasets.columns import Columns
    from bertsym.text.table_format import TableFormat

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
    described += " conll, for tagging: one word per line, its tag in the last of 2 or 4 columns."
    return option(
        "--format",
        "kind",
        group="Data",
        type=click.Choice(["tsv", "csv", "jsonl", *others, "conll"]),
        help=f"Format of the file; TSV is read without quoting.{described}  [default: by the suffix of the file: .tsv "
        "or .txt; .csv; .jsonl, .ndjson or .json; for tagging, conll unless it is one of the last three]",
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


class _DataSetType(OptionType):
    """A kind of task, a known data set, or a file ``NAME.toml``, as the word that was given."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless the name is known, or the file is a valid description."""
        from bertsym.datasets.registry import find_dataset

        find_dataset(value)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the known names, and let the shell complete files where there are none."""
        from bertsym.datasets.dataset import TASK_KINDS
        from bertsym.datasets.registry import KNOWN

        names = [name for name in (*TASK_KINDS, *KNOWN) if name.startswith(incomplete)]
        return [CompletionItem(name) for name in names] or [CompletionItem(incomplete, type="file")]


def task_option(default: str | None = None) -> Decorator[Any]:
    """``--task``: a kind of task, or a data set, which implies its kind."""
    return option(
        "--task",
        group="Data",
        type=_DataSetType(),
        default=default,
        help="Kind of task, known data set, or file NAME.toml that describes a data set: its files, columns, labels "
        f"and metrics. `bertsym tasks` lists them.  [default: {default or 'the task that MODEL was trained on'}]",
    )


def data_dir_option(instead: str) -> Decorator[Any]:
    """``--data-dir``: the folder of a data set, `instead` of files."""
    return option(
        "--data-dir",
        group="Data",
        metavar="DIR",
        type=FILE,
        help=f"Folder with the files of the data set {instead}.",
    )


def split_option(default: str) -> Decorator[Any]:
    """``--split``: the file of the data set, or which of its files the given file is."""
    return option(
        "--split",
        group="Data",
        type=click.Choice(["train", "dev", "test"]),
        default=default,
        show_default=True,
        help="File to read from --data-dir. With --task, FILE is read as this file of the data set.",
    )


def build_task_options(**values: Any) -> TaskOptions:
    """Build TaskOptions from the values of options of kinds of task."""
    from bertsym.tasks.options import TaskOptions

    return TaskOptions(**values)


scheme_option = option(
    "--scheme",
    group="Data",
    type=click.Choice(["IOB1", "IOB2", "IOBES"]),
    help="Tagging scheme, for tagging only. Tags that are invalid in the scheme are an error, and only entities that "
    "are valid in it count, as in seqeval's strict mode.  [default: entities as conlleval and seqeval find them]",
)
stride_option = option(
    "--stride",
    group="Data",
    type=click.IntRange(0),
    help="Number of tokens by which windows overlap: a text beyond the maximum length, in a pair the second text, is "
    "read in several windows. classification, multilabel, regression: the outputs of the windows are averaged; "
    "tagging: each word has the tag of the window in which it has the most context; qa: the best answer of all "
    "windows counts.  [default: as in training; for finetune, texts are truncated, except for qa: a third of the "
    "maximum length, at most 128]",
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
