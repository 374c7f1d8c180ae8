"""A log of the scalars of a training run, for TensorBoard."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bertsym.errors import InstallationError, UsageError
from bertsym.events import DevEvaluated, Event, Resumed, SeedStarted, StepDone

_EVENT_FILES = "events.out.tfevents.*"


class TensorBoardLog:
    """A listener that writes event files, flushed after every step.

    The scalars of a step are ``train/loss``, ``train/learning_rate``, ``train/gradient_norm`` and
    ``train/samples_per_second``; the scalars of an evaluation are ``dev/`` and the names of the metrics. Where a run
    has several seeds, each seed has a folder, ``seed-N``. Nothing is written before the first event.

    With `append`, a resumed run replaces the steps of earlier event files that it repeats; with `force`, earlier event
    files are removed. If a file cannot be written, `on_failure` is called with a message, and the remaining events are
    not logged.

    Raises:
        InstallationError: tensorboardX is not installed.
        UsageError: `folder` cannot be written to, or has event files, without `force` and `append`.
    """

    def __init__(
        self,
        folder: str | Path,
        force: bool = False,
        append: bool = False,
        on_failure: Callable[[str], object] = lambda message: None,
    ) -> None:
        self._folder, self._append = Path(folder), append
        self._on_failure, self._has_failed = on_failure, False
        self._subfolder, self._writer = "", None
        if importlib.util.find_spec("tensorboardX") is None:
            raise InstallationError(
                "tensorboardX, which writes TensorBoard logs, is not installed: pip install "
                "'bertsym[tensorboard]', or omit --tensorboard"
            )
        self._earlier = self._find_event_files()
        if self._earlier and not (force or append):
            raise UsageError(
                f"{folder} has the event files of another run: choose another folder, or overwrite them with --force"
            )
        parent = next(path for path in (self._folder, *self._folder.absolute().parents) if path.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise UsageError(f"{folder}: cannot write TensorBoard logs: {parent} is not a writable folder")

    def _find_event_files(self) -> list[Path]:
        return sorted([*self._folder.glob(_EVENT_FILES), *self._folder.glob(f"seed-*/{_EVENT_FILES}")])

    def close(self) -> None:
        """Close the event file, if anything was written."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    def __call__(self, event: Event) -> None:
        """Write the scalars of a step or of an evaluation."""
        if isinstance(event, SeedStarted):
            self.close()
            self._subfolder = f"seed-{event.seed}"
        elif isinstance(event, StepDone):
            names = ("loss", "learning_rate", "gradient_norm", "samples_per_second")
            self._write(event, event.step, {f"train/{name}": getattr(event, name) for name in names})
        elif isinstance(event, DevEvaluated):
            self._write(event, event.step, {f"dev/{name}": value for name, value in event.metrics.items()})
        elif isinstance(event, Resumed):
            self._write(event, event.step + 1, {}, restarts=True)

    def _write(self, event: Event, step: int, scalars: Mapping[str, float], *, restarts: bool = False) -> None:
        """Write scalars; with `restarts`, let TensorBoard drop what earlier files have from `step` on."""
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.summary import scalar

        if self._has_failed:
            return
        records = [Record(wall_time=event.span.end, step=step, summary=scalar(*item)) for item in scalars.items()]
        if restarts:
            records.append(Record(wall_time=event.span.end, step=step, session_log=SessionLog(status=SessionLog.START)))
        try:
            writer = self._open()
            for record in records:
                writer.write_event(record)
            writer.flush()
        except OSError as error:
            self._has_failed = True
            self._on_failure(
                f"{self._folder}: cannot write TensorBoard logs: {error.strerror}; the run continues without"
            )

    def _open(self) -> Any:
        # Not SummaryWriter: its thread ends on a full disk, and the training would then wait for ever.
        from tensorboardX.event_file_writer import EventsWriter

        if self._writer is None:
            if not self._append:
                for path in self._earlier:
                    path.unlink()
                self._earlier = []
            folder = self._folder / self._subfolder
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        return self._writer
