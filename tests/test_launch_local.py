"""scripts/launch_local: labels, exit codes, and signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import DEADLOCK, LAUNCHER, Launch, finish, wait_for_line


def test_the_launcher_labels_lines_and_returns_the_highest_exit_code(launch: Launch) -> None:
    run = launch(2, "sh", "-c", "echo $DMLC_NUM_SERVER; exit $((${DMLC_WORKER_ID:--3} + 3))")
    lines = finish(run)
    assert sorted(lines) == ["scheduler | 1", "server 0 | 1", "worker 0 | 1", "worker 1 | 1"]
    assert run.returncode == 4


@pytest.mark.parametrize("arguments", [("0", "true"), ("2",), ("two", "true")])
def test_the_launcher_refuses_invalid_arguments(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, str(LAUNCHER), *arguments], capture_output=True, text=True, timeout=DEADLOCK)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_launcher_forwards_signals_and_kills_processes_that_do_not_end(launch: Launch, tmp_path: Path) -> None:
    """The grace period starts when the others fail, which is after the worker has received the signal."""
    received = tmp_path / "received"
    worker = f'trap "echo no; touch {received}" TERM'
    others = f'trap "until [ -e {received} ]; do sleep 0.1; done; exit 1" TERM'
    script = f"if [ $DMLC_ROLE = worker ]; then {worker}; else {others}; fi; echo here; while :; do sleep 0.1; done"
    run = launch(1, "sh", "-c", script, grace=0.5)
    for _ in range(3):
        wait_for_line(run, "here")
    run.send_signal(signal.SIGTERM)
    assert "worker 0 | no" in finish(run)
    assert run.returncode == 128 + signal.SIGKILL


def test_the_launcher_continues_if_its_output_is_closed(launch: Launch) -> None:
    run = launch(2, "sh", "-c", "yes | head -n 50000")
    assert run.stdout
    assert run.stdout.readline()
    run.stdout.close()
    assert run.wait(DEADLOCK) == 0


def test_a_second_signal_to_the_launcher_kills_processes_that_do_not_end(launch: Launch) -> None:
    run = launch(1, "sh", "-c", "trap '' TERM; echo here; while :; do sleep 0.1; done", grace=0.3)
    for _ in range(3):
        wait_for_line(run, "here")
    run.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(0.8)
    run.send_signal(signal.SIGTERM)
    assert run.wait(DEADLOCK) == 128 + signal.SIGKILL


def test_the_launcher_does_not_wait_for_a_scheduler_that_does_not_end(launch: Launch) -> None:
    run = launch(2, "sh", "-c", "[ $DMLC_ROLE = worker ] || sleep 10000", grace=0.5)
    assert run.wait(DEADLOCK) == 128 + signal.SIGKILL
