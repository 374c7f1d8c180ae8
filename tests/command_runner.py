"""Command lines run in forked processes with limits, and what must hold of the end of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# On processors, and by the clock: a machine may have other work.
SECONDS, PATIENCE, MEMORY = 20, 90, 2 << 30
UNFORESEEN = ("Traceback", "Segmentation fault", "--verbose prints the traceback", "Warning", "out of memory")


@dataclass(frozen=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    error: str
    origin: tuple[str, ...]  #: functions of bertsym in which the error arose, the innermost first
    seconds: float
    worked: float  #: seconds on processors
    memory: int  #: the most bytes of it, or of a process that it started

    @property
    def fault(self) -> str | None:
        """What is wrong with how the command ended, whatever its input was."""
        lines = self.error.strip().splitlines()
        if self.code not in (0, 1, 2):
            return f"exit code {self.code}"
        if any(word in self.error for word in UNFORESEEN):
            return "unforeseen error"
        if self.code and (not lines or not lines[-1].startswith("Error: ") or len(lines[-1]) > 2010):
            return "the error is not one line"
        if self.memory > MEMORY or self.worked > SECONDS:
            return f"{self.memory >> 20} MiB, {self.worked:.1f} s"
        return None


class Runner:
    """A process that runs commands, each in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", Path(__file__).with_name("forking.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # With one thread: a forked child has one worker of MXNet's engine, whose further threads spin between
            # the operators of small models, for several times as long as these take.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )

    def run(self, folder: Path, *arguments: str, stdin: bytes = b"") -> Run:
        """Run ``bertsym ARGUMENTS`` in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        origin = folder / "origin"
        origin.unlink(missing_ok=True)
        (folder / "stdin").write_bytes(stdin)
        job = {"folder": str(folder), "arguments": arguments, "seconds": PATIENCE}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        out, error = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return Run(out=out, error=error, origin=(*origin.read_text().split("\n"),) if origin.exists() else (), **ended)

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()
