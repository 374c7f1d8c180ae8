"""The ``bertsym`` group: errors as one line and an exit code, commands imported when they are called."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from bertsym.cli.failures import NoReaderError, Stopped, describe_failure, is_unexpected
from bertsym.compat.quick_import import speed_up_mxnet_import
from bertsym.terminal import one_line

# name -> one line for the group's help; each is a module of this folder with a command `command`.
COMMANDS = {
    "export": "Export a pretrained BERT as a bundle of MXNet files.",
    "inspect": "Describe any MXNet symbol, and what its classifier reads.",
    "extract": "Write a subgraph of a model, with chosen outputs and inputs.",
    "graft": "Add an untrained head to a model, or remove its head.",
    "edit": "Change node names, attributes, dropout or parameters of a model.",
    "lower": "Rewrite a BERT for another MXNet version or in another form.",
    "diff": "Compare nodes, parameters and outputs of two models.",
    "draw": "Draw a symbol as svg, png, an html page, or for Netron.",
    "onnx": "Convert a model to ONNX, verified in onnxruntime.",
    "hf": "Write a bundle as a folder that Hugging Face's transformers loads.",
    "verify": "Compare the outputs of a bundle with a reference encoder.",
    "finetune": "Fine-tune an exported BERT for a task.",
    "tasks": "List the kinds of task and the known data sets.",
    "quantize": "Quantize a model to int8, with a limit on lost accuracy.",
    "evaluate": "Compute the metrics of a model on a labelled file.",
    "compare": "Compare two models on a labelled file, with confidence intervals.",
    "predict": "Print labels, numbers, tags or answers for texts.",
    "embed": "Write one vector for each text.",
    "tokenize": "Print the model inputs of texts as JSON.",
    "demo": "Run the main commands on real weights and a small table.",
    "doctor": "Check this machine: libraries, engines, processor, tools.",
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"bertsym.cli.{cmd_name}").command
        if verbose_option not in command.params:
            command.params.append(verbose_option)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is refused with the names that are close to it."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn a broken pipe into an error that click does not handle as a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise NoReaderError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _announce(context: click.Context, option: click.Parameter, verbose: bool) -> None:
    if verbose and not context.find_root().meta.get(_VERBOSE):
        context.find_root().meta[_VERBOSE] = True
        from bertsym.mxnet_runtime import prepare_environment

        for setting in prepare_environment() or ["nothing, all variables were set"]:
            click.echo(f"set {setting}", err=True)


_VERBOSE = "bertsym.verbose"
_COMPLETION = "_BERTSYM_COMPLETE"  # set by the shell that asks for completions, which click then prints
_RETRY = 0.01  # seconds until a signal that arrived in a destructor is handled
_CLEARING_UP = 1.0  # seconds after a signal in which another one changes nothing
# Accepted before and after the name of the command.
verbose_option = click.Option(
    ["-v", "--verbose"],
    is_flag=True,
    expose_value=False,
    callback=_announce,
    help="Print the environment variables that bertsym sets for mxnet, and the traceback of an unexpected error.",
)


@click.group(
    cls=LazyGroup,
    params=[verbose_option],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="bertsym")
def cli() -> None:
    """Export pretrained BERT models to Apache MXNet, inspect and edit them, fine-tune them, and predict.

    \b
    bertsym export hf:DIR out/base
    bertsym finetune out/base out/classifier --train train.tsv --dev dev.tsv
    bertsym predict out/classifier --text "..." --text-pair "..."
    """


def main() -> NoReturn:
    """Run the command line and exit: 0; 1 for an error of data or model; 2 for usage; 130 or 143 for a signal."""
    _open_closed_streams()
    speed_up_mxnet_import()
    with _stoppable():
        code = run(sys.argv[1:])
        _drop_unwritable_output()
        sys.exit(code)


def _open_closed_streams() -> None:
    """Keep the numbers of streams that the caller closed from other files: libmxnet would print into these."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            if number:
                setattr(sys, name, os.fdopen(number, "w"))


def _drop_unwritable_output() -> None:
    """Drop output that can't be written: Python would try to write it again at exit, and then exit with 120."""
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors are printed, one line each."""
    if not arguments and _COMPLETION not in os.environ:
        with click.Context(cli, info_name="bertsym") as context:
            click.echo(cli.get_help(context), err=True)
        return 2
    if _COMPLETION in os.environ:
        from bertsym.cli.completion import register_fish

        register_fish()
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    try:
        result = cli.main(arguments, prog_name="bertsym", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (NoReaderError, BrokenPipeError):
        # The reader has ended; Python must not fail when it flushes the output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt, Stopped) as error:
        if verbose and is_unexpected(error):
            traceback.print_exc()
        message, code = describe_failure(error)
        click.echo(f"Error: {one_line(message)}", err=True)
        return code


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    pending: list[int] = []
    raised = -_CLEARING_UP
    has_alarm = hasattr(signal, "SIGALRM")

    def stop(number: int, frame: Any) -> None:
        nonlocal raised
        if time.monotonic() - raised < _CLEARING_UP:
            return
        # Python drops an exception that is raised in a destructor, and mxnet's arrays have one: try again later.
        while frame is not None:
            if frame.f_code.co_name == "__del__":
                if has_alarm:
                    pending[:] = [number]
                    signal.setitimer(signal.ITIMER_REAL, _RETRY)
                else:  # Windows
                    threading.Timer(_RETRY, signal.raise_signal, [number]).start()
                return
            frame = frame.f_back
        raised = time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    def retry(_: int, frame: Any) -> None:
        stop(pending[0], frame)

    numbers = [signal.SIGINT, signal.SIGTERM]
    # nohup ignores SIGHUP; Windows has none.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in numbers}
    if has_alarm:
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, retry)
    try:
        yield
    finally:
        if has_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
