"""The command line that is being run and the versions of the libraries, for manifests, reports and logs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from bertsym.compat.installing import installed_version

# On which written files, or what is known of them, depend
_LIBRARIES = ("bertsym", "mxnet", "gluonnlp", "numpy", "onnx", "onnxruntime", "tokenizers")

_again: ContextVar[list[str] | None] = ContextVar("again", default=None)
_command: ContextVar[list[str] | None] = ContextVar("command", default=None)


def current_command() -> list[str] | None:
    """The words of the command line that is being run; None where a program calls the library."""
    return _command.get()


def repeat_command() -> list[str] | None:
    """The words to type to run the command line again; None where a program calls the library."""
    return _again.get()


@contextlib.contextmanager
def recording(command: list[str], again: list[str]) -> Iterator[None]:
    """Record `command` in the manifest of every bundle that the body writes, and `again` in its reports."""
    tokens = _command.set(command), _again.set(again)
    try:
        yield
    finally:
        _command.reset(tokens[0])
        _again.reset(tokens[1])


def installed_versions() -> dict[str, str]:
    """Return the versions of bertsym and of the installed libraries that it uses."""
    versions = {name: installed_version(name) for name in _LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}
