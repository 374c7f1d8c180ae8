"""Make fork() safe while other threads use MXNet or hold locks.

A fork copies only the forking thread: locks that another thread holds, in Python or in libmxnet, stay locked forever in
the child. And MXNet 1.9.1, which stops its engine for a fork, drops operators that another thread pushes meanwhile.
So a fork waits until no other thread is inside `no_fork`, and no thread enters `no_fork` during a fork. This includes
the forks by which Python 3.9 starts a process; later versions use vfork, which libraries do not notice.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_changed = threading.Condition()
_sections: dict[int, int] = {}  # thread -> depth of its nested `no_fork` blocks
_forks = 0  # number of threads that fork or wait to fork
_in_parents: list[Callable[[], object]] = []


class _Renewable(Protocol):
    def renew(self) -> None: ...


_renewables: weakref.WeakSet[_Renewable] = weakref.WeakSet()


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """Delay forks by other threads, after waiting for a fork that has begun; may be nested."""
    thread = threading.get_ident()
    with _changed:
        _changed.wait_for(lambda: not _forks or thread in _sections)
        _sections[thread] = _sections.get(thread, 0) + 1
    try:
        yield
    finally:
        with _changed:
            _sections[thread] -= 1
            if not _sections[thread]:
                del _sections[thread]
            _changed.notify_all()


def renew_after_fork(owner: _Renewable) -> None:
    """Call `owner.renew()` in every forked child while `owner` is alive; holds a weak reference."""
    _renewables.add(owner)


def call_in_parents(function: Callable[[], object]) -> None:
    """Call a function in the parent after every fork, before other threads enter `no_fork`."""
    _in_parents.append(function)


def call_in_children(function: Callable[[], object]) -> None:
    """Call a function in every forked child; nothing happens on Windows, where no process forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


class ForkSafeLock:
    """A lock, used by ``with``, that a forked child finds released unless the forking thread holds it."""

    def __init__(self) -> None:
        self._lock, self._owner = threading.Lock(), 0
        renew_after_fork(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._owner = 0
        self._lock.release()

    def renew(self) -> None:
        """Release the lock if a thread held it that does not exist in the child."""
        if self._owner != threading.get_ident():
            self._lock, self._owner = threading.Lock(), 0


def _before() -> None:
    global _forks
    thread = threading.get_ident()
    with _changed:
        _forks += 1
        _changed.wait_for(lambda: not _sections.keys() - {thread})


def _after_in_parent() -> None:
    global _forks
    for function in _in_parents:
        function()
    with _changed:
        _forks -= 1
        _changed.notify_all()


def _after_in_child() -> None:
    global _changed, _forks
    _changed, _forks = threading.Condition(), 0
    for owner in list(_renewables):
        owner.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _hold_subprocesses() -> None:
    """Let `subprocess` of Python 3.9 wait too: it forks without the functions that `register_at_fork` was given."""
    module: Any = importlib.import_module("_posixsubprocess")
    fork_exec = module.fork_exec

    def held(*arguments: object) -> object:
        _before()
        try:
            return fork_exec(*arguments)
        finally:
            _after_in_parent()

    module.fork_exec = held


if hasattr(os, "register_at_fork") and sys.version_info < (3, 10):
    _hold_subprocesses()
