"""The line and the exit code with which a command ends, for each exception."""

from __future__ import annotations

import signal

import click

from bertsym.errors import BertsymError


class Stopped(BaseException):
    """A signal as an exception, so that temporary files are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class NoReaderError(Exception):
    """The program that read the output has ended."""


def is_unexpected(error: BaseException) -> bool:
    """Whether an exception is a fault of bertsym or of a library."""
    expected = (click.ClickException, click.Abort, BertsymError, Stopped, KeyboardInterrupt, MemoryError, OSError)
    return not isinstance(error, expected) and _missing_package(error) is None


def describe_failure(error: BaseException) -> tuple[str, int]:
    """Return the message for an exception that ends a command, and the exit code."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "bertsym"
        return f"{error.format_message()} See {command} --help", error.exit_code
    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, (BertsymError, Stopped)):
        return str(error), error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return "interrupted", 130
    if isinstance(error, MemoryError):
        return "out of memory", 1
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}", 1
    if package := _missing_package(error):
        from bertsym.compat.installing import install_command

        return f"{package} is not installed; run: {install_command(package)}", 1
    lines = str(error).strip().splitlines() or [""]
    # libmxnet's message ends its own traceback.
    reason = lines[-1].strip() if type(error).__name__ == "MXNetError" else lines[0]
    return f"unexpected {type(error).__name__}: {reason} (bertsym --verbose prints the traceback)", 1


def _missing_package(error: BaseException) -> str | None:
    """Return the required package whose absence an exception reports, or None."""
    from bertsym.compat.installing import OLDEST_VERSIONS

    return error.name if isinstance(error, ModuleNotFoundError) and error.name in OLDEST_VERSIONS else None
