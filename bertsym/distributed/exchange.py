"""The exchange between the workers of a distributed run: MXNet's parameter server, ``dist_sync``, sums gradients.

The server only sums; each worker applies the same update to its own parameters. The server therefore needs no
optimizer, which MXNet would send as a pickle, and ours executes no command that a worker sends.
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

from bertsym.array import Array
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.liveness import Coordinator, Peer, end_process
from bertsym.distributed.workers import Workers, WorkersLost
from bertsym.errors import ModelError
from bertsym.mxnet_runtime import mx

_DIGEST_SIZE, _TEXT_SIZE = 32, 4096  # bytes of a message, each sent as one number
_Result = TypeVar("_Result")
_never_freed: list[Any] = []  # stores that would wait for the other processes when they are freed


def serve(cluster: Cluster, timeout: float) -> None:
    """Run a parameter server or the scheduler until the workers are done.

    If another process is lost, this process exits with one line and exit code 1. An exception here, such as one raised
    for a signal, ends the other processes too. Raises UsageError if the scheduler's ports are unavailable, and
    WorkersLost if not all processes connect.
    """
    # MXNet's own controller unpickles what a worker sends.
    controller = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)

    def run_server(held: list[Any]) -> None:
        store = _create_store()
        held.append(store)
        _run_in_thread(
            lambda: mx.base.check_call(mx.base._LIB.MXKVStoreRunServer(store.handle, controller, None))
        ).result()

    if cluster.role == "scheduler":
        coordinator = Coordinator(cluster, timeout, end_process)
        with _participate(coordinator) as held:
            run_server(held)
            with contextlib.suppress(concurrent.futures.TimeoutError):
                coordinator.all_left.result(timeout)
    else:
        peer = Peer(cluster, timeout, end_process)
        with _participate(peer) as held:
            peer.wait_for_start()
            run_server(held)
            peer.leave()


@contextlib.contextmanager
def join(cluster: Cluster, timeout: float) -> Iterator[Workers]:
    """Join a run as one of its workers; an exception in the ``with`` block ends the other processes too.

    If another process is lost, the next collective operation raises WorkersLost. If there is none within `timeout`
    seconds, this process exits with one line and exit code 1.
    """

    def on_end(reason: str) -> None:
        def end() -> None:
            # After WorkersLost was raised, writing a checkpoint may take longer than the timeout.
            if not (peer.has_left or peer.has_raised):
                end_process(reason)

        timer = threading.Timer(timeout, end)
        timer.daemon = True
        timer.start()

    peer = Peer(cluster, timeout, on_end)
    with _participate(peer) as held:
        rank = peer.wait_for_start()
        held.append(workers := _StoreWorkers(peer, rank or 0, cluster.workers))
        yield workers


@contextlib.contextmanager
def _participate(participant: Coordinator | Peer) -> Iterator[list[Any]]:
    """Start a participant; an exception is reported to the other processes unless they no longer need this one.

    The participant starts inside of the ``try`` block, so that no signal can arrive in between unreported. After an
    exception MXNet's store must not be freed: the objects in the yielded list are kept alive, and the process ends
    without MXNet's own clean-up.
    """
    held: list[Any] = []
    try:
        participant.start()
        yield held
    except BaseException as error:
        if not participant.has_left:
            _never_freed.extend(held)
            code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
            atexit.register(_exit_immediately, code)
            participant.fail(
                "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            )
        raise


def _exit_immediately(code: int) -> None:
    """Exit before MXNet waits for other processes, which would never end."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _create_store() -> Any:
    return mx.kv.create("dist_sync")


class _StoreWorkers(Workers):
    """Workers that sum through an MXNet store, with one key per array."""

    def __init__(self, peer: Peer, rank: int, count: int) -> None:
        self._peer, self.rank, self.count = peer, rank, count
        mx.nd.waitall()  # imports mxnet here, in the main thread
        self._store = self._wait_for(_create_store)
        self._sizes: dict[str, int] = {}

    def leave(self) -> None:
        """End the exchange once all workers are done."""

        def free_store() -> None:
            self._store = None  # its destructor waits for the other workers

        self._wait_for(free_store)
        self._peer.leave()

    def sum_in_place(self, arrays: Sequence[Any]) -> None:
        """Replace each array with its sum over the workers."""
        self._sum({f"sum{i}": array for i, array in enumerate(arrays)})

    def sum_number(self, number: float) -> float:
        """Return the sum of a number over the workers."""
        return float(self._gather(np.array([number]))[:, 0].sum())

    def broadcast_array(self, array: Any) -> Any:
        """Return the first worker's array, (1,)."""
        first = array if self.rank == 0 else mx.nd.zeros_like(array)
        self._sum({"first": first})
        return first

    def broadcast_arrays(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the first worker's arrays, in float32; names and shapes are equal on all workers."""
        received = {}
        for name, array in arrays.items():
            shared = mx.nd.array(array if self.rank == 0 else array * 0, dtype=np.float32)
            self._sum({f"first{shared.size}": shared})
            received[name] = shared.asnumpy()
        return received

    def broadcast_text(self, text: str) -> str:
        """Return the first worker's text."""
        own = text.encode() if self.rank == 0 else b""
        received = b""
        for start in range(0, int(self.sum_number(len(own))), _TEXT_SIZE):
            codes = np.zeros(_TEXT_SIZE, np.uint8)
            piece = own[start : start + _TEXT_SIZE]
            codes[: len(piece)] = list(piece)
            array = mx.nd.array(codes, dtype=np.float32)
            self._sum({"text": array})
            received += array.asnumpy().astype(np.uint8).tobytes()
        return received.rstrip(b"\0").decode()

    def require_equal(self, name: str, parts: Iterable[Any]) -> str:
        """Return the SHA-256 of some bytes or arrays; raises ModelError if it differs between the workers."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        digests = self._gather(np.frombuffer(digest.digest(), np.uint8))
        others = [str(rank) for rank in range(self.count) if (digests[rank] != digests[0]).any()]
        if others:
            with contextlib.suppress(WorkersLost):
                self.sum_number(0)  # a barrier: every worker raises this error, not that another one failed
            raise ModelError(f"{name}: differs between worker 0 and worker {', '.join(others)}")
        return digest.hexdigest()

    def _gather(self, values: Array) -> Array:
        """Return the values of each worker, (workers, up to 32)."""
        table = np.zeros((self.count, _DIGEST_SIZE), np.float32)
        table[self.rank, : len(values)] = values
        shared = mx.nd.array(table)
        self._sum({"table": shared})
        gathered: Array = shared.asnumpy()
        return gathered

    def _sum(self, arrays: dict[str, Any]) -> None:
        def push_and_pull() -> None:
            for key, array in arrays.items():
                if key not in self._sizes:
                    self._store.init(key, mx.nd.zeros_like(array))
                    self._sizes[key] = array.size
                self._store.push(key, array)
                self._store.pull(key, out=array)
            for array in arrays.values():
                array.wait_to_read()

        self._wait_for(push_and_pull)

    def _wait_for(self, call: Callable[[], _Result]) -> _Result:
        """Return the result of a call that blocks inside of MXNet; raises WorkersLost, and abandons the call."""
        return self._peer.wait(_run_in_thread(call))


def _run_in_thread(call: Callable[[], _Result]) -> Future[_Result]:
    """Run a call that blocks inside of MXNet, where no signal interrupts it; a wait for the future is interruptible."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="exchange").start()
    return future
