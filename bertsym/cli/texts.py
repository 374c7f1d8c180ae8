"""The texts of ``predict`` and ``tokenize``: one by an option, a table, or standard input."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from bertsym.cli.command import argument, collected, option
from bertsym.cli.options import FILE
from bertsym.cli.table_options import table_options

if TYPE_CHECKING:
    from bertsym.text.table_format import TableFormat


@dataclass(frozen=True)
class Texts:
    """Where texts come from. Raises UsageError for options that exclude each other."""

    file: str | None
    text: str | None
    text_pair: str | None

    def __post_init__(self) -> None:
        if self.text is not None and self.file not in (None, "-"):
            raise click.UsageError("Give either FILE or --text.")
        if self.text_pair is not None and self.text is None:
            raise click.UsageError("--text-pair needs --text.")

    @property
    def pairs(self) -> list[str] | None:
        """The second text, as a list."""
        return None if self.text_pair is None else [self.text_pair]

    def source(self) -> str | BinaryIO:
        """FILE, or standard input for none and for ``-``."""
        if self.file is not None and self.file != "-":
            return self.file
        if sys.stdin is None:
            raise click.UsageError("Give FILE or --text: standard input is closed.")
        if sys.stdin.isatty():
            click.echo("reading standard input, one text per line; end it with Ctrl-D", err=True)
        # A file object of its own: a thread may still read when the process ends, and Python aborts if it is sys.stdin.
        return open(sys.stdin.fileno(), "rb", closefd=False)

    def count_rows(self, model: str, table_format: TableFormat) -> int | None:
        """Count the texts of FILE for the bundle `model`; None where only reading FILE shows their number."""
        from bertsym.bundle import Bundle, open_any
        from bertsym.encoders.graph_heads import HEADS
        from bertsym.inference.task_bundle import complete_table_format
        from bertsym.text.tables import count_rows

        if self.file is None or self.file == "-":
            return None
        bundle = open_any(model, digests=False)
        if isinstance(bundle, Bundle):
            signature = bundle.signature
            if signature.task in HEADS and HEADS[signature.task].reads_tokens and signature.trained:
                return None  # an example may have several lines
            table_format = complete_table_format(signature, table_format)
        return count_rows(self.file, table_format)


def text_options(function: Any) -> Any:
    """Add FILE, ``--text``, ``--text-pair`` as `texts`, and the table options as `table_format`."""
    texts = collected(
        "texts",
        Texts,
        argument("file", "Table of texts; standard input if it is - or missing.", required=False, type=FILE),
        option("--text", group="Data", help="Text to process instead of FILE."),
        option("--text-pair", group="Data", help="Second text, which makes a pair with --text."),
    )
    return texts(table_options(function))
