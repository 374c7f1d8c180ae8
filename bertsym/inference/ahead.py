"""An iterable that is read ahead by a thread."""

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
    """One value, or the end: with the error that it ended by."""

    value: _T | None = None
    is_last: bool = False
    error: BaseException | None = None


def ahead(values: Iterable[_T]) -> Iterator[_T]:
    """The same values in their order, one or two of them made while one is used; an error comes in its place.

    Raises BertsymError in a forked child, which does not have the thread.
    """
    process = os.getpid()
    waiting: queue.Queue[_Item[_T]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def give(item: _Item[_T]) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for value in values:
                give(_Item(value))
                if stopped.is_set():
                    return
            give(_Item(is_last=True))
        except BaseException as error:
            give(_Item(is_last=True, error=error))

    # A daemon: it may wait for standard input for ever.
    threading.Thread(target=read, daemon=True).start()
    try:
        while not (item := waiting.get()).is_last:
            yield item.value  # type: ignore[misc]
            if os.getpid() != process:
                raise BertsymError(
                    "an iterator that was started before a fork can't continue in the forked process: start it there"
                )
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
