"""``bertsym tokenize``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command
from bertsym.cli.model_options import model_argument
from bertsym.cli.output import print_truncated, row_bar, warn
from bertsym.cli.table_options import on_error_option, stride_option
from bertsym.cli.texts import Texts, text_options
from bertsym.errors import DataError

if TYPE_CHECKING:
    from bertsym.inference.bundle_tokenizer import BundleTokenizer
    from bertsym.tasks.task import Example
    from bertsym.text.table_format import TableFormat


@click.command("tokenize", cls=Command)
@model_argument
@text_options
@stride_option
@on_error_option("blank")
def command(model: str, texts: Texts, table_format: TableFormat, stride: int | None, on_error: str) -> None:
    """Print the model inputs of each text, as one JSON object per line, in the order of the texts.

    \b
    {"data0": [101, 2023, 102], "data1": [0, 0, 0], "data2": 3}

    The keys are the inputs in MODEL-signature.json: token ids, token types unless the model was exported without them,
    and valid_length, as `bertsym predict` feeds them before padding. With --on-error blank, an unreadable row is null.

    A text that predict reads in several windows has a line for each, with the number of the text as example, counted
    from 1. A truncated text has the key truncated. For question answering, offsets are start and end of each token of
    the context, in characters, and null for other tokens; for tagging, words has the index of the token of each word.

    MODEL is the bundle of an encoder, with or without a head. FILE is read as by `bertsym predict`. Pairs for an
    encoder come from a table with two text columns, or from --text-pair.
    """
    from bertsym.inference.bundle_tokenizer import BundleTokenizer
    from bertsym.text.bad_rows import BadRows

    tokenizer = BundleTokenizer.open(model)
    bad_rows = BadRows(on_error, warn, shown=None)
    rows = truncated = 0
    with row_bar(
        texts.text is None and not sys.stdout.isatty(), lambda: texts.count_rows(model, table_format)
    ) as on_rows:
        for rows, example in enumerate(_examples(tokenizer, texts, table_format, stride), 1):
            if isinstance(example, DataError):
                bad_rows(example)
            truncated += _print_example(tokenizer, example, rows, on_error == "blank")
            on_rows(1)
    print_truncated(truncated, rows, tokenizer.signature.max_length)
    bad_rows.finish(rows)


def _print_example(tokenizer: BundleTokenizer, example: Example | DataError, number: int, blank: bool) -> bool:
    """Print a line for each window, and null for an error if it is `blank`; returns whether the text is truncated."""
    if isinstance(example, DataError):
        if blank:
            click.echo("null")
        return False
    for record in tokenizer.records(example, number):
        click.echo(json.dumps(record))
    return example.truncated


def _examples(
    tokenizer: BundleTokenizer, texts: Texts, table_format: TableFormat, stride: int | None
) -> Iterator[Example | DataError]:
    """Each text tokenised; in the place of a row that can't be read, its error."""
    if texts.text is not None:
        found = tokenizer.text_examples([texts.text], texts.pairs, stride=stride)
    else:
        found = tokenizer.examples(texts.source(), table_format, warn, stride=stride)
    for chunk in found:
        yield from chunk
