"""Fine-tuning with bertsym's library: seconds of epochs and steps, from its events."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from job import read_job, read_rows, write_result

import bertsym
from bertsym.events import DevEvaluated, EpochDone, Event, EventStream, Listener, StepDone
from bertsym.monitoring.json_log import JsonLog
from bertsym.monitoring.tensorboard_log import TensorBoardLog


class Clock:
    """Records the seconds of steps, epochs and evaluations."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.steps: list[float] = []
        self.dev: list[float] = []
        self.accuracy: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.steps.append(event.span.seconds)
        elif isinstance(event, EpochDone):
            self.epochs.append(event.span.seconds)
        elif isinstance(event, DevEvaluated):
            self.dev.append(event.span.seconds)
            self.accuracy.append(event.metrics["accuracy"])


def main() -> None:
    job = read_job()
    clock = Clock()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as logs:
        has_report = job.get("report", False)
        options = bertsym.FinetuneOptions(
            epochs=job["epochs"],
            batch_size=job["batch_size"],
            learning_rate=job["learning_rate"],
            max_length=job["max_length"],
            seed=job["seed"],
            freeze_encoder=job["frozen"],
            report=bertsym.ReportOptions(f"{folder}/report") if has_report else None,
        )
        listeners: list[Listener] = [clock]
        if has_report:
            listeners.append(logs.enter_context(contextlib.closing(JsonLog(f"{folder}/log.jsonl"))))
            listeners.append(logs.enter_context(contextlib.closing(TensorBoardLog(f"{folder}/scalars"))))
        out = Path(job.get("out") or f"{folder}/out")
        events = EventStream(*listeners)
        bertsym.finetune(job["prefix"], job["train"], job["dev"], out, options=options, force=True, on_event=events)
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
