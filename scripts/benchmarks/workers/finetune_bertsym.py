"""Fine-tuning with bertsym's library: seconds of epochs and steps, measured by a progress receiver."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from job import read_job, read_rows, write_result

import bertsym


class Clock:
    """Records when steps and epochs end. The first epoch starts at the last note before its first step."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.steps: list[float] = []
        self.dev: list[float] = []
        self.accuracy: list[float] = []
        self._begun = self._last = time.perf_counter()

    def note(self, text: str) -> None:
        if not self.steps:
            self._begun = self._last = time.perf_counter()

    def step(self, report: Any) -> None:
        now = time.perf_counter()
        self.steps.append(now - self._last)
        self._last = now

    def evaluated(self, rows: int, total: int) -> None:
        pass

    def evaluation(self, report: Any) -> None:
        now = time.perf_counter()
        self.epochs.append(self._last - self._begun)
        self.dev.append(now - self._last)
        self.accuracy.append(report.metrics["accuracy"])
        self._begun = self._last = now


def main() -> None:
    job = read_job()
    clock = Clock()
    start = time.perf_counter()
    options = bertsym.FinetuneOptions(
        epochs=job["epochs"],
        batch_size=job["batch_size"],
        learning_rate=job["learning_rate"],
        max_length=job["max_length"],
        seed=job["seed"],
        freeze_encoder=job["frozen"],
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(job.get("out") or f"{folder}/out")
        bertsym.finetune(job["prefix"], job["train"], job["dev"], out, options=options, force=True, progress=clock)
    write_result(
        epoch_seconds=clock.epochs,
        step_seconds=clock.steps,
        dev_seconds=clock.dev,
        accuracy=clock.accuracy,
        whole_seconds=time.perf_counter() - start,
        rows=len(read_rows(job["train"])),
    )


if __name__ == "__main__":
    main()
