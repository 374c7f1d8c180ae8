"""The command line that is being run, for the manifests of the bundles that it writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_command: ContextVar[list[str] | None] = ContextVar("command", default=None)


def current_command() -> list[str] | None:
    """The words of the command line that is being run; None where a program calls the library."""
    return _command.get()


@contextlib.contextmanager
def recording(command: list[str]) -> Iterator[None]:
    """Record `command` in the manifest of every bundle that the body writes."""
    token = _command.set(command)
    try:
        yield
    finally:
        _command.reset(token)
