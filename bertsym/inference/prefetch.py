"""Prefetching: an iterable that a thread reads in advance."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from bertsym.errors import BertsymError

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Item(Generic[_T]):
    """One value, or the end of the iterable, with the error that caused it."""

    value: _T | None = None
    is_last: bool = False
    error: BaseException | None = None


def prefetch(values: Iterable[_T]) -> Iterator[_T]:
    """Yield the values in order, and compute the next one or two in a thread while one is used.

    An error of `values` is raised after the values before it. Raises BertsymError in a forked child, which does not
    have the thread.
    """
    process = os.getpid()
    items: queue.Queue[_Item[_T]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(item: _Item[_T]) -> None:
        while not stopped.is_set():
            try:
                return items.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for value in values:
                put(_Item(value))
                if stopped.is_set():
                    return
            put(_Item(is_last=True))
        except BaseException as error:
            put(_Item(is_last=True, error=error))

    # A daemon, because it may block on standard input forever.
    threading.Thread(target=read, daemon=True).start()
    try:
        while not (item := items.get()).is_last:
            yield item.value  # type: ignore[misc]
            if os.getpid() != process:
                raise BertsymError(
                    "an iterator that was started before a fork cannot continue in the forked process: start it there"
                )
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
