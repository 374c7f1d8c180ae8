"""Options that several commands share, and helpers for their arguments."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import click

from bertsym.encoders.forms import FORMS, TARGETS
from bertsym.terminal import escaped

SHOWN = 20  #: lines of a kind, where more is rarely read
Function = TypeVar("Function", bound=Callable[..., Any])

force_option = click.option("--force", is_flag=True, help="Overwrite an existing bundle.")
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, gpu:0 or gpu:0,1.")

inference_batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Rows that are computed together, at most: of long texts a CPU takes fewer.",
)


def _use_threads(context: click.Context, option: click.Parameter, number: int | None) -> None:
    if number is not None:
        os.environ["OMP_NUM_THREADS"] = str(number)  # before the import of mxnet, which reads it


threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    expose_value=False,
    callback=_use_threads,
    help="Threads on the CPU.  [default: OMP_NUM_THREADS, or one for each processor]",
)

literal_special_tokens_option = click.option(
    "--literal-special-tokens",
    is_flag=True,
    help="Take words such as [SEP] or [MASK] in a text as text, not as special tokens.",
)

epoch_option = click.option(
    "--epoch", type=click.IntRange(0), help="Of PREFIX-EPOCH.params.  [default: 0, or the last]"
)
params_option = click.option("--params", metavar="FILE", help="The parameter file, if it is not beside the symbol.")


class OptionType(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """The base of our own option types."""


class _ShapeType(OptionType):
    """``NAME=2,16`` as a name and a shape."""

    name = "NAME=SIZES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless the sizes are positive."""
        name, equals, sizes = str(value).partition("=")
        parts = [part.strip() for part in sizes.strip("() ").split(",") if part.strip()]
        if not name or not equals or not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not of the form NAME=2,16", param, ctx)
        return name, tuple(int(part) for part in parts)


def _as_dict(context: click.Context, option: click.Parameter, values: Any) -> dict[str, tuple[int, ...]]:
    return dict(values)


shape_option = click.option(
    "--shape",
    type=_ShapeType(),
    multiple=True,
    callback=_as_dict,
    help="Shape of an input, as data0=2,16; for inputs whose shape the graph does not tell.",
)


def _trust(context: click.Context, option: click.Parameter, trusted: bool) -> None:
    if trusted:
        from bertsym.execution.sandbox import trusting

        context.with_resource(trusting())


def _allow(context: click.Context, option: click.Parameter, operators: tuple[str, ...]) -> None:
    if operators:
        from bertsym.symbol.validation import allowing

        context.with_resource(allowing(*operators))


def _use_engine(context: click.Context, option: click.Parameter, name: str | None) -> None:
    if name is not None:
        from bertsym.execution.engines import using_engine

        context.with_resource(using_engine(name))


engine_option = click.option(
    "--engine",
    type=click.Choice(["mxnet", "onnxruntime"]),
    expose_value=False,
    callback=_use_engine,
    help="Library that computes the graphs.  [default: mxnet, or onnxruntime where mxnet is not installed]",
)


def _skip_verification(context: click.Context, option: click.Parameter, skip: bool) -> None:
    if skip:
        from bertsym.execution.engines import without_verification

        context.with_resource(without_verification())


no_verify_option = click.option(
    "--no-verify",
    is_flag=True,
    expose_value=False,
    callback=_skip_verification,
    help="Write without computing and comparing anything; needs no engine.",
)


def foreign_options(function: Function) -> Function:
    """What a symbol of unknown origin may do."""
    for option in reversed(
        (
            click.option(
                "--trust",
                is_flag=True,
                expose_value=False,
                callback=_trust,
                help="Run a symbol that is no BERT's bundle in this process, without limits on memory and time.",
            ),
            click.option(
                "--allow-op",
                metavar="NAME",
                multiple=True,
                expose_value=False,
                callback=_allow,
                help="Take symbols with this operator too, which bertsym does not know.",
            ),
        )
    ):
        function = option(function)
    return function


