"""Locks on files that the system releases when their process ends, however it ends.

Python offers flock on POSIX systems only. On others, Windows among them, SQLite locks the file, by the system's own
calls (LockFileEx). The package filelock does not fit: it creates missing files, which `atomic.recover` must not do, and
what it does after a process was killed without fcntl differs between the releases for Python 3.9 and 3.11.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


def lock_file(path: Path, create: bool) -> Callable[[], None] | None:
    """Lock a file and return the function that releases it; None if its last owner has just removed it.

    Only with `create`, a missing file is created. Raises BlockingIOError when another process or thread has the lock,
    FileNotFoundError and other OSErrors.
    """
    return _lock_by_sqlite(path, create) if fcntl is None else _lock_by_flock(path, create)


def _lock_by_flock(path: Path, create: bool) -> Callable[[], None] | None:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return lambda: os.close(handle)
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _lock_by_sqlite(path: Path, create: bool) -> Callable[[], None]:
    # SQLite reports every failure to open as "unable to open database file"; this raises the OSError.
    os.close(os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666))
    # No thread check: another thread may release the lock. mode=rw: a file that was removed since is not created again.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.ExitStack() as stack:
            database = sqlite3.connect(uri, timeout=0, isolation_level=None, check_same_thread=False, uri=True)
            stack.callback(database.close)
            database.execute("PRAGMA journal_mode = MEMORY")  # no second file
            database.execute("BEGIN EXCLUSIVE")  # writes nothing: the file stays empty
            return stack.pop_all().close
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise BlockingIOError(f"{path} is locked") from None
        if not path.exists():
            raise FileNotFoundError(f"{path} was removed") from None
        raise OSError(f"{path}: can't be locked: {error}") from None
