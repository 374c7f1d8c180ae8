"""``bertsym tokenize``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command
from bertsym.cli.options import model_argument
from bertsym.cli.output import print_truncated, row_bar, warn
from bertsym.cli.table_options import on_error_option
from bertsym.cli.texts import Texts, text_options
from bertsym.errors import DataError

if TYPE_CHECKING:
    from bertsym.inference.bundle_tokenizer import BundleTokenizer
    from bertsym.text.tables import TableFormat
    from bertsym.text.tokenizer import Encoded


@click.command("tokenize", cls=Command)
@model_argument
@text_options
@on_error_option("blank")
def command(model: str, texts: Texts, table_format: TableFormat, on_error: str) -> None:
    """Print the model inputs of each text, as one JSON object per line, in the order of the texts.

    \b
    {"data0": [101, 2023, 102], "data1": [0, 0, 0], "data2": 3}

    The inputs are those of `bertsym predict` before padding, by the names in MODEL-signature.json: token ids, token
    types unless the model was exported without them, and valid_length. A blank line of --on-error is null.

    MODEL is a classifier, an encoder, or a BERT with another head. FILE is read as by `bertsym predict`. Pairs for an
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
        for example in _encoded(tokenizer, texts, table_format):
            rows += 1
            if isinstance(example, DataError):
                bad_rows(example)
            else:
                truncated += example.truncated
            if on_error == "blank" or not isinstance(example, DataError):
                click.echo(_line(example, tokenizer.signature.input_names))
            on_rows(1)
    print_truncated(truncated, rows, tokenizer.signature.max_length)
    bad_rows.finish(rows)


def _line(example: Encoded | DataError, names: Sequence[str]) -> str:
    """One line of output, null for an error."""
    from bertsym.text.features import Features

    return json.dumps(None if isinstance(example, DataError) else next(Features([example]).inputs(names)))


def _encoded(tokenizer: BundleTokenizer, texts: Texts, table_format: TableFormat) -> Iterator[Encoded | DataError]:
    """Each text encoded; in the place of a row that can't be read, its error."""
    if texts.text is not None:
        for features in tokenizer.encode([texts.text], texts.pairs):
            yield from features.examples
        return
    for rows in tokenizer.encode_each(texts.source(), table_format, warn):
        yield from rows