def form_options(function: Function) -> Function:
    """In which form an encoder is written, and for which MXNet."""
    described = "; ".join(f"{name}: {text}" for name, text in FORMS.items())
    for option in reversed(
        (
            click.option("--form", type=click.Choice(list(FORMS)), help=f"{described}.  [default: portable]"),
            click.option(
                "--target-mxnet",
                "target",
                type=click.Choice(list(TARGETS)),
                help="The MXNet that it is for.  [default: all from 1.4 on; for gluonnlp and fast 1.6, 1.8 and 1.9]",
            ),
        )
    ):
        function = option(function)
    return function


def surgery_options(function: Function) -> Function:
    """What a symbol is read with, and whether a bundle is overwritten."""
    for option in reversed((params_option, epoch_option, shape_option, force_option, engine_option, no_verify_option)):
        function = option(function)
    return foreign_options(function)


def table_options(function: Function) -> Function:
    """How a table is read: format, header, columns."""
    for option in reversed(
        (
            click.option(
                "--format",
                "kind",
                type=click.Choice(["tsv", "csv", "jsonl"]),
                help="Format of the tables.  [default: by the suffix of the file]",
            ),
            click.option(
                "--header/--no-header",
                default=None,
                help="Whether the first line of a table is a header; without one, columns are given by number.  "
                "[default: as in training, where it is --header]",
            ),
            click.option("--text-column", metavar="COLUMN", help="Header name, or number from 1, of the text."),
            click.option("--pair-column", metavar="COLUMN", help="Header name, or number from 1, of the second text."),
            click.option("--label-column", metavar="COLUMN", help="Header name, or number from 1, of the label."),
        )
    ):
        function = option(function)
    return function


def table_format(
    kind: str | None,
    header: bool | None,
    text_column: str | None,
    pair_column: str | None,
    label_column: str | None,
    drop_labels: tuple[str, ...] = (),
) -> Any:
    """The TableFormat that `table_options` and `drop_label_option` ask for."""
    from bertsym.text.tables import TableFormat
    from bertsym.text.tasks import Columns

    return TableFormat(kind, header, Columns(text_column, pair_column, label_column), drop_labels)


drop_label_option = click.option(
    "--drop-label",
    "drop_labels",
    metavar="VALUE",
    multiple=True,
    help="Leave out rows with this label, such as SNLI's -; may be repeated. A label that was dropped in training is "
    "also left out of evaluation.",
)


def on_error_option(help_text: str, *choices: str) -> Callable[[Function], Function]:
    """``--on-error fail|skip``, and further choices."""
    return click.option(
        "--on-error", type=click.Choice(["fail", "skip", *choices]), default="fail", show_default=True, help=help_text
    )


def warn(text: str) -> None:
    """Print a line on standard error."""
    click.echo(escaped(text), err=True)


def text_options(function: Function) -> Function:
    """The texts: FILE or standard input, or one by --text; with `table_options`."""
    function = table_options(function)
    for option in (
        click.option("--text-pair", help="Its second text."),
        click.option("--text", help="One text, instead of FILE."),
        click.argument("file", required=False),
    ):
        function = option(function)
    return function


def check_texts(file: str | None, text: str | None, text_pair: str | None) -> None:
    """Raise UsageError unless the `text_options` fit each other."""
    if text is not None and file not in (None, "-"):
        raise click.UsageError("Give either FILE or --text.")
    if text_pair is not None and text is None:
        raise click.UsageError("--text-pair needs --text.")


def table_source(file: str | None) -> str | BinaryIO:
    """FILE, or standard input for none and for -."""
    if file is not None and file != "-":
        return file
    if sys.stdin is None:
        raise click.UsageError("Give FILE or --text: standard input is closed.")
    if sys.stdin.isatty():
        click.echo("reading standard input, a text a line; end it with Ctrl-D", err=True)
    # Of its own: a thread may still be reading when the process ends, and Python then aborts if it is sys.stdin.
    return open(sys.stdin.fileno(), "rb", closefd=False)


