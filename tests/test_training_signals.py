"""After a signal a training run finishes its step, writes a checkpoint, and prints how to resume."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import BERTSYM, HEED_HANG_UP, IGNORE_HANG_UP, beginning_with
from conftest import Result, Tables
from runs import Recorder, Run, checkpoints, files

from bertsym import TrainingStopped

DEADLOCK = 600  # seconds after which a process counts as deadlocked; no test waits so long unless it fails


@pytest.fixture
def run(bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> Run:
    (tmp_path / "run").mkdir()
    return Run(bundles["cls"], tables, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_after_its_step_with_a_checkpoint(run: Run, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    recorder = Recorder(8, lambda: os.kill(os.getpid(), number))
    with pytest.raises(
        TrainingStopped, match=f"stopped by {number.name} after step .* of 18; newest checkpoint: "
    ) as stopped:
        run(recorder)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    # One step is computed while the previous one is reported.
    last = recorder.steps[-1][0]
    assert last in (9, 10)
    assert checkpoints(run.out) == [f"checkpoint-{last}"]
    run(resume=True)
    assert files(run.out) == run.uninterrupted()[1]


@pytest.fixture
def sigint_interrupts() -> Iterator[None]:
    """Handle SIGINT as Python does by default, even in a background process, which ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("sigint_interrupts")
def test_a_second_signal_stops_the_run_at_once(run: Run) -> None:
    def twice() -> None:
        deferring = signal.getsignal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is deferring:  # Python runs handlers some instructions later
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        time.sleep(DEADLOCK)  # is interrupted; an interrupt in a destructor would be lost

    recorder = Recorder(8, twice)
    with pytest.raises(KeyboardInterrupt):
        run(recorder)
    assert recorder.steps[-1][0] == 8
    assert checkpoints(run.out) == ["checkpoint-6"]


@contextlib.contextmanager
def process_in_epoch_2(run: Run, options: list[str], beginning: str) -> Iterator[subprocess.Popen[str]]:
    """A fine-tuning process in its second epoch, with a shell command before it that sets how SIGHUP is handled."""
    with subprocess.Popen(
        beginning_with(beginning, [*BERTSYM, *run.arguments, *options]),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2"):
                break
        yield process
        process.kill()


@pytest.mark.parametrize("ends", ["2>/dev/full", "2>&1 | head -n 1", "<&- >&- 2>&-"])
def test_a_run_continues_if_its_output_cannot_be_written(run: Run, ends: str) -> None:
    command = shlex.join([*BERTSYM, *run.arguments, "--epochs", "1", "--max-length", "24"])
    shell = ["bash", "-o", "pipefail", "-c", f"{command} {ends}"]
    done = subprocess.run(shell, stdout=subprocess.PIPE, timeout=DEADLOCK)
    assert done.returncode == 0
    assert "-0000.params" in files(run.out)


def test_a_run_continues_if_its_log_cannot_be_written(cli: Callable[..., Result], run: Run) -> None:
    done = cli(*run.arguments, "--epochs", 1, "--max-length", 24, "--log-json", "/dev/full", "--force")
    assert done.code == 0
    message = "/dev/full: cannot write the log: No space left on device; the run continues without it"
    assert done.err.splitlines().count(message) == 1


def test_a_run_under_nohup_ignores_sighup(run: Run) -> None:
    with process_in_epoch_2(run, ["--epochs", "3000", "--max-length", "24"], IGNORE_HANG_UP) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert [process.stderr.readline().startswith("epoch ") for _ in range(10)] == [True] * 10
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=DEADLOCK)
    assert "stopped by SIGTERM" in rest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_command_line_prints_how_to_resume(run: Run, number: signal.Signals, code: int) -> None:
    options = ["--max-length", "24", "--epochs", "300", "--batch-size", "16"]  # in the order of --help
    with process_in_epoch_2(run, options, HEED_HANG_UP) as process:
        process.send_signal(number)
        _, rest = process.communicate(timeout=DEADLOCK)
    assert process.returncode == code
    assert "Traceback" not in rest
    assert [path.name for path in run.folder.iterdir()] == ["x-checkpoints"]
    message = rest.splitlines()[-1]
    (kept,) = checkpoints(run.out)
    step = kept.rpartition("-")[2]
    assert message == (
        f"Error: stopped by {number.name} after step {step} of 1800; newest checkpoint: {run.out}-checkpoints/{kept}; "
        f"resume with: {shlex.join(['bertsym', *run.arguments, *options, '--resume'])}"
    )


def test_a_run_that_is_interrupted_at_its_end_prints_how_to_resume(
    cli: Callable[..., Result], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bertsym.training.finetune.verify_bundle", interrupted)
    result = cli(*run.arguments, "--epochs", 1)
    again = shlex.join(["bertsym", *run.arguments, "--epochs", "1", "--resume"])
    assert result.code == 130
    last = [f"kept: {run.out}-checkpoints; resume with: {again}", "", "Error: interrupted"]
    assert result.err.splitlines()[-3:] == last


def test_many_signals_are_handled_like_one(run: Run) -> None:
    with process_in_epoch_2(run, ["--epochs", "300", "--max-length", "24"], HEED_HANG_UP) as process:
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
        _, rest = process.communicate(timeout=DEADLOCK)
    assert process.returncode in (143, -signal.SIGTERM)  # the last ones come when nobody listens any more
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("Error: stopped by SIGTERM")


def test_a_signal_in_a_destructor_is_not_delivered_after_the_end() -> None:
    program = """
import signal, time
from bertsym.cli.group import _stoppable
class Array:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
with _stoppable():
    Array()
time.sleep(0.1)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=DEADLOCK).returncode == 0
