"""The ``bertsym`` group: errors as one line and an exit code, commands imported when they are called."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from bertsym.errors import BertsymError
from bertsym.terminal import one_line

# name -> one line for the group's help; each is a module of this folder with a command `command`.
COMMANDS = {
    "export": "Write a pretrained BERT as a bundle of MXNet files.",
    "inspect": "Tell what any MXNet symbol is, and what its classifier reads.",
    "extract": "Write a part of a symbol: any node as output, any tensor as input.",
    "graft": "Put an untrained head on a symbol, or remove its head.",
    "edit": "Change names, attributes or dropout of a symbol.",
    "lower": "Write a BERT for another MXNet, or in another form.",
    "diff": "Compare two symbols: nodes, parameters, results.",
    "draw": "Draw a symbol as svg, png, one html page, or for Netron.",
    "onnx": "Write a symbol as an ONNX file, checked in onnxruntime.",
    "verify": "Check a written bundle against a reference encoder.",
    "finetune": "Graft a classifier onto an exported BERT and fit it.",
    "quantize": "Write a classifier in int8, as far as it stays good.",
    "evaluate": "Measure a classifier on a labelled table.",
    "predict": "Classify texts.",
    "tokenize": "Print texts as the inputs of a model.",
    "demo": "Run the main commands on real weights and a small table.",
    "doctor": "Check this machine: libraries, engines, processor, tools.",
}


class _NoReaderError(Exception):
    """Nobody reads what is printed."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's module is imported here."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"bertsym.cli.{cmd_name}").command
        if verbose_option not in command.params:
            command.params.append(verbose_option)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a broken pipe as an error that click does not take for a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _NoReaderError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _announce(context: click.Context, option: click.Parameter, verbose: bool) -> None:
    if verbose and not context.find_root().meta.get(_VERBOSE):
        context.find_root().meta[_VERBOSE] = True
        from bertsym.runtime import prepare_environment

        for setting in prepare_environment() or ["nothing: all of it was set"]:
            click.echo(f"set {setting}", err=True)


_VERBOSE = "bertsym.verbose"
_CLEARING_UP = 1.0  # seconds after a signal in which another one changes nothing
# Understood before and after the command's name.
verbose_option = click.Option(
    ["-v", "--verbose"],
    is_flag=True,
    expose_value=False,
    callback=_announce,
    help="Say what is set before mxnet is imported; show where an unexpected error came from.",
)


@click.group(
    cls=LazyGroup,
    params=[verbose_option],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="bertsym")
def cli() -> None:
    """Export a BERT as an Apache MXNet symbol, choose what its classifier reads, fine-tune it, use it.

    \b
    bertsym export hf:DIR out/base
    bertsym finetune out/base out/classifier --train train.tsv --dev dev.tsv
    bertsym predict out/classifier --text "..." --text-pair "..."
    """


def main() -> NoReturn:
    """Run the command line and exit: 0, 1 for data or model faults, 2 for usage, 130 or 143 when stopped."""
    _open_closed_streams()
    with _stoppable():
        code = run(sys.argv[1:])
        _drop_unwritable_output()
        sys.exit(code)


def _open_closed_streams() -> None:
    """Let no file get the number of a stream that the caller closed: libmxnet would print into it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            if number:
                setattr(sys, name, os.fdopen(number, "w"))


def _drop_unwritable_output() -> None:
    """Drop output that can't be written: Python would try again at exit, and then exit with 120."""
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors are printed, one line each."""
    if not arguments:
        with click.Context(cli, info_name="bertsym") as context:
            click.echo(cli.get_help(context), err=True)
        return 2
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    try:
        result = cli.main(arguments, prog_name="bertsym", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "bertsym"
        return _fail(f"{error.format_message()} See {command} --help", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except BertsymError as error:
        return _fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except _Stopped as stopped:
        return _fail(str(stopped), stopped.exit_code)
    except (_NoReaderError, BrokenPipeError):
        # The reader has enough; what Python flushes at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory", 1)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        # libmxnet's message ends its own traceback.
        reason = lines[-1].strip() if type(error).__name__ == "MXNetError" else lines[0]
        return _fail(f"unexpected {type(error).__name__}: {reason} (bertsym --verbose shows where)", 1)


def _fail(message: str, code: int) -> int:
    click.echo(f"Error: {one_line(message)}", err=True)
    return code


class _Stopped(BaseException):
    """A signal as an exception, so that temporary files are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    pending: list[int] = []
    raised = -_CLEARING_UP

    def stop(number: int, frame: Any) -> None:
        nonlocal raised
        if time.monotonic() - raised < _CLEARING_UP:
            return
        # Python drops an exception that is raised in a destructor, and mxnet's arrays have one: try again later.
        while frame is not None:
            if frame.f_code.co_name == "__del__":
                pending[:] = [number]
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                return
            frame = frame.f_back
        raised = time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else _Stopped(number)

    def retry(_: int, frame: Any) -> None:
        stop(pending[0], frame)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup
        numbers.remove(signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in numbers}
    previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, retry)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
