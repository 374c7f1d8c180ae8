"""Fine-tunings of the tiny BERT that can be stopped and made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Tables

from bertsym import FinetuneOptions, finetune
from bertsym.training.loop import StepReport
from bertsym.training.progress import EpochReport, SilentProgress

# 90 rows: 6 steps an epoch, the last one short.
OPTIONS = FinetuneOptions(epochs=3, batch_size=16, learning_rate=2e-3, max_length=24)


class Gone(BaseException):
    """As kill -9: nothing that the run could still do is done."""


class At(SilentProgress):
    """Does something at a step, and notes what it hears."""

    def __init__(self, step: int = 0, action: Callable[[], object] = lambda: None) -> None:
        self._step, self._action = step, action
        self.notes: list[str] = []
        self.steps: list[tuple[int, float]] = []
        self.epochs: list[EpochReport] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, report: StepReport) -> None:
        self.steps.append((report.step, report.loss))
        if report.step == self._step:
            self._action()

    def epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)


def go() -> None:
    raise Gone


def files(prefix: Path) -> dict[str, bytes]:
    """The bundle's files by their names without the prefix; there is nothing else beside them."""
    assert [path for path in prefix.parent.iterdir() if not path.name.startswith(f"{prefix.name}-")] == []
    return {path.name.removeprefix(prefix.name): path.read_bytes() for path in prefix.parent.iterdir()}


def checkpoints(prefix: Path) -> list[str]:
    folder = prefix.with_name(f"{prefix.name}-checkpoints")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


_uninterrupted: dict[str, tuple[At, dict[str, bytes]]] = {}


@dataclasses.dataclass
class Run:
    """A run that can be made several times."""

    base: Path
    tables: Tables
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "x"

    def __call__(self, progress: SilentProgress | None = None, options: FinetuneOptions = OPTIONS, **more: Any) -> Any:
        return finetune(
            self.base, self.tables.train, self.tables.dev, self.out, options=options, progress=progress, **more
        )

    @property
    def arguments(self) -> list[str]:
        """As a command line."""
        tables = ["--train", str(self.tables.train), "--dev", str(self.tables.dev)]
        return ["finetune", str(self.base), str(self.out), *tables]

    def stopped(self, step: int, **more: Any) -> None:
        """Run until a step, and no further."""
        with pytest.raises(Gone):
            self(At(step, go), **more)

    def uninterrupted(self, **changes: Any) -> tuple[At, dict[str, bytes]]:
        """What a run with OPTIONS, changed, reports when nothing stops it, and its files; made once for all tests."""
        key = repr(sorted(changes.items()))
        if key not in _uninterrupted:
            heard, other = At(), self.elsewhere("uninterrupted")
            other(heard, options=dataclasses.replace(OPTIONS, **changes))
            _uninterrupted[key] = heard, files(other.out)
        return _uninterrupted[key]

    def elsewhere(self, name: str) -> Run:
        folder = self.folder.parent / name
        folder.mkdir()
        return dataclasses.replace(self, folder=folder)
