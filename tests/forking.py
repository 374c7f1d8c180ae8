"""Runs command lines, each in a process of its own that forks from this one and so need not import bertsym again.

A line of JSON each on standard input, {"folder": ..., "arguments": [...], "seconds": ...}; and on standard output.
mxnet is not imported here: a command that needs it imports it in its own process.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time

from bertsym.cli import main
from bertsym.cli.group import COMMANDS

for name in COMMANDS:
    importlib.import_module(f"bertsym.cli.{name}")
for name in ("inspection.report", "inspection.text", "surgery.lower", "exporting", "inference.predict", "verification"):
    importlib.import_module(f"bertsym.{name}")
assert "mxnet" not in sys.modules


def run(folder: str, arguments: list[str]) -> None:
    """The command line of this process, which is a new one; what it says goes to the file stderr."""
    os.chdir(folder)
    for file, descriptor in ((os.devnull, 1), ("stderr", 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = ["bertsym", *arguments]
    main()


def wait(child: int, seconds: float) -> dict[str, float]:
    """How it ended, killed after so many seconds; the time of it and of all that it started, and the largest memory."""
    began = time.monotonic()
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        took = time.monotonic() - began
        if pid:
            code, worked = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            return {"code": code, "seconds": took, "worked": worked, "memory": usage.ru_maxrss * 1024}
        if took > seconds:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


while line := sys.stdin.readline():
    job = json.loads(line)
    child = os.fork()
    if not child:
        run(job["folder"], job["arguments"])
    print(json.dumps(wait(child, job["seconds"])), flush=True)
