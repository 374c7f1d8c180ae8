"""What happens in a run, as typed events: the display, the logs and the reports are listeners of the same stream."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

# Of the wall clock over the monotonic one: a clock that is set during a run does not give negative durations.
_CLOCK_OFFSET = time.time() - time.perf_counter()


def now() -> float:
    """Return the time in seconds since 1970-01-01 UTC; it never decreases within a process."""
    return _CLOCK_OFFSET + time.perf_counter()


@dataclass(frozen=True)
class Span:
    """When something began and ended, in seconds since 1970-01-01 UTC."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.end - self.start


def since(start: float) -> Span:
    """Return the span from `start`, a value of `now`, to now."""
    return Span(start, now())


def instant() -> Span:
    """Return the span of something that takes no time."""
    moment = now()
    return Span(moment, moment)


@dataclass(frozen=True)
class Event:
    """Something that happened in a run; a subclass for each kind."""

    kind: ClassVar[str]  #: the value of ``event`` in a log

    span: Span

    def to_json(self) -> dict[str, Any]:
        """Return kind, times and fields as a JSON object; fields that are None are omitted."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["span"]
        return {
            "event": self.kind,
            "start": _iso(self.span.start),
            "end": _iso(self.span.end),
            "seconds": round(self.span.seconds, 6),
            **{name: _finite(value) for name, value in fields.items() if value is not None},
        }


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite, which JSON does not have, with None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return {key: _finite(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _iso(seconds: float) -> str:
    """Format a time as ISO 8601 in UTC, with microseconds."""
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


Listener = Callable[[Event], object]


class EventStream:
    """Sends each event to all listeners, in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def __call__(self, event: Event) -> None:
        """Send an event."""
        for listener in self._listeners:
            listener(event)

    def note(self, text: str) -> None:
        """Send a message of one line."""
        self(Note(instant(), text))

    def progress(self, activity: str, file: str | None = None) -> Callable[[int, int | None], object]:
        """Return a function that sends the number of rows of an activity that are done, and of all, if it is known."""
        started = now()
        return lambda rows, total: self(RowsDone(since(started), activity, rows, total, file))

    def counter(self, activity: str, total: int | None, file: str | None = None) -> Callable[[int], object]:
        """Return a function that sends the progress of an activity, and is called with the rows of each batch."""
        send, done = self.progress(activity, file), 0

        def add(rows: int) -> None:
            nonlocal done
            done += rows
            send(done, total)

        return add


# The run


@dataclass(frozen=True)
class RunStarted(Event):
    """A command began."""

    kind = "run_started"

    command: tuple[str, ...]  #: words of the command line
    versions: Mapping[str, str]  #: library -> version


@dataclass(frozen=True)
class RunEnded(Event):
    """A command ended without an error; the span is that of the whole run."""

    kind = "run_ended"


@dataclass(frozen=True)
class RunFailed(Event):
    """A command ended with an error or a signal; the span is that of the whole run."""

    kind = "run_failed"

    error: str  #: the message, of one line
    exit_code: int


@dataclass(frozen=True)
class Note(Event):
    """A message of one line."""

    kind = "note"

    text: str

    def __str__(self) -> str:
        return self.text


# Files and passes over them


@dataclass(frozen=True)
class RowsDone(Event):
    """Rows that are done since the start of an activity; the last event of an activity has all rows."""

    kind = "rows"

    activity: str  #: ``tokenising``, ``encoding`` by a frozen encoder, ``evaluating``, ``predicting`` or ``embedding``
    rows: int
    total: int | None  #: None if it is not known
    file: str | None = None

    def __str__(self) -> str:
        of_all = f" of {self.total}" if self.total is not None else ""
        name = f" {self.file}" if self.file is not None else ""
        speed = self.rows / self.span.seconds if self.span.seconds > 0 else 0.0
        left = f"  {timedelta(seconds=round((self.total - self.rows) / speed))} left" if self.total and speed else ""
        return f"{self.activity}{name}: {self.rows}{of_all} rows  {speed:.1f} rows/s{left}"