def show_truncated(truncated: int, rows: int, limit: int) -> None:
    """Say how many texts were truncated, if any."""
    if truncated:
        click.echo(f"{truncated} of {rows} texts truncated to {limit} tokens", err=True)


class TaskChoice(click.Choice):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.2
    """A kind of task, or another word that a command takes in its place; kinds without support are named as such."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fail unless the command supports it."""
        from bertsym.text.tasks import TASK_KINDS

        if value in TASK_KINDS and value not in self.choices:
            command = ctx.info_name if ctx else "this command"
            self.fail(f"{command} does not support {value!r} yet; it supports {', '.join(self.choices)}.", param, ctx)
        return super().convert(value, param, ctx)


def task_option(default: str | None = None) -> Callable[[Function], Function]:
    """``--task``: a kind of task, or a known data set, which implies its kind."""
    from bertsym.text.tasks import TASKS

    known = "; ".join(f"{task.name}: {task.description}" for task in TASKS.values())
    return click.option(
        "--task",
        type=TaskChoice(list(TASKS)),
        default=default,
        help=f"Kind of task, or a known data set, which implies its kind and its columns. {known}."
        f"  [default: {default or 'as in training'}]",
    )


# They don't change what is written, nor where it was written.
_NOT_NOTED = ("force", "log_json", "verbose", "checkpoint_steps", "keep_checkpoints", "resume")


def command_line(again: bool = False) -> list[str]:
    """The command of the current context for a manifest: what was given, with OUT for the target.

    All of it, to be typed `again`.
    """
    context = click.get_current_context()
    words = ["bertsym", str(context.command.name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        value = context.params.get(name)
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if (name in _NOT_NOTED and not again) or value is None or not given:
            continue
        if isinstance(parameter, click.Option) and parameter.multiple:
            for item in value.items() if isinstance(value, dict) else value:
                words += [parameter.opts[0], _as_given(item)]
            continue
        value = "OUT" if name == "out" and not again else str(value)
        if isinstance(parameter, click.Argument):
            words.append(value)
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0] if context.params[name] else parameter.secondary_opts[0])
        else:
            words += [parameter.opts[0], value]
    return words


def _as_given(item: Any) -> str:
    """A value of an option that may be given several times: a word, OLD=NEW, NODE.ATTR=VALUE or NAME=SIZES."""
    if isinstance(item, str):
        return item
    *names, last = item
    return f"{'.'.join(names)}={last if isinstance(last, str) else ','.join(map(str, last))}"


def show_written(written: Any) -> None:
    """Say what surgery wrote, what it was compared by, and what to know of it."""
    bundle = written.bundle
    signature = bundle.signature.to_json()
    for note in written.notes:
        click.echo(escaped(f"note: {note}"), err=True)
    for check in written.checks:
        click.echo(escaped(f"  {check}"))
    compared = (
        ", verified" if written.verified else ", which computes something else" if written.checks else ", not compared"
    )
    count = len(bundle.params())
    click.echo(f"wrote {bundle.prefix}-*{compared}; {count} arrays of parameters")
    for verb, tensors in (("reads", signature["inputs"]), ("ends in", signature["outputs"])):
        shown = [f"{tensor['name']} ({', '.join(map(str, tensor['shape'] or '?'))})" for tensor in tensors]
        click.echo(escaped(f"  it {verb} {', '.join(shown)}"))
    if written.loaders:
        click.echo(f"  the files compute the same through {', '.join(written.loaders)}")
    if signature["minimum_mxnet"]:
        click.echo(f"  it loads in MXNet {signature['minimum_mxnet']} and newer")


@contextlib.contextmanager
def row_bar(shown: bool = True) -> Iterator[Callable[[int], object]]:
    """A count of rows and their speed on a terminal, nothing elsewhere; yields what moves it."""
    from tqdm import tqdm

    with tqdm(unit=" rows", leave=False, disable=not (shown and sys.stderr.isatty())) as bar:
        yield bar.update
