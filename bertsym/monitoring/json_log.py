"""A log of the events of a run, as JSON Lines."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from bertsym.errors import UsageError
from bertsym.events import Event, RowsDone, StepDone
from bertsym.monitoring.step_groups import StepGroups


class JsonLog:
    """A listener that writes one JSON object per line, as docs/events.schema.json describes, and flushes each line.

    Steps are in groups of a tenth of an epoch, with their mean loss and gradient norm. The file is created by the first
    event; without a `path` the lines are written to standard error. An existing file is overwritten with `force`, or
    extended with `append`. If a line cannot be written, `on_failure` is called with a message, and the remaining events
    are not logged. Raises UsageError if the file exists, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path | None,
        force: bool = False,
        append: bool = False,
        on_failure: Callable[[str], object] = lambda message: None,
    ) -> None:
        self._append = append
        self._on_failure, self._has_failed = on_failure, False
        self._file: FileIO | None = None
        self._steps = StepGroups()
        self._path = None if path is None else Path(path)
        if self._path is None:
            return
        if not self._path.parent.is_dir():
            raise UsageError(f"{path}: cannot write a log: the folder {self._path.parent} does not exist")
        if self._path.is_dir() or not os.access(self._path if self._path.exists() else self._path.parent, os.W_OK):
            raise UsageError(f"{path}: cannot write a log: not a writable file")
        if self._path.exists() and not (force or append):
            raise UsageError(f"{path} exists: choose another log file, or overwrite it with --force")

    def close(self) -> None:
        """Close the file, if anything was written."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def __call__(self, event: Event) -> None:
        """Write a line for an event: for a step the last of its group, for rows that are done none."""
        if isinstance(event, StepDone):
            if group := self._steps.completed_by(event):
                self._write(group)
        elif not isinstance(event, RowsDone):
            self._write(event)

    def _write(self, event: Event) -> None:
        if self._has_failed:
            return
        line = json.dumps(event.to_json()) + "\n"
        try:
            if self._path is None:
                sys.stderr.write(line)
                sys.stderr.flush()
                return
            if self._file is None:
                self._file = self._path.open("ab" if self._append else "wb", buffering=0)
            # One call of the system for each line: a killed process leaves whole lines.
            if self._file.write(line.encode()) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._has_failed = True
            self._on_failure(f"{self._path}: cannot write the log: {error.strerror}; the run continues without it")
