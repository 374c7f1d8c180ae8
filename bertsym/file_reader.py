"""Read untrusted files: only regular files of limited size, without path traversal by links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from bertsym.errors import ModelError

MAX_TEXT = 1 << 26  #: bytes of a text or JSON file; 30 times the vocabulary of the largest multilingual BERT
#: Whether the system moves and removes open files, as POSIX systems do; Windows refuses
CAN_MOVE_OPEN = hasattr(os, "fork")

# O_NONBLOCK: the open must not wait for the writer of a pipe. Windows has neither the flag nor pipes in folders.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_opened: ContextVar[dict[str, tuple[int, ...]] | None] = ContextVar("opened files", default=None)


@contextlib.contextmanager
def unchanged_files() -> Iterator[None]:
    """Let `open_regular` raise ModelError for a file that was changed or replaced since it was first opened here."""
    token = _opened.set({})
    try:
        yield
    finally:
        _opened.reset(token)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; raises OSError, and ModelError for a pipe or device, which might never end."""
    handle = os.open(path, _READ)
    status = os.fstat(handle)
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ModelError(f"{path}: not a regular file")
    opened = _opened.get()
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if opened is not None and opened.setdefault(os.path.abspath(path), stamp) != stamp:
        os.close(handle)
        raise ModelError(f"{path}: changed while it was read; run the command again when it is complete")
    return open(handle, "rb")


def refuse_lfs_pointer(path: str | Path, start: bytes) -> None:
    """Raise ModelError if a file that begins with `start` is a Git LFS pointer, as in a clone without Git LFS."""
    if start.startswith(_LFS_POINTER):
        raise ModelError(
            f"{path}: a Git LFS pointer instead of the file; run `git lfs pull` in its repository, or download the file"
        )


def read_bytes(path: str | Path) -> bytes:
    """Read all bytes of a text file; raises OSError, and ModelError for over MAX_TEXT bytes or a Git LFS pointer."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_TEXT:
            raise ModelError(f"{path}: more than {MAX_TEXT >> 20} MiB, the limit for files of text")
        content = file.read(size)  # bounded, in case the file grows
    refuse_lfs_pointer(path, content)
    return content


def check_inside(path: Path, folders: Iterable[Path]) -> None:
    """Raise ModelError for a link that escapes all `folders`; a missing file is accepted."""
    target = path.resolve()
    if not any(target.is_relative_to(folder.resolve()) for folder in folders):
        raise ModelError(f"{path}: a link that escapes its folder, to {target}")
