"""The events of a command: on standard error while it runs, and in logs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertsym.cli.command import Decorator, command_words, option
from bertsym.cli.failures import NoReaderError, Stopped, describe_failure
from bertsym.cli.options import FILE
from bertsym.terminal import one_line

if TYPE_CHECKING:
    from bertsym.events import Event, EventStream, Listener

STANDARD_ERROR = "-"


@dataclass(frozen=True)
class Logs:
    """Where the events of a command are logged."""

    log_json: str | None
    tensorboard: str | None = None
    append: bool = False  #: to existing logs


def log_json_option(existing: str) -> Decorator[Any]:
    """``--log-json``; `existing` describes what happens to an existing file."""
    return option(
        "--log-json",
        group="Output",
        metavar="FILE",
        type=FILE,
        help="File for a log of the run, one JSON object per line: start and end, files, metrics, errors. With -, "
        "standard error, in place of the progress text. {existing}",
    )


tensorboard_option = option(
    "--tensorboard",
    group="Output",
    metavar="DIR",
    type=FILE,
    help="Folder for TensorBoard logs of loss, learning rate, gradient norm, speed and the metrics on --dev; with "
    "--seeds, a subfolder for each seed. Needs tensorboardX: pip install 'bertsym[tensorboard]'. With --resume, the "
    "curves are continued. Otherwise existing event files are an error; --force removes them.",
)


@contextlib.contextmanager
def run_events(
    logs: Logs,
    *,
    files: Iterable[str | None] = (),
    bundles: Iterable[str] = (),
    force: bool = False,
    waits: bool = False,
    quiet: bool = False,
) -> Iterator[EventStream]:
    """Yield the events of a command, and send those of its start and its end.

    Args:
        logs: Where the events are logged, besides the progress on standard error.
        files: Files that a log must not overwrite; None is ignored.
        bundles: Prefixes of bundles that a log must not overwrite.
        force: Overwrite existing logs.
        waits: Send nothing before the first other event, since only one of several processes has events.
        quiet: Do not print the numbers of rows of the files.

    Raises UsageError for a log that cannot be written, and InstallationError without tensorboardX.
    """
    from bertsym.events import EventStream, RunEnded, RunFailed, RunStarted, Span, now, since
    from bertsym.provenance import installed_versions

    command, start, has_begun = tuple(command_words(click.get_current_context(), again=True)), now(), False
    with contextlib.ExitStack() as stack:
        _check_log(logs, files, bundles)
        listeners = EventStream(*_listeners(logs, force, quiet, stack))

        def begin() -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                listeners(RunStarted(Span(start, start), command, installed_versions()))

        def send(event: Event) -> None:
            begin()
            listeners(event)

        if not waits:
            begin()
        try:
            yield EventStream(send)
        except (NoReaderError, BrokenPipeError):  # exit code 0
            listeners(RunEnded(since(start)))
            raise
        except (Exception, KeyboardInterrupt, Stopped) as error:
            if has_begun:
                message, code = describe_failure(error)
                listeners(RunFailed(since(start), one_line(message), code))
            raise
        if has_begun:
            listeners(RunEnded(since(start)))


def _check_log(logs: Logs, files: Iterable[str | None], bundles: Iterable[str]) -> None:
    from bertsym.bundle import bundle_paths

    if logs.log_json is None or logs.log_json == STANDARD_ERROR:
        return
    paths = [Path(file) for file in files if file is not None]
    paths += [path for prefix in bundles if Path(prefix).name for path in bundle_paths(Path(prefix))]
    if Path(logs.log_json).resolve() in [path.resolve() for path in paths]:
        raise click.UsageError(f"--log-json {logs.log_json} would overwrite a file of this run.")


def _listeners(logs: Logs, force: bool, quiet: bool, stack: contextlib.ExitStack) -> list[Listener]:
    from bertsym.events import EventStream
    from bertsym.monitoring.display import TextDisplay
    from bertsym.monitoring.json_log import JsonLog
    from bertsym.monitoring.tensorboard_log import TensorBoardLog

    listeners: list[Listener] = [JsonLog(None) if logs.log_json == STANDARD_ERROR else TextDisplay(quiet=quiet)]
    on_failure = EventStream(*listeners).note
    if logs.log_json not in (None, STANDARD_ERROR):
        log = JsonLog(logs.log_json, force, logs.append, on_failure)
        listeners.append(stack.enter_context(contextlib.closing(log)))
    if logs.tensorboard is not None:
        scalars = TensorBoardLog(logs.tensorboard, force, logs.append, on_failure)
        listeners.append(stack.enter_context(contextlib.closing(scalars)))
    return listeners
