"""``bertsym predict``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bertsym.cli.options import (
    check_texts,
    device_option,
    row_bar,
    show_truncated,
    table_format,
    table_source,
    text_options,
    threads_option,
)

if TYPE_CHECKING:
    from bertsym.inference.predict import Prediction


@click.command("predict")
@click.argument("prefix")
@text_options
@click.option("--output-format", type=click.Choice(["tsv", "jsonl"]), default="tsv", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@device_option
@threads_option
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
    check_texts(file, text, text_pair)
    tables = table_format(kind, header, text_column, pair_column, label_column)

    from bertsym.inference.predict import Classifier

    classifier = Classifier(prefix, device, batch_size)
    if text is not None:
        predictions = iter(classifier.predict([text], None if text_pair is None else [text_pair]))
    else:
        predictions = classifier.predict_table(table_source(file), tables)
    rows = truncated = 0
    # The lines themselves are the progress where they go to the terminal.
    with row_bar(shown=text is None and not sys.stdout.isatty()) as on_rows:
        for rows, prediction in enumerate(predictions, 1):
            if rows == 1 and output_format == "tsv":
                click.echo("\t".join(["label", *(f"p({label})" for label in classifier.labels)]))
            click.echo(_line(prediction, classifier.labels, output_format))
            truncated += prediction.truncated
            on_rows(1)
    show_truncated(truncated, rows, classifier.bundle.signature.max_length)


def _line(prediction: Prediction, labels: Sequence[str], output_format: str) -> str:
    if output_format == "jsonl":
        record = {"label": prediction.label, "probabilities": prediction.probabilities}
        return json.dumps(record, ensure_ascii=False)
    return "\t".join([prediction.label, *(f"{prediction.probabilities[label]:.6f}" for label in labels)])
