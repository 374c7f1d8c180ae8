"""``bertsym predict``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bertsym.cli.command import Command, option
from bertsym.cli.options import (
    device_option,
    engine_option,
    inference_batch_size_option,
    model_argument,
    threads_option,
)
from bertsym.cli.output import print_truncated, row_bar, warn
from bertsym.cli.table_options import on_error_option
from bertsym.cli.texts import Texts, text_options
from bertsym.errors import DataError

if TYPE_CHECKING:
    from bertsym.inference.predict import TaskPredictor
    from bertsym.tasks.task import Prediction, Task
    from bertsym.text.tables import TableFormat


@click.command("predict", cls=Command)
@model_argument
@text_options
@on_error_option("blank")
@inference_batch_size_option
@device_option
@threads_option
@engine_option
@option(
    "--output-format",
    group="Output",
    type=click.Choice(["tsv", "jsonl"]),
    default="tsv",
    show_default=True,
    help="Format of the output. tsv: a header and the columns label and p(CLASS) for each class; jsonl: one JSON "
    "object per line with label and probabilities.",
)
def command(
    model: str,
    texts: Texts,
    table_format: TableFormat,
    on_error: str,
    batch_size: int,
    device: str,
    output_format: str,
) -> None:
    """Print the most probable class and the probability of each class, one line per text, in the order of the texts.

    MODEL must be the bundle of a trained single-label classifier: from finetune, or from export of a
    BertForSequenceClassification or of the same class of another family.

    FILE is a table, read with the header and columns of the training unless options say otherwise. Without FILE and
    --text, or with - as FILE, texts come from standard input: one per line, the second text of a pair after a tab.
    With --format, --header or a column, standard input is a table (TSV unless --format says otherwise).
    """
    from bertsym.inference.predict import TaskPredictor
    from bertsym.text.bad_rows import BadRows

    predictor: TaskPredictor[Prediction] = TaskPredictor(model, device, batch_size)
    bad_rows = BadRows(on_error, warn, shown=None)
    rows = truncated = 0
    # Lines that go to the terminal are the progress themselves.
    with row_bar(shown=texts.text is None and not sys.stdout.isatty()) as on_rows:
        for rows, prediction in enumerate(_predictions(predictor, texts, table_format), 1):
            if isinstance(prediction, DataError):
                bad_rows(prediction)
            else:
                truncated += prediction.truncated
            if rows == 1 and output_format == "tsv":
                click.echo("\t".join(predictor.task.columns))
            if on_error == "blank" or not isinstance(prediction, DataError):
                click.echo(_line(prediction, predictor.task, output_format))
            on_rows(1)
    print_truncated(truncated, rows, predictor.bundle.signature.max_length)
    bad_rows.finish(rows)


def _predictions(
    predictor: TaskPredictor[Prediction], texts: Texts, table_format: TableFormat
) -> Iterator[Prediction | DataError]:
    """A prediction for each text; in the place of a row that can't be read, its error."""
    if texts.text is not None:
        return iter(predictor.predict_texts([texts.text], texts.pairs))
    return predictor.predict_each(texts.source(), table_format, warn)


def _line(prediction: Prediction | DataError, task: Task, output_format: str) -> str:
    """One line of output, without an answer for an error."""
    if output_format == "jsonl":
        answer = dict.fromkeys(task.json_keys) if isinstance(prediction, DataError) else prediction.to_json()
        return json.dumps(answer, ensure_ascii=False)
    return "\t".join([""] * len(task.columns) if isinstance(prediction, DataError) else prediction.cells())
