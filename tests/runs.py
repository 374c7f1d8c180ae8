"""Fine-tuning runs of the tiny BERT that can be stopped and repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Tables

from bertsym import CheckpointOptions, FinetuneOptions, finetune
from bertsym.events import DevEvaluated, Event, Listener, StepDone

# 90 rows: 6 steps an epoch, the last one short.
OPTIONS = FinetuneOptions(epochs=3, batch_size=16, learning_rate=2e-3, max_length=24)


class Killed(BaseException):
    """Ends a run like kill -9: no handler of the run catches it."""


class Recorder:
    """A listener that records all events, and performs an action at a step."""

    def __init__(self, step: int = 0, action: Callable[[], object] = lambda: None) -> None:
        self._step, self._action = step, action
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepDone) and event.step == self._step:
            self._action()

    @property
    def notes(self) -> list[str]:
        return [str(event) for event in self.events]

    @property
    def steps(self) -> list[tuple[int, float]]:
        return [(event.step, event.loss) for event in self.events if isinstance(event, StepDone)]

    @property
    def evaluations(self) -> list[DevEvaluated]:
        return [event for event in self.events if isinstance(event, DevEvaluated)]


def kill() -> None:
    raise Killed


def files(prefix: Path) -> dict[str, bytes]:
    """The bundle's files by name without the prefix; the folder must not have other files."""
    assert [path for path in prefix.parent.iterdir() if not path.name.startswith(f"{prefix.name}-")] == []
    return {path.name.removeprefix(prefix.name): path.read_bytes() for path in prefix.parent.iterdir()}


def checkpoints(prefix: Path) -> list[str]:
    folder = prefix.with_name(f"{prefix.name}-checkpoints")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


_uninterrupted: dict[str, tuple[Recorder, dict[str, bytes]]] = {}


@dataclasses.dataclass
class Run:
    """A run that can be started several times."""

    base: Path
    tables: Tables
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "x"

    def __call__(
        self,
        on_event: Listener = lambda event: None,
        options: FinetuneOptions = OPTIONS,
        force: bool = False,
        **checkpoints: Any,
    ) -> Any:
        return finetune(
            self.base,
            self.tables.train,
            self.tables.dev,
            self.out,
            options=options,
            checkpoints=CheckpointOptions(**checkpoints),
            on_event=on_event,
            force=force,
        )

    @property
    def arguments(self) -> list[str]:
        """The arguments of the command line."""
        tables = ["--train", str(self.tables.train), "--dev", str(self.tables.dev)]
        return ["finetune", str(self.base), str(self.out), *tables]

    def stopped(self, step: int, **more: Any) -> None:
        """Run until a step, and stop there as if killed."""
        with pytest.raises(Killed):
            self(Recorder(step, kill), **more)

    def uninterrupted(self, **changes: Any) -> tuple[Recorder, dict[str, bytes]]:
        """The reports and files of an uninterrupted run with OPTIONS and `changes`, computed once for all tests."""
        key = repr(sorted(changes.items()))
        if key not in _uninterrupted:
            recorder, other = Recorder(), self.elsewhere("uninterrupted")
            other(recorder, options=dataclasses.replace(OPTIONS, **changes))
            _uninterrupted[key] = recorder, files(other.out)
        return _uninterrupted[key]

    def elsewhere(self, name: str) -> Run:
        folder = self.folder.parent / name
        folder.mkdir()
        return dataclasses.replace(self, folder=folder)
