"""Write files atomically: in a work folder next to the target, from which they are moved when synced to disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bertsym.errors import BertsymError, DataError, ModelError, UsageError
from bertsym.file_reader import CAN_MOVE_OPEN
from bertsym.locking import lock_file

_LOCK = "lock"
_POLL = 0.01  # seconds between attempts to take a lock that another process holds


class DigestFile:
    """A binary file that computes the SHA-256 of the bytes as they are written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> None:
        """Write bytes, or a buffer of bytes; raises OSError."""
        self._digest.update(data)
        self._size += self._file.write(data)

    @property
    def entry(self) -> dict[str, Any]:
        """SHA-256 in hexadecimal and size of the bytes written so far."""
        return {"sha256": self._digest.hexdigest(), "size": self._size}


def write_file(path: Path, write: Callable[[DigestFile], object]) -> dict[str, Any]:
    """Write a file and sync it to disk; return its manifest entry. Raises OSError."""
    with open(path, "wb") as file:
        digesting = DigestFile(file)
        write(digesting)
        file.flush()
        os.fsync(file.fileno())
    return digesting.entry


def write_text(path: Path, text: str) -> dict[str, Any]:
    """Write a text as `write_file` does."""
    content = text.encode("utf-8", "backslashreplace")  # a path in the text may not be UTF-8
    return write_file(path, lambda file: file.write(content))


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk; Windows, which has no call for that, does so in the journal of NTFS."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class WorkFolder:
    """A folder in which files are written before they replace the files `names` of its parent folder, atomically.

    After the process died, `settle` decides by the subfolders whether to finish or to undo `replace`: ``new`` holds
    the new files and ``old`` the replaced files. When ``old`` is complete, ``new`` is renamed to ``moving``; when
    ``moving`` is empty, all files are replaced.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self._names = path, names
        self.new = path / "new"  #: the caller writes the new files here
        self._old, self._moving = path / "old", path / "moving"

    def replace(self) -> None:
        """Replace the files of the parent folder with those in ``new``; roll back on any exception."""
        sync_folder(self.new)
        self._old.mkdir()
        parent = self.path.parent
        try:
            self._move(parent, self._old)
            os.rename(self.new, self._moving)
            self._move(self._moving, parent)
            sync_folder(parent)
        except BaseException:
            self._roll_back()
            raise

    def settle(self) -> None:
        """Finish or undo a `replace` during which the process died; raises OSError."""
        if self._moving.is_dir() and not any(self._moving.iterdir()):
            # Remove `old` before `moving`: `old` alone would be rolled back.
            shutil.rmtree(self._old, ignore_errors=True)
        else:
            self._roll_back()

    def clear(self) -> None:
        """Remove everything except the lock."""
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    def _roll_back(self) -> None:
        parent = self.path.parent
        if self._moving.is_dir():
            self._move(parent, self._moving)
            os.rename(self._moving, self.new)
        self._move(self._old, parent)

    def _move(self, source: Path, target: Path) -> None:
        for name in self._names:
            if os.path.lexists(source / name):
                os.replace(source / name, target / name)


@contextlib.contextmanager
def work_folder(target: Path, names: Sequence[str] = ()) -> Iterator[WorkFolder]:
    """Lock the WorkFolder of `target` (for `names` or for `target` itself); remove the folder at the end.

    First recovers from a process that died while it replaced files. Raises OSError, and BertsymError without waiting
    if another process has locked the folder.
    """
    path = _work_path(target)
    with _locked(path, target) as release:
        folder = WorkFolder(path, names or [target.name])
        folder.settle()
        folder.clear()
        folder.new.mkdir()
        try:
            yield folder
        finally:
            # If this fails, the next process cleans up.
            with contextlib.suppress(OSError):
                folder.settle()
                _remove(folder, release)


def recover(target: Path, names: Sequence[str]) -> None:
    """Finish or undo a replacement at `target` during which the process died; wait for a process that still runs.

    Raises ModelError if that fails.
    """
    path = _work_path(target)
    while is_replacing(target):
        try:
            _finish(path, names)
        except BlockingIOError:
            time.sleep(_POLL)
        except OSError as error:
            if is_replacing(target):
                raise ModelError(
                    f"{target}: half replaced by a process that died, recovery failed: {error.strerror or error}"
                ) from None


def _finish(path: Path, names: Sequence[str]) -> None:
    try:
        release = _lock(path)
    except FileNotFoundError:
        # Create the lock only for a recovery: otherwise it could stop the next process that writes.
        release = _lock(path, create=True) if (path / "old").is_dir() else None
    if release is None:
        return
    with contextlib.ExitStack() as stack:
        stack.callback(release)
        folder = WorkFolder(path, names)
        folder.settle()
        _remove(folder, stack.close)


def is_replacing(target: Path) -> bool:
    """Whether a process is replacing files at `target`, or died while it did."""
    return (_work_path(target) / "old").is_dir()


def write_atomically(target: Path, content: bytes) -> None:
    """Create or replace one file; raises OSError, and BertsymError if another process is writing it."""
    with work_folder(target) as folder:
        path = folder.new / target.name
        write_file(path, lambda file: file.write(content))
        if path.read_bytes() != content:
            raise OSError(errno.EIO, "the file on disk differs from the bytes that were written")
        folder.replace()


@contextlib.contextmanager
def open_atomically(target: Path, force: bool) -> Iterator[BinaryIO]:
    """Open a file to write; at the end of the block it is synced and moved to `target`, which stays on any exception.

    Raises UsageError for a folder and, without `force`, for an existing file; DataError if the file can't be written,
    and BertsymError if another process is writing it.
    """
    _check_free(target, force)
    try:
        with work_folder(target) as folder:
            with open(folder.new / target.name, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _check_free(target, force)
            folder.replace()
    except OSError as error:
        raise DataError(f"{target}: can't write the file: {error.strerror or error}") from None


def _check_free(target: Path, force: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target} is a folder: give the name of a file in it")
    if target.exists() and not force:
        raise UsageError(f"{target} exists: choose another name, or overwrite with --force")


def _work_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.writing")


def _remove(folder: WorkFolder, release: Callable[[], None]) -> None:
    """Remove a locked folder with its lock, and release the lock."""
    if CAN_MOVE_OPEN:
        # Before the release: a process that waits for the lock must find it removed.
        shutil.rmtree(folder.path)
        release()
        return
    folder.clear()
    release()
    # Windows keeps the file where another process has opened it meanwhile, which then has the folder.
    with contextlib.suppress(OSError):
        (folder.path / _LOCK).unlink()
        folder.path.rmdir()


@contextlib.contextmanager
def _locked(path: Path, target: Path) -> Iterator[Callable[[], None]]:
    """Create and lock a folder; yield a function that releases the lock early."""
    release = None
    while release is None:
        path.mkdir(exist_ok=True)
        try:
            release = _lock(path, create=True)
        except FileNotFoundError:  # its last owner has just removed the folder
            continue
        except BlockingIOError:
            raise BertsymError(
                f"{target}: locked by another process, which is writing it: wait until it ends"
            ) from None
    with contextlib.ExitStack() as stack:
        stack.callback(release)
        yield stack.close


def _lock(path: Path, create: bool = False) -> Callable[[], None] | None:
    """Lock a folder, as `lock_file` locks a file in it; raises OSError for a link."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path} is a link")
    return lock_file(path / _LOCK, create)
