"""Command lines of bertsym in processes of their own, and how such a process begins."""

from __future__ import annotations

import sys

BERTSYM = [sys.executable, "-W", "ignore", "-m", "bertsym"]

#: a disk that is full after 20 KB; Python ignores SIGXFSZ, so a write fails with EFBIG. But of the modules that it
#: compiles, it would keep the first 20 KB, and could import them no more
FULL_DISK = "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); os.environ['PYTHONDONTWRITEBYTECODE'] = '1'"
#: what nohup does, and undoes
IGNORE_HANG_UP, HEED_HANG_UP = (f"signal.signal(signal.SIGHUP, signal.{how})" for how in ("SIG_IGN", "SIG_DFL"))


def beginning_with(statement: str, command: list[str]) -> list[str]:
    """A command whose process first does something that stays with it.

    Not by Popen's preexec_fn, for which this process is forked: while MXNet computes a matrix product in it, that
    waits for ever, since OpenBLAS ends the threads of the product before MXNet waits for its end.
    """
    program = f"import os, resource, signal, sys; {statement}; os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program, *command]
