"""``bertsym predict``."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, collected, option
from bertsym.cli.data_set_files import DataSetFiles, data_set_options
from bertsym.cli.model_options import model_argument
from bertsym.cli.options import FILE, force_option
from bertsym.cli.output import line_output, print_truncated
from bertsym.cli.prediction_lines import PredictionLines, parse_kept
from bertsym.cli.run_events import Logs, log_json_option, run_events
from bertsym.cli.running_options import (
    device_option,
    inference_batch_size_option,
    selecting_engine_option,
    threads_option,
)
from bertsym.cli.table_options import build_task_options, on_error_option, stride_option
from bertsym.cli.texts import Texts, text_options
from bertsym.errors import DataError

if TYPE_CHECKING:
    from bertsym.events import EventStream
    from bertsym.inference.predict import TaskPredictor
    from bertsym.tasks.options import TaskOptions
    from bertsym.tasks.submission import SubmissionLines
    from bertsym.tasks.task import Prediction
    from bertsym.text.bad_rows import BadRows
    from bertsym.text.table_format import TableFormat

Answer = tuple[tuple[Any, ...], "Prediction"]  # kept cells and prediction


@click.command("predict", cls=Command)
@model_argument
@text_options
@data_set_options
@collected(
    "task_options",
    build_task_options,
    stride_option,
    option(
        "--threshold",
        group="Output",
        type=float,
        metavar="P",
        help="Multi-label: minimum probability of a predicted label, from 0 to 1, for all labels.  [default: the "
        "thresholds that finetune tuned, otherwise 0.5]",
    ),
    option(
        "--sigmoid/--no-sigmoid",
        group="Output",
        default=None,
        help="Regression: whether to apply a sigmoid to the output, as many cross-encoders do.  [default: as in the "
        "signature of MODEL, where export records the setting of a cross-encoder]",
    ),
    option(
        "--top-k",
        group="Output",
        type=click.IntRange(1),
        help="Number of answers. Classification: classes in each line, the most probable first (tsv: columns label, "
        "p, label 2, p 2, ...). Masked words: words for each mask.  [default: all classes, in the order of training; "
        "5 words]",
    ),
)
@on_error_option("blank")
@inference_batch_size_option
@device_option
@threads_option
@selecting_engine_option
@option(
    "--output-format",
    group="Output",
    type=click.Choice(["tsv", "jsonl"]),
    default="tsv",
    show_default=True,
    help="Format of the output. tsv: a header and the columns that the table above names; jsonl: one JSON object per "
    "line.",
)
@option(
    "--out",
    group="Output",
    metavar="OUT",
    type=FILE,
    help="File to write instead of standard output. It appears when it is complete.",
)
@log_json_option("An existing file is an error, unless --force is given.")
@force_option
@option(
    "--keep-column",
    "kept",
    group="Output",
    metavar="COLUMN[=NAME]",
    multiple=True,
    help="Column of FILE to copy to the output, before the prediction: its name in the header or its number, or in "
    "JSON Lines its key. NAME is its name in the output. In TSV, tabs and line breaks are written as \\t, \\n and "
    "\\r. Repeatable.",
)
def command(
    model: str,
    texts: Texts,
    table_format: TableFormat,
    data: DataSetFiles,
    task_options: TaskOptions,
    on_error: str,
    batch_size: int,
    device: str,
    output_format: str,
    out: str | None,
    log_json: str | None,
    force: bool,
    kept: tuple[str, ...],
) -> None:
    """Print one answer for each text, in the order of the texts.

    MODEL must be the bundle of a trained model for one of these tasks: from finetune, or from export of a model with a
    trained head, such as BertForSequenceClassification or RobertaForMaskedLM.

    \b
    Task            TSV columns                    JSON
      classification  label, p(CLASS), ...           label, probabilities
      multilabel      labels, p(LABEL), ...          labels, probabilities
      regression      value                          value
      tagging         tags, entities                 tokens, offsets, tags, probabilities,
                                                     entities
      qa              answer, start, end, score      id, answer, start, end, score,
                                                     no_answer_score, n_best
      masked_lm       words, masks                   masks

    FILE is a table, read with the header and columns of the training table unless options say otherwise. Without FILE
    and --text, or with - as FILE, texts come from standard input: one per line, the second text of a pair after a tab.
    With --format, --header or a column, standard input is a table (TSV unless --format says otherwise). Each line of a
    pipe is answered when it arrives.

    With --data-dir, the test file of the data set is read, or another --split. bertsym tasks lists the data sets.

    \b
    bertsym predict out/mnli --data-dir glue/MNLI --submission MNLI-m.tsv
    bertsym predict out/mnli --data-dir glue --task ax --submission AX.tsv
    """
    from bertsym.events import TextsProcessed, now, since
    from bertsym.inference.predict import TaskPredictor
    from bertsym.text.bad_rows import BadRows

    names = parse_kept(kept)
    data.refuse(out=out, keep_column=kept, top_k=task_options.top_k, on_error=on_error == "skip")
    with run_events(Logs(log_json), files=[texts.file, out, data.submission], bundles=[model], force=force) as events:
        started, given = now(), dataclasses.replace(table_format, kept=tuple(names))
        texts, table_format, dataset = data.find(model, texts, given)
        out, bad_rows = data.target(dataset) or out, BadRows(on_error, events.note, shown=None)
        shown = out is not None or not sys.stdout.isatty()  # lines on the terminal are the progress themselves
        with _output(out, force, events) as write:
            predictor: TaskPredictor[Prediction] = TaskPredictor(model, device, batch_size, task_options)
            plain = PredictionLines(predictor.task, output_format, tuple(names.values()))
            lines = data.lines(dataset, predictor.task) or plain
            answers = _answers(predictor, texts, table_format, events, shown)
            rows, truncated = _write(answers, lines, bad_rows, on_error == "blank", write)
            events(TextsProcessed(since(started), "predicting", model, texts.file, rows, truncated, bad_rows.count))
            print_truncated(truncated, rows, predictor.bundle.signature.max_length)
            bad_rows.finish(rows)


@contextlib.contextmanager
def _output(out: str | None, force: bool, events: EventStream) -> Iterator[Callable[[str], object]]:
    """Yield what writes a line to a file, or to standard output; send an event when the file is complete."""
    from bertsym.events import Written, instant

    with line_output(out, force) as write:
        yield write
    if out is not None:
        events(Written(instant(), out))


def _answers(
    predictor: TaskPredictor[Prediction],
    texts: Texts,
    table_format: TableFormat,
    events: EventStream,
    shown: bool,
) -> Iterator[Answer | DataError]:
    """A prediction for each text; in the place of a row that can't be read, its error. The progress may be `shown`."""
    from bertsym.events import EventStream

    if texts.text is None:
        total = texts.count_rows(str(predictor.bundle.prefix), table_format) if shown else None
        on_rows = (events if shown else EventStream()).counter("predicting", total, texts.file)
        yield from predictor.predict_kept(texts.source(), table_format, events.note, on_rows)
    elif table_format.kept:
        raise click.UsageError("--keep-column needs FILE: --text has no columns.")
    else:
        yield from (((), prediction) for prediction in predictor.predict_texts([texts.text], texts.pairs))


def _write(
    answers: Iterator[Answer | DataError],
    lines: PredictionLines | SubmissionLines,
    bad_rows: BadRows,
    blank: bool,
    write: Callable[[str], object],
) -> tuple[int, int]:
    """Write a line for each answer, and if `blank` for each error; returns the numbers of rows and truncated texts."""
    rows = truncated = 0
    for rows, answer in enumerate(answers, 1):
        if isinstance(answer, DataError):
            bad_rows(answer)
        else:
            truncated += answer[1].truncated
        if rows == 1 and lines.header is not None:
            write(lines.header)
        if blank or not isinstance(answer, DataError):
            write(lines.line(answer))
    return rows, truncated
