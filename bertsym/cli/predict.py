"""``bertsym predict``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from bertsym.cli.options import (
    check_texts,
    device_option,
    engine_option,
    inference_batch_size_option,
    on_error_option,
    row_bar,
    show_truncated,
    table_format,
    table_source,
    text_options,
    threads_option,
    warn,
)
from bertsym.errors import DataError

if TYPE_CHECKING:
    from bertsym.inference.predict import Prediction


@click.command("predict")
@click.argument("model")
@text_options
@click.option(
    "--output-format",
    type=click.Choice(["tsv", "jsonl"]),
    default="tsv",
    show_default=True,
    help="Format of the output.",
)
@on_error_option(
    "At a row that can't be read: stop, leave it out, or print a line without an answer. Each row is named.", "blank"
)
@inference_batch_size_option
@device_option
@threads_option
@engine_option
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
    output_format: str,
    on_error: str,
    batch_size: int,
    device: str,
) -> None:
    """Print the label and the probability of each label, a line for each text, in the order of the input.

    FILE is a table with the header and columns of the training unless others are given. Without --text, and with
    - or nothing as FILE, standard input is read: a text a line, the second text after a tab.
    """
    check_texts(file, text, text_pair)
    tables = table_format(kind, header, text_column, pair_column, label_column)

    from bertsym.inference.predict import Classifier
    from bertsym.text.bad_rows import BadRows

    classifier = Classifier(model, device, batch_size)
    predictions: Iterator[Prediction | DataError]
    if text is not None:
        predictions = iter(classifier.predict([text], None if text_pair is None else [text_pair]))
    else:
        predictions = classifier.predict_each(table_source(file), tables, warn)
    bad_rows = BadRows(on_error, warn, shown=None)
    rows = truncated = 0
    # The lines themselves are the progress where they go to the terminal.
    with row_bar(shown=text is None and not sys.stdout.isatty()) as on_rows:
        for rows, prediction in enumerate(predictions, 1):
            if isinstance(prediction, DataError):
                bad_rows(prediction)
            else:
                truncated += prediction.truncated
            if rows == 1 and output_format == "tsv":
                click.echo("\t".join(["label", *(f"p({label})" for label in classifier.class_names)]))
            if on_error == "blank" or not isinstance(prediction, DataError):
                click.echo(_line(prediction, classifier.class_names, output_format))
            on_rows(1)
    show_truncated(truncated, rows, classifier.bundle.signature.max_length)
    bad_rows.finish(rows)


def _line(prediction: Prediction | DataError, labels: Sequence[str], output_format: str) -> str:
    """One line of output, without an answer for an error."""
    label: str | None = None
    probabilities: dict[str, float] | None = None
    if not isinstance(prediction, DataError):
        label, probabilities = prediction.label, prediction.probabilities
    if output_format == "jsonl":
        return json.dumps({"label": label, "probabilities": probabilities}, ensure_ascii=False)
    return "\t".join([label or "", *(f"{probabilities[name]:.6f}" if probabilities else "" for name in labels)])
