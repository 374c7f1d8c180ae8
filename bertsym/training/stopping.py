"""Signals that stop a run after its current step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, _HANGUP) if number is not None]


class StopRequest:
    """The signal that was received, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextlib.contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Record the first SIGINT, SIGTERM or SIGHUP; the next signal has its previous effect again.

    Has no effect outside of the main thread, where Python does not allow signal handlers.
    """
    request = StopRequest()
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def record(number: int, frame: object) -> None:
        request.signal = signal.Signals(number)
        restore()
        # Not print: the signal may have interrupted a print.
        with contextlib.suppress(OSError):
            os.write(
                2,
                f"{request.signal.name}: finishing the current step; send the signal again to stop at once\n".encode(),
            )

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            # nohup makes a process ignore SIGHUP; that is left as it is.
            if number != _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, record)
    try:
        yield request
    finally:
        restore()
