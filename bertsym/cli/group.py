"""The ``bertsym`` group: errors as one line and an exit code, commands imported when they are called."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from bertsym.errors import BertsymError

# name -> one line for the group's help; each is a module of this folder with a command `command`.
COMMANDS = {
    "export": "Write a pretrained BERT as a bundle of MXNet files.",
    "verify": "Check a written bundle against GluonNLP's own BERTModel.",
    "finetune": "Graft a classifier onto an exported BERT and fit it.",
    "evaluate": "Measure a classifier on a labelled table.",
    "predict": "Classify texts.",
}


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
    bertsym finetune out/base --train train.tsv --dev dev.tsv --out out/classifier
    bertsym predict out/classifier --text "..." --text-pair "..."
    """


def main() -> NoReturn:
    """Run the command line and exit: 0, 1 for data or model faults, 2 for usage, 130 or 143 when stopped."""
    with _terminable():
        sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors are printed, one line each."""
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    try:
        result = cli.main(arguments, prog_name="bertsym", obj=arguments, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BertsymError as error:
        return _fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except _Terminated:
        return _fail("terminated", 143)
    except BrokenPipeError:
        # The reader has enough; what Python flushes at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory; try a smaller --batch-size or --max-length", 1)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        reason = (str(error).strip().splitlines() or [""])[0]
        return _fail(f"unexpected {type(error).__name__}: {reason} (bertsym --verbose shows where)", 1)


def _fail(message: str, code: int) -> int:
    click.echo(f"Error: {message}", err=True)
    return code


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that temporary files are removed."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    def terminate(*_: Any) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
