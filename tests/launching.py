"""Runs of scripts/launch_local, whose processes are killed at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

LAUNCHER = Path(__file__).parents[1] / "scripts" / "launch_local"
QUIET = {"PYTHONWARNINGS": "ignore"}
DEADLOCK = 600  # seconds after which a process counts as deadlocked; no test waits so long unless it fails


Launch = Callable[..., "subprocess.Popen[str]"]


@contextlib.contextmanager
def launching() -> Iterator[Launch]:
    """A function that starts launch_local; all of its processes are killed at the end."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def start(workers: int, *command: object, grace: float = DEADLOCK) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(LAUNCHER), "--grace", str(grace), str(workers), *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **QUIET},
        )
        timer = threading.Timer(DEADLOCK, end, [process])
        timer.start()
        started.append((process, timer))
        return process

    def end(process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(OSError):
            for child in children_of(process):
                os.killpg(child, signal.SIGKILL)
        process.kill()

    yield start
    for process, timer in started:
        timer.cancel()
        end(process)
        process.wait()
        assert process.stdout
        process.stdout.close()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=DEADLOCK)
    return out.splitlines()


def wait_for_line(launcher: subprocess.Popen[str], text: str) -> None:
    assert launcher.stdout
    assert any(text in line for line in launcher.stdout), f"no {text!r}"
