"""``bertsym tokenize``."""

from __future__ import annotations

import json
import sys

import click

from bertsym.cli.options import check_texts, row_bar, show_truncated, table_format, table_source, text_options, warn


@click.command("tokenize")
@click.argument("model")
@text_options
def command(
    model: str,
    file: str | None,
    text: str | None,
    text_pair: str | None,
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
) -> None:
    """Print the inputs of the model MODEL, a JSON object for each text, in the order of the input.

    \b
    {"data0": [101, 2023, 102], "data1": [0, 0, 0], "data2": 3}

    They are those that predict feeds, before the padding: token ids, token types, valid_length. PREFIX is a
    classifier, an encoder, or a BERT with another head. FILE and standard input are read as by predict; pairs
    for an encoder come from a table that has two columns of texts, or from --text-pair.
    """
    check_texts(file, text, text_pair)
    tables = table_format(kind, header, text_column, pair_column, label_column)

    from bertsym.inference.bundle_tokenizer import BundleTokenizer

    tokenizer = BundleTokenizer.open(model)
    if text is not None:
        encoded = tokenizer.encode([text], None if text_pair is None else [text_pair])
    else:
        encoded = tokenizer.encode_table(table_source(file), tables, warn)
    rows = truncated = 0
    with row_bar(shown=text is None and not sys.stdout.isatty()) as on_rows:
        for features in encoded:
            for inputs in features.inputs():
                click.echo(json.dumps(inputs))
            rows += len(features)
            truncated += features.truncated
            on_rows(len(features))
    show_truncated(truncated, rows, tokenizer.signature.max_length)
