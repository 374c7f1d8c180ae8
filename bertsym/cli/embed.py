"""``bertsym embed``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Command, argument, option
from bertsym.cli.model_options import model_argument
from bertsym.cli.options import FILE, force_option, options_of
from bertsym.cli.output import note, print_truncated
from bertsym.cli.run_events import Logs, log_json_option, run_events
from bertsym.cli.running_options import (
    device_option,
    inference_batch_size_option,
    selecting_engine_option,
    threads_option,
)
from bertsym.cli.table_options import on_error_option, table_options
from bertsym.cli.texts import Texts
from bertsym.encoders.catalogue import POOLINGS

if TYPE_CHECKING:
    from bertsym.inference.embed import EmbedOptions
    from bertsym.text.table_format import TableFormat


def _options(**values: Any) -> EmbedOptions:
    from bertsym.inference.embed import EmbedOptions

    return EmbedOptions(**values)


@click.command("embed", cls=Command)
@model_argument
@argument("file", "Table of texts; standard input if it is -.", type=FILE)
@argument("out", "File to write, .npy or .jsonl.", type=FILE)
@options_of(
    _options,
    option(
        "--pooling",
        type=click.Choice(list(POOLINGS)),
        help=f"How the encodings of the tokens become one vector. "
        f"{'; '.join(f'{name}: {text}' for name, text in POOLINGS.items())}.  [default: the sentence embedding or "
        "other output of MODEL, or what its head reads; required where that is the whole sequence]",
    ),
    option("--normalize", is_flag=True, help="Scale each vector to length 1."),
    option(
        "--prompt",
        metavar="TEXT",
        help='Text to put before each text, including the space after it, such as "query: ".  [default: the default '
        "prompt of MODEL, if it has one]",
    ),
    option(
        "--prompt-name",
        metavar="NAME",
        help="Prompt of MODEL to put before each text; inspect lists the prompts. Not with --prompt.",
    ),
    option(
        "--max-length",
        type=click.IntRange(1),
        help="Number of tokens to which texts are truncated.  [default: the maximum of MODEL]",
    ),
    on_error_option("blank", blank="write a row of NaN, or null in JSON Lines, in its place"),
    inference_batch_size_option,
    device_option,
)
@table_options
@threads_option
@selecting_engine_option
@log_json_option("An existing file is an error, unless --force is given.")
@force_option
def command(
    model: str,
    file: str,
    out: str,
    options: EmbedOptions,
    table_format: TableFormat,
    log_json: str | None,
    force: bool,
) -> None:
    """Write one vector for each text of FILE, in the order of the texts.

    MODEL is the bundle of any encoder; a head is left out. The bundle of a sentence-transformers folder gives its
    sentence embedding, with its default prompt before each text. A .npy file is an array (rows, units) float32; a
    .jsonl file has one object per line, {"embedding": [0.1, ...]}. The file appears at OUT when it is complete.

    FILE is read as by `bertsym predict`: a table with a text column, a file with one text per line with --format lines,
    or standard input with one text per line. A pair of texts, from a table with two text columns, gives one vector.

    \b
    bertsym export hf:sentence-transformers/all-MiniLM-L6-v2 out/minilm
    bertsym embed out/minilm corpus.jsonl corpus.npy
    """
    from bertsym.events import TextsProcessed, Written, instant, now, since
    from bertsym.inference.embed import embed

    texts = Texts(file, None, None)
    with run_events(Logs(log_json), files=[file, out], bundles=[model], force=force) as events:
        started, on_rows = now(), events.counter("embedding", texts.count_rows(model, table_format), file)
        settings: dict[str, Any] = {"table_format": table_format, "force": force}
        result = embed(model, texts.source(), out, options, **settings, on_rows=on_rows, warn=events.note)
        counts = result.rows, result.truncated, result.unreadable
        events(TextsProcessed(since(started), "embedding", model, file, *counts))
        events(Written(instant(), str(result.path)))
        if result.prompt and options.prompt is None:
            name = f"prompt {options.prompt_name}" if options.prompt_name is not None else "default prompt"
            note(f"{name} of {model}: {result.prompt!r} is put before each text")
        print_truncated(result.truncated, result.rows, result.max_length)
    click.echo(f"wrote {result.path}: {result.rows} x {result.units} float32")
