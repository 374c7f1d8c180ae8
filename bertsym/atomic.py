"""Write files atomically: make them in a folder beside their place, and move them when they are safe on the disk."""

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

from bertsym.errors import BertsymError, ModelError
from bertsym.files import CAN_MOVE_OPEN
from bertsym.locking import lock_file

_LOCK = "lock"
_POLL = 0.01  # seconds between looks at a lock that another process has


class DigestFile:
    """A binary file that is written once, with the SHA-256 of the written bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> None:
        """Write bytes, or a buffer of bytes; raises OSError."""
        self._digest.update(data)
        self._size += self._file.write(data)

    @property
    def entry(self) -> dict[str, Any]:
        """SHA-256 in hexadecimal, and size, of what was written so far."""
        return {"sha256": self._digest.hexdigest(), "size": self._size}


def write_file(path: Path, write: Callable[[DigestFile], object]) -> dict[str, Any]:
    """Write a file and sync it to disk; returns its manifest entry. Raises OSError."""
    with open(path, "wb") as file:
        digesting = DigestFile(file)
        write(digesting)
        file.flush()
        os.fsync(file.fileno())
    return digesting.entry


def write_text(path: Path, text: str) -> dict[str, Any]:
    """Write a text as `write_file` does."""
    content = text.encode("utf-8", "backslashreplace")  # a path in it may not be UTF-8
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
    """Where files are made that take the places of `names` in its parent folder, all at once.

    The steps of `replace` leave, whenever the process dies, enough to decide on which side of it the files are:
    ``new`` holds what was made; ``old`` what was there; ``new`` is called ``moving`` from the moment when ``old`` is
    complete, and empty when all is done.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self._names = path, names
        self.new = path / "new"  #: files here get the places
        self._old, self._moving = path / "old", path / "moving"

    def replace(self) -> None:
        """Move the files of ``new`` to their places, and away what was there; on any exception all is as before."""
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
        """Finish, or undo, what a process left that died while it replaced files; raises OSError."""
        if self._moving.is_dir() and not any(self._moving.iterdir()):
            # Before `moving`, without which these would be taken for files that have to go back.
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
    """The WorkFolder of `target` (of `names`, or itself), for this process alone; it is gone afterwards.

    What a process left that died is recovered first. Raises OSError, and BertsymError at once when another process
    has the folder.
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
            # Where this fails the next process does it.
            with contextlib.suppress(OSError):
                folder.settle()
                _remove(folder, release)


def recover(target: Path, names: Sequence[str]) -> None:
    """Finish or undo what a process left that died while it replaced files at `target`; waits for one that is running.

    Raises ModelError when that can't be done.
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
                    f"{target}: half replaced by a process that died, can't be recovered: {error.strerror or error}"
                ) from None


def _finish(path: Path, names: Sequence[str]) -> None:
    try:
        release = _lock(path)
    except FileNotFoundError:
        # Created only where it is missing: otherwise it could stop the next process that writes.
        release = _lock(path, create=True) if (path / "old").is_dir() else None
    if release is None:
        return
    with contextlib.ExitStack() as stack:
        stack.callback(release)
        folder = WorkFolder(path, names)
        folder.settle()
        _remove(folder, stack.close)


def is_replacing(target: Path) -> bool:
    """Whether files at `target` are being replaced, by a process that is running or by one that died."""
    return (_work_path(target) / "old").is_dir()


def write_whole(target: Path, content: bytes) -> None:
    """Make or replace one file; raises OSError, and BertsymError when another process is writing it."""
    with work_folder(target) as folder:
        path = folder.new / target.name
        write_file(path, lambda file: file.write(content))
        if path.read_bytes() != content:
            raise OSError(errno.EIO, "what is on the disk is not what was written")
        folder.replace()


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
    """Have a folder, which is made, for this process alone; yields what releases it early."""
    release = None
    while release is None:
        path.mkdir(exist_ok=True)
        try:
            release = _lock(path, create=True)
        except FileNotFoundError:  # its last owner has just removed the folder
            continue
        except BlockingIOError:
            raise BertsymError(f"{target}: another process is writing there") from None
    with contextlib.ExitStack() as stack:
        stack.callback(release)
        yield stack.close


def _lock(path: Path, create: bool = False) -> Callable[[], None] | None:
    """Lock a folder, as `lock_file` locks a file in it; raises OSError for a link."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path} is a link")
    return lock_file(path / _LOCK, create)
