"""Prefetching: an iterable that a thread reads in advance."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from bertsym.errors import BertsymError
from bertsym.text.tokenizer import CHUNK, CHUNK_CHARACTERS, Chunking, chunks

_T = TypeVar("_T")


def prefetch(values: Iterable[_T]) -> Iterator[_T]:
    """Yield the values in order, and compute the next one or two in a thread while one is used.

    Raises the errors of `gather`.
    """
    for (value,) in gather(values, lambda value: 0, 1):
        yield value


def choose_chunking(source: str | Path | BinaryIO) -> Chunking:
    """Return how the lines of a source are grouped: a pipe's, terminal's or socket's as they arrive."""
    try:
        mode = os.stat(source if isinstance(source, (str, Path)) else source.fileno()).st_mode
    except OSError:  # such as a stream in memory
        return chunks
    return gather if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode) else chunks


def gather(
    items: Iterable[_T], characters: Callable[[_T], int], count: int = CHUNK, most_characters: int = CHUNK_CHARACTERS
) -> Iterator[list[_T]]:
    """Yield the items in order, in lists of those that have arrived, one or more: a thread reads them in advance.

    The thread waits while it holds `count` items, or items with `most_characters` together. An error of `items` is
    raised after the items before it. Raises BertsymError in a forked child, which does not have the thread.
    """
    process = os.getpid()
    arrived: deque[_T] = deque()
    size, ended, stopped = 0, False, False
    failure: list[BaseException] = []
    changed = threading.Condition()

    def may_continue() -> bool:
        return stopped or (len(arrived) < count and size < most_characters)

    def read() -> None:
        nonlocal size, ended
        try:
            for item in items:
                with changed:
                    changed.wait_for(may_continue)
                    if stopped:
                        return
                    arrived.append(item)
                    size += characters(item)
                    changed.notify_all()
        except BaseException as error:
            failure.append(error)
        finally:
            with changed:
                ended = True
                changed.notify_all()

    # A daemon, because it may block on standard input forever.
    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: arrived or ended)
                taken = list(arrived)
                arrived.clear()
                size = 0
                changed.notify_all()
            if not taken:
                break
            yield taken
            if os.getpid() != process:
                raise BertsymError(
                    "an iterator that was started before a fork cannot continue in the forked process: start it there"
                )
        if failure:
            raise failure[0]
    finally:
        # In a forked child the lock may be held, by the thread that is not there.
        if os.getpid() == process:
            with changed:
                stopped = True
                changed.notify_all()
