"""Several processes that train one model: gradients are added up by MXNet's parameter server, ``dist_sync``.

The server only adds: each worker makes the same update of its own parameters. So it needs no optimizer, which MXNet
would send as a pickle, and ours runs no command that is sent to it.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import ctypes
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from bertsym.distributed.cluster import Cluster
from bertsym.distributed.liveness import Coordinator, Peer, end_process
from bertsym.distributed.workers import Workers, WorkersLost
from bertsym.errors import ModelError
from bertsym.runtime import mx
from bertsym.symbol.params import Array

WORKER_TIMEOUT = 60.0  #: seconds after which a process that is not heard is given up
_DIGEST, _TEXT = 32, 4096  # bytes of a message, each as a number
_Result = TypeVar("_Result")
_abandoned: list[Any] = []  # stores that would wait for the others when they are freed


def serve(cluster: Cluster, timeout: float = WORKER_TIMEOUT) -> None:
    """Be a parameter server or the scheduler until the workers are done.

    The process ends here, with one line and exit code 1, when one of the others is lost. Raises UsageError when the
    scheduler's ports can't be had, and WorkersLost when not all come. An exception, of a signal for example, ends the
    others too.
    """
    # MXNet's own unpickles what a worker sends.
    controller = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)

    def run(held: list[Any]) -> None:
        store = _store()
        held.append(store)
        _in_background(
            lambda: mx.base.check_call(mx.base._LIB.MXKVStoreRunServer(store.handle, controller, None))
        ).result()

    if cluster.role == "scheduler":
        hub = Coordinator(cluster, timeout, end_process)
        with _taking_part(hub) as held:
            run(held)
            with contextlib.suppress(concurrent.futures.TimeoutError):
                hub.left.result(timeout)
    else:
        member = Peer(cluster, timeout, end_process)
        with _taking_part(member) as held:
            member.begin()
            run(held)
            member.leave()


@contextlib.contextmanager
def join(cluster: Cluster, timeout: float = WORKER_TIMEOUT) -> Iterator[Workers]:
    """Be one of the workers; with an exception the others are told, and end too.

    When another process is lost, the next call for which it is needed raises WorkersLost; should that take longer
    than `timeout` seconds, the process ends with one line and exit code 1.
    """

    def ended(reason: str) -> None:
        def end() -> None:
            # Who knows may take longer to write what is to be kept.
            if not (member.has_left or member.was_told):
                end_process(reason)

        timer = threading.Timer(timeout, end)
        timer.daemon = True
        timer.start()

    member = Peer(cluster, timeout, ended)
    with _taking_part(member) as held:
        rank = member.begin()
        held.append(workers := _StoreWorkers(member, rank or 0, cluster.workers))
        yield workers


@contextlib.contextmanager
def _taking_part(watched: Coordinator | Peer) -> Iterator[list[Any]]:
    """With an exception the others are told, unless they need this process no longer.

    They come to know of this process here, so that no signal falls between. Nothing of MXNet's store can be
    freed then: what is in the list that this yields is held, and the process ends without MXNet's own clearing up.
    """
    held: list[Any] = []
    try:
        watched.start()
        yield held
    except BaseException as error:
        if not watched.has_left:
            _abandoned.extend(held)
            code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
            atexit.register(_end_quietly, code)
            watched.fail("interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__)
        raise


def _end_quietly(code: int) -> None:
    """End before MXNet waits for what will never come."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _store() -> Any:
    return mx.kv.create("dist_sync")


class _StoreWorkers(Workers):
    """Workers that add up through a store of MXNet, one key for each array."""

    def __init__(self, member: Peer, rank: int, count: int) -> None:
        self._member, self.rank, self.count = member, rank, count
        mx.nd.waitall()  # imported here, in the main thread
        self._store = self._wait(_store)
        self._sizes: dict[str, int] = {}

    def leave(self) -> None:
        """Be done with the others, when all are. Raises WorkersLost."""

        def free() -> None:
            self._store = None  # waits for the others

        self._wait(free)
        self._member.leave()

    def add(self, arrays: Sequence[Any]) -> None:
        """Put into each array, in place, its sum over the workers. Raises WorkersLost."""
        self._add({f"sum{i}": array for i, array in enumerate(arrays)})

    def of_first(self, array: Any) -> Any:
        """The array of the first worker, (1,). Raises WorkersLost."""
        first = array if self.rank == 0 else mx.nd.zeros_like(array)
        self._add({"first": first})
        return first

    def total(self, number: float) -> float:
        """The sum of a number over the workers. Raises WorkersLost."""
        return float(self._gather(np.array([number]))[:, 0].sum())

    def hear_first(self, text: str) -> str:
        """The text of the first worker. Raises WorkersLost."""
        own = text.encode() if self.rank == 0 else b""
        heard = b""
        for start in range(0, int(self.total(len(own))), _TEXT):
            some = np.zeros(_TEXT, np.uint8)
            piece = own[start : start + _TEXT]
            some[: len(piece)] = list(piece)
            array = mx.nd.array(some, dtype=np.float32)
            self._add({"text": array})
            heard += array.asnumpy().astype(np.uint8).tobytes()
        return heard.rstrip(b"\0").decode()

    def take_first(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The arrays of the first worker, in float32; all have such. Raises WorkersLost."""
        taken = {}
        for name, array in arrays.items():
            shared = mx.nd.array(array if self.rank == 0 else array * 0, dtype=np.float32)
            self._add({f"first{shared.size}": shared})
            taken[name] = shared.asnumpy()
        return taken

    def agree(self, what: str, parts: Iterable[Any]) -> str:
        """The SHA-256 of `what`, some bytes or arrays.

        Raises ModelError where it is not the same on all workers; or WorkersLost.
        """
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        digests = self._gather(np.frombuffer(digest.digest(), np.uint8))
        others = [str(rank) for rank in range(self.count) if (digests[rank] != digests[0]).any()]
        if others:
            with contextlib.suppress(WorkersLost):
                self.total(0)  # by then all know it, and none hears of it as of the failure of another
            raise ModelError(f"{what}: not the same on worker 0 and on {', '.join(others)}")
        return digest.hexdigest()

    def _gather(self, values: Array) -> Array:
        """The values of each worker, (workers, up to 32)."""
        table = np.zeros((self.count, _DIGEST), np.float32)
        table[self.rank, : len(values)] = values
        shared = mx.nd.array(table)
        self._add({"table": shared})
        gathered: Array = shared.asnumpy()
        return gathered

    def _add(self, arrays: dict[str, Any]) -> None:
        def add() -> None:
            for key, array in arrays.items():
                if key not in self._sizes:
                    self._store.init(key, mx.nd.zeros_like(array))
                    self._sizes[key] = array.size
                self._store.push(key, array)
                self._store.pull(key, out=array)
            for array in arrays.values():
                array.wait_to_read()

        self._wait(add)

    def _wait(self, call: Callable[[], _Result]) -> _Result:
        """What a call returns that waits inside of MXNet. Raises WorkersLost, and leaves it to itself."""
        return self._member.wait(_in_background(call))


def _in_background(call: Callable[[], _Result]) -> Future[_Result]:
    """Call in a thread what waits inside of MXNet, where no signal ends it; a wait for the result is ended by one."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="exchange").start()
    return future
