"""Runs command lines, each in a process of its own that forks from this one and so need not import mxnet again.

Reads a line of JSON for each on standard input, {"folder": ..., "arguments": [...], "seconds": ...}, and answers in one
on standard output. The standard input of the command is the file stdin of the folder. There it leaves the files stdout
and stderr, and after an error the file origin: the functions of bertsym in which the error arose, the innermost first,
as module:function.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertsym.cli import main
from bertsym.cli.group import COMMANDS, cli
from bertsym.compat.quick_import import speed_up_mxnet_import
from bertsym.mxnet_runtime import import_library

for name in COMMANDS:
    importlib.import_module(f"bertsym.cli.{name}")
for name in (
    "inspection.report",
    "inspection.formatting",
    "surgery.lower",
    "exporter",
    "inference.predict",
    "verifier",
):
    importlib.import_module(f"bertsym.{name}")
speed_up_mxnet_import()
import_library("mxnet")

os.fsync = lambda fd: None  # as in conftest
ADDRESS_SPACE = 12 << 30  #: of a command, for the sake of the machine


def run(folder: str, arguments: list[str]) -> None:
    """Run the command line as this process, which was forked for it."""
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    os.dup2(os.open("stdin", os.O_RDONLY), 0)
    for file, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["bertsym", *arguments]
    setattr(cli, "main", recording(cli.main))  # noqa: B010  # mypy takes it for a method
    main()


def recording(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; an error that leaves it is written to the file origin on its way."""

    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except BaseException as error:
            Path("origin").write_text("\n".join(origin(error)))
            raise

    return call


def origin(error: BaseException | None) -> list[str]:
    """The functions of bertsym that the first cause of an error passed, the innermost first."""
    found: list[str] = []
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        ours = [
            f"{frame.f_globals['__name__']}:{frame.f_code.co_name}"
            for frame in reversed(frames)
            if frame.f_globals.get("__name__", "").startswith("bertsym.")
        ]
        found = ours + found if ours else found
        error = error.__cause__ or error.__context__
    return found


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
