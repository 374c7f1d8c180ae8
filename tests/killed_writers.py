"""Kills a writer at each call that changes the disk, and whoever puts things right after it too; prints what was found.

A program of its own: it forks, which a process with MXNet in it should not.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bertsym.atomic_writing import recover, work_folder, write_text

NAMES = ["x-a", "x-b", "x-c", "x-d", "x-manifest"]
OLD = {"x-a": "old a", "x-b": "old b", "x-c": "old c", "x-manifest": "old"}
NEW = {"x-a": "new a", "x-b": "new b", "x-d": "new d", "x-manifest": "new"}
# The death of a process loses nothing of what the kernel has.
os.fsync = lambda fd: None
CALLS = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")


def killed_at(number: int, action: Callable[[], object]) -> bool:
    """Do something in a process that kills itself before its n-th call of CALLS; whether it came so far."""
    process = os.fork()
    if not process:
        left = number

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def wrapper(*arguments: object, **more: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **more)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        action()
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def prepare(folder: Path, content: dict[str, str]) -> None:
    """A folder with these files and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)


def write(target: Path) -> None:
    with work_folder(target, NAMES) as folder:
        for name, text in NEW.items():
            write_text(folder.new / name, text)
        folder.replace()


def found(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def run(folder: Path, old: dict[str, str]) -> Counter[str]:
    """What is there after each death: `old`, `new`, or something else; a next writer always comes through."""
    target, states = folder / "x", Counter[str]()
    death, reached = 0, True
    while reached:
        death += 1
        second, again = 0, True
        while again:
            prepare(folder, old)
            reached = killed_at(death, lambda: write(target))
            second += 1
            again = killed_at(second, lambda: recover(target, NAMES))
            recover(target, NAMES)
            there = found(folder)
            states["old" if there == old else "new" if there == NEW else f"{death}, {second}: {there}"] += 1
            write(target)
            assert found(folder) == NEW
            assert sorted(os.listdir(folder)) == sorted(NEW), os.listdir(folder)
    return states


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps({"replaced": run(place / "replaced", OLD), "made": run(place / "made", {})}))
