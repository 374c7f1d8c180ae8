"""Errors for users; the command line prints each as one line and exits with its code."""

from __future__ import annotations

from collections.abc import Sequence


class BertsymError(Exception):
    """A fault in the data, the model or the machine; exit code 1."""

    exit_code = 1


class InstallationError(BertsymError):
    """A library that the work needs is missing, or can't be loaded on this machine."""


class DataError(BertsymError):
    """A fault in a table, a vocabulary or a text."""


class ModelError(BertsymError):
    """A fault in weights, a configuration, a symbol or a bundle."""


class VerificationError(ModelError):
    """The output does not compute what its source does."""


class UsageError(BertsymError):
    """A fault in the call: an option, a combination of options, an existing target; exit code 2."""

    exit_code = 2


class TrainingStopped(BertsymError):
    """A signal stopped a training run after its checkpoint was written; the exit code is 128 plus the signal number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def join_names(names: Sequence[str], most: int = 20) -> str:
    """Join names for a message; those after the first `most` are counted."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
