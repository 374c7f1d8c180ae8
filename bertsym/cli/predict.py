"""``bertsym predict``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from bertsym.cli.options import device_option, row_bar, table_format, table_options

if TYPE_CHECKING:
    from bertsym.inference.predict import Prediction


@click.command("predict")
@click.argument("prefix")
@click.argument("file", required=False)
@click.option("--text", help="One text to classify, instead of FILE.")
@click.option("--text-pair", help="Its second text.")
@table_options
@click.option("--output-format", type=click.Choice(["tsv", "jsonl"]), default="tsv", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@device_option
def command(
    prefix: str,
    file: str | None,
    text: str | None,
    text_pair: str | None,
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    output_format: str,
    batch_size: int,
    device: str,
) -> None:
    """Print the label and the probability of each label, a line for each text, in the order of the input.

    FILE is a table with the columns of the training unless others are given. Without --text, and with
    - or nothing as FILE, standard input is read: a text a line, the second text after a tab.
    """
    if file == "-":
        file = None
    if text is not None and file is not None:
        raise click.UsageError("Give either FILE or --text.")
    if text_pair is not None and text is None:
        raise click.UsageError("--text-pair needs --text.")
    tables = table_format(kind, header, text_column, pair_column, label_column)

    from bertsym.inference.predict import Classifier

    classifier = Classifier(prefix, device, batch_size)
    if text is not None:
        predictions: Iterable[Prediction] = classifier.predict([text], None if text_pair is None else [text_pair])
    else:
        if file is None and sys.stdin is None:
            raise click.UsageError("Give FILE or --text: standard input is closed.")
        if file is None and sys.stdin.isatty():
            click.echo("reading standard input, a text a line; end it with Ctrl-D", err=True)
        predictions = classifier.predict_table(sys.stdin.buffer if file is None else file, tables)
    rows = truncated = 0
    # The lines themselves are the progress where they go to the terminal.
    with row_bar(shown=text is None and not sys.stdout.isatty()) as on_rows:
        for rows, prediction in enumerate(predictions, 1):
            if rows == 1 and output_format == "tsv":
                click.echo("\t".join(["label", *(f"p({label})" for label in classifier.labels)]))
            click.echo(_line(prediction, classifier.labels, output_format))
            truncated += prediction.truncated
            on_rows(1)
    if truncated:
        limit = classifier.bundle.signature.max_length
        click.echo(f"{truncated} of {rows} texts truncated to {limit} tokens", err=True)


def _line(prediction: Prediction, labels: Sequence[str], output_format: str) -> str:
    if output_format == "jsonl":
        record = {"label": prediction.label, "probabilities": prediction.probabilities}
        return json.dumps(record, ensure_ascii=False)
    return "\t".join([prediction.label, *(f"{prediction.probabilities[label]:.6f}" for label in labels)])