@dataclass(frozen=True)
class FileTokenised(Event):
    """A file was read and tokenised."""

    kind = "tokenised"

    file: str
    rows: int
    windows: int  #: a long text that is cut into overlapping windows has several, any other has one
    truncated: int  #: rows that were cut to `max_length`
    max_length: int  #: tokens
    left_out: int  #: rows that can't be read
    dropped_labels: Mapping[str, int]  #: label whose rows are dropped -> number of rows
    sha256: str  #: of the bytes of the file

    def __str__(self) -> str:
        parts = [f"{self.rows} rows" + (f" in {self.windows} windows" if self.windows > self.rows else "")]
        parts += [f"{self.truncated} truncated to {self.max_length} tokens"] if self.truncated else []
        parts += [f"{self.left_out} left out"] if self.left_out else []
        parts += [f"{count} dropped with the label {label!r}" for label, count in self.dropped_labels.items()]
        return f"{self.file}: {', '.join(parts)}"


@dataclass(frozen=True)
class Evaluated(Event):
    """A model was evaluated on a labelled file."""

    kind = "evaluated"

    model: str  #: prefix of the bundle
    file: str
    rows: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TextsProcessed(Event):
    """A model computed an answer or a vector for each text of a file or stream."""

    kind = "processed"

    activity: str  #: ``predicting`` or ``embedding``
    model: str  #: prefix of the bundle
    file: str | None  #: None for a text of the command line, and for standard input
    rows: int
    truncated: int
    left_out: int  #: rows that can't be read


# Training


@dataclass(frozen=True)
class SeedStarted(Event):
    """One of several runs began, each with its seed; their epochs and steps count from 1 again."""

    kind = "seed_started"

    seed: int
    number: int  #: from 1
    seeds: int

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.number} of {self.seeds}"


@dataclass(frozen=True)
class Resumed(Event):
    """Training continues after a step of an earlier process."""

    kind = "resumed"

    step: int
    total_steps: int

    def __str__(self) -> str:
        return f"resuming after step {self.step} of {self.total_steps}"


@dataclass(frozen=True)
class StepDone(Event):
    """A step of the optimizer, numbered from 1."""

    kind = "step"

    epoch: int
    epochs: int  #: of the run, unless it stops early
    step: int
    step_in_epoch: int
    steps_in_epoch: int
    loss: float  #: mean of the batch
    learning_rate: float
    gradient_norm: float  #: of the mean gradient of all parameters, before clipping
    samples_per_second: float  #: since the last pause
    steps: int = 1  #: that this event stands for, the last of which is `step`; then loss and norm are means

    @property
    def total_steps(self) -> int:
        """Number of steps of the run, unless it stops early."""
        return self.steps_in_epoch * self.epochs


@dataclass(frozen=True)
class EpochDone(Event):
    """All steps of an epoch are done."""

    kind = "epoch"

    epoch: int
    epochs: int
    step: int
    loss: float  #: mean over the samples of the epoch
    learning_rate: float
    samples_per_second: float


@dataclass(frozen=True)
class DevEvaluated(Event):
    """The parameters after a step were evaluated on the dev file."""

    kind = "dev_evaluated"

    file: str
    rows: int
    epoch: int
    epochs: int
    step: int
    loss: float  #: mean training loss of the epoch so far
    learning_rate: float
    samples_per_second: float  #: of the training
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """A checkpoint was written."""

    kind = "checkpoint"

    step: int
    path: str


@dataclass(frozen=True)
class StoppedEarly(Event):
    """Training stopped before its last epoch, since `patience` evaluations had no better metric."""

    kind = "stopped_early"

    step: int
    total_steps: int
    metric: str
    patience: int

    def __str__(self) -> str:
        return f"stopped early: no better {self.metric} in {self.patience} evaluations"


@dataclass(frozen=True)
class BestKept(Event):
    """The parameters with the best metric, which are written."""

    kind = "kept"

    epoch: int
    epochs: int
    step: int
    seed: int
    metrics: Mapping[str, float]  #: on the dev file, with tuned settings


# Results


@dataclass(frozen=True)
class Verified(Event):
    """A comparison of what is written with a reference."""

    kind = "verified"

    check: str  #: what was compared
    relative_difference: float  #: ``max |output - reference| / max |reference|``


@dataclass(frozen=True)
class Written(Event):
    """Files appeared at their place."""

    kind = "written"

    path: str  #: prefix of a bundle, or path of a file
    files: Mapping[str, str] | None = None  #: of a bundle: name without the prefix -> SHA-256
