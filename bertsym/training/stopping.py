"""Signals that let a run finish its step first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Whether one of the signals came."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextlib.contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Keep the first SIGINT, SIGTERM or SIGHUP in mind; the next one does what it did before.

    Outside of the main thread, where Python takes no handlers, nothing changes.
    """
    request = StopRequest()
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def keep(number: int, frame: object) -> None:
        request.signal = signal.Signals(number)
        restore()
        # print could be in the middle of a line of its own.
        os.write(2, f"{request.signal.name}: finishing the step; a second one ends at once\n".encode())

    if threading.current_thread() is threading.main_thread():
        previous.update((number, signal.signal(number, keep)) for number in _SIGNALS)
    try:
        yield request
    finally:
        restore()
