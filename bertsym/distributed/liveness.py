"""Who of a distributed run is alive: every process tells the scheduler's, which tells all when one is not.

MXNet's own heartbeats do not end a run: without this, a worker waits for ever for one that is dead. The messages are
JSON objects, one a line: an empty one says only that its sender lives.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from bertsym.distributed.cluster import Cluster
from bertsym.distributed.workers import WorkersLost
from bertsym.errors import UsageError
from bertsym.terminal import one_line

GATHERING = 600.0  #: seconds in which all must have come, as long as they are retried
_RETRY = 0.2
_BEATS = 4  # in a timeout
_PARTING = 5.0  # seconds for a last message to be heard
_LONGEST = 1 << 16  # bytes of a message
_Result = TypeVar("_Result")


def end_process(reason: str, code: int = 1) -> None:
    """Print the reason, which may quote other processes, and end at once: threads inside of MXNet can't be stopped."""
    with contextlib.suppress(OSError, ValueError):
        print(f"Error: {one_line(reason)}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


def _started_loop() -> asyncio.AbstractEventLoop:
    """An asyncio loop in a thread that does not keep the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="watch").start()
    return loop


class _Connection(asyncio.Protocol):
    """One end of a connection on which both sides send lines, and an empty object when they have nothing to say.

    `hear` is called for each message, and `gone`, once, with how it ended, behind the messages before that. All of it
    in the thread of the loop.
    """

    def __init__(
        self,
        timeout: float,
        hear: Callable[[_Connection, dict[str, Any]], object],
        gone: Callable[[_Connection, str], object],
    ) -> None:
        self._timeout, self._hear, self._gone = timeout, hear, gone
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._heard = self._beaten = self._loop.time()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._beat()

    def _beat(self) -> None:
        now, pause = self._loop.time(), self._timeout / _BEATS
        if now - self._beaten > 2 * pause:
            self._heard = now  # it was this process that was asleep
        if now - self._heard > self._timeout:
            self._end(f"was not heard for {self._timeout:g} s")
            return
        self.send({})
        self._beaten = now
        self._timer = self._loop.call_later(pause, self._beat)

    def send(self, message: dict[str, Any]) -> None:
        if not self._transport.is_closing():
            self._transport.write(json.dumps(message).encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self._end("sent what is no message")
            elif message and not self._has_ended:
                self._hear(self, message)
        if len(self._buffer) > _LONGEST:
            self._end("sent what is no message")

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._read_last()
        self._end("died")

    def _read_last(self) -> None:
        """Where a write failed, what the other side said last was not read yet."""
        handle = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):
            while not self._has_ended and (data := os.read(handle, _LONGEST)):
                self.data_received(data)

    def close(self) -> None:
        """What was sent still arrives; nothing is heard any more."""
        self._has_ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    def _end(self, how: str) -> None:
        if not self._has_ended:
            self.close()
            self._gone(self, how)


@dataclass(eq=False)
class _PeerState:
    """A process that the scheduler's knows of."""

    role: str
    place: str
    worker_id: int | None
    rank: int | None = None

    def __str__(self) -> str:
        name = self.role if self.rank is None else f"{self.role} {self.rank}"
        return f"{name} ({self.place})"


class Coordinator:
    """The scheduler's side: lets all begin when all are there, and ends all when one is lost."""

    def __init__(self, cluster: Cluster, timeout: float, ended: Callable[[str], object]) -> None:
        """`ended` is called, once, from another thread, with why the run is over.

        Raises UsageError when a port is taken.
        """
        self._cluster, self._timeout, self._ended = cluster, timeout, ended
        self._guests: dict[_Connection, _PeerState] = {}
        self._begun = self._over = False
        self.left: Future[None] = Future()  #: when all have said that they are done
        for port in (cluster.port, cluster.watch_port):
            _check_port(cluster.bound_host, port)
        self._loop = _started_loop()

    def start(self) -> None:
        """Let the others come. Raises UsageError when the port can't be had."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    @property
    def has_left(self) -> bool:
        """Whether the others need this process no longer."""
        return self.left.done()

    def fail(self, reason: str) -> None:
        """Tell all that this process can't go on, unless the run is over already."""

        async def tell() -> None:
            self._tell(f"the scheduler failed: {reason}")

        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(tell(), self._loop).result(_PARTING)

    async def _listen(self) -> None:
        host, port = self._cluster.bound_host or None, self._cluster.watch_port
        try:
            await self._loop.create_server(lambda: _Connection(self._timeout, self._hear, self._gone), host, port)
        except OSError as error:
            raise _no_port(host or "", port, error) from None
        self._loop.call_later(GATHERING, self._end_gathering)

    def _end_gathering(self) -> None:
        if not self._begun:
            self._end(f"not all came within {GATHERING:g} s: {self._census()}")

    def _census(self) -> str:
        wanted = {"worker": self._cluster.workers, "server": self._cluster.servers}
        counts = {role: sum(guest.role == role for guest in self._guests.values()) for role in wanted}
        return ", ".join(f"{counts[role]} of {wanted[role]} {role}s" for role in wanted)

    def _hear(self, connection: _Connection, message: dict[str, Any]) -> None:
        guest = self._guests.get(connection)
        if guest is None:
            self._enter(connection, message)
        elif "failed" in message:
            self._end(f"{guest} failed: {message['failed']}")
        elif "left" in message:
            # The other side waits for it, and closes its own only then: what it said can't be lost.
            connection.close()
            del self._guests[connection]
            if not self._guests:
                self.left.set_result(None)

    def _gone(self, connection: _Connection, how: str) -> None:
        guest = self._guests.pop(connection, None)
        if guest is not None:
            self._end(f"{guest} {how}")

    def _enter(self, connection: _Connection, hello: dict[str, Any]) -> None:
        worker_id = hello.get("worker_id")
        guest = _PeerState(
            str(hello.get("role")), str(hello.get("place")), worker_id if isinstance(worker_id, int) else None
        )
        sizes = [self._cluster.workers, self._cluster.servers]
        wanted = {"worker": sizes[0], "server": sizes[1]}
        alike = [other for other in self._guests.values() if other.role == guest.role]
        refusal = None
        if hello.get("sizes") != sizes:
            refusal = f"{guest} was started for another number of workers or servers than the scheduler: {sizes}"
        elif guest.role not in wanted or len(alike) >= wanted[guest.role]:
            refusal = f"{guest} is one too many: {self._census()} are here"
        elif self._begun or self._over:
            refusal = f"{guest} came too late: the run has begun"
        elif guest.worker_id is not None and guest.worker_id in [other.worker_id for other in alike]:
            refusal = f"{guest} has DMLC_WORKER_ID={guest.worker_id}, as another worker"
        if refusal:
            connection.send({"ended": refusal})
            connection.close()
            return
        self._guests[connection] = guest
        if len(self._guests) == sum(sizes):
            self._begin()

    def _begin(self) -> None:
        self._begun = True
        workers = [guest for guest in self._guests.values() if guest.role == "worker"]
        free = sorted(set(range(len(workers))) - {guest.worker_id for guest in workers}, reverse=True)
        for guest in workers:
            guest.rank = free.pop() if guest.worker_id is None else guest.worker_id
        for connection, guest in self._guests.items():
            connection.send({"begin": guest.rank})

    def _end(self, reason: str) -> None:
        if self._tell(reason):
            self._ended(reason)

    def _tell(self, reason: str) -> bool:
        """Tell all why the run is over, unless it is already."""
        if self._over:
            return False
        self._over = True
        for connection in self._guests:
            connection.send({"ended": reason})
            connection.close()
        return True


def _check_port(host: str, port: int) -> None:
    """MXNet's scheduler ends the process without a word when it can't have its port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            raise _no_port(host, port, error) from None


def _no_port(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(f"the scheduler can't listen on {host or '*'}:{port}: {error.strerror or error}")


class Peer:
    """A worker's or server's side: comes, waits until all are there, and hears when the run is over."""

    def __init__(self, cluster: Cluster, timeout: float, ended: Callable[[str], object]) -> None:
        """`ended` is called, once, from another thread, with why the run is over."""
        self._cluster, self._timeout, self._ended = cluster, timeout, ended
        self._address = f"{cluster.host}:{cluster.watch_port}"
        self.lost: Future[str] = Future()  #: why the run is over
        self._begun: Future[int | None] = Future()
        self._closed: Future[None] = Future()
        self.has_left = False
        self.was_told = False  #: whether WorkersLost was raised
        self._connection: _Connection | None = None
        self._loop = _started_loop()

    def start(self) -> None:
        """Go to the scheduler, in the background."""
        asyncio.run_coroutine_threadsafe(self._come(), self._loop)

    def begin(self) -> int | None:
        """Wait until all are there; the rank of a worker. Raises WorkersLost when it comes to nothing."""
        return self.wait(self._begun)

    def wait(self, future: Future[_Result]) -> _Result:
        """The result of what other processes must do their part for. Raises WorkersLost."""
        both: list[Future[Any]] = [future, self.lost]
        concurrent.futures.wait(both, return_when=concurrent.futures.FIRST_COMPLETED)
        if not future.done():
            self.was_told = True
            raise WorkersLost(self.lost.result())
        return future.result()

    def leave(self) -> None:
        """Say that this process has done its part."""
        self.has_left = True
        self._say({"left": True})

    def fail(self, reason: str) -> None:
        """Say that this process can't go on, unless the run is over already."""
        if not self.lost.done():
            self.has_left = True
            self._say({"failed": reason})

    def _say(self, message: dict[str, Any]) -> None:
        """Say the last thing, and wait until it was heard."""
        if self._connection is not None:
            self._loop.call_soon_threadsafe(self._connection.send, message)
            with contextlib.suppress(concurrent.futures.TimeoutError):
                self._closed.result(_PARTING)

    async def _come(self) -> None:
        try:
            connection = await asyncio.wait_for(self._connect(), GATHERING)
        except asyncio.TimeoutError:
            self._lose(f"no scheduler at {self._address} after {GATHERING:g} s")
            return
        except Exception as error:  # such as UnicodeError for a strange name: nobody would hear of it
            self._lose(f"no scheduler at {self._address}: {error}")
            return
        self._connection = connection
        connection.send(
            {
                "role": self._cluster.role,
                "place": f"process {os.getpid()} on {socket.gethostname()}",
                "sizes": [self._cluster.workers, self._cluster.servers],
                "worker_id": self._cluster.worker_id,
            }
        )

    async def _connect(self) -> _Connection:
        def made() -> _Connection:
            return _Connection(self._timeout, self._hear, self._gone)

        while True:
            try:
                _, connection = await self._loop.create_connection(made, self._cluster.host, self._cluster.watch_port)
            except OSError:
                await asyncio.sleep(_RETRY)
            else:
                return connection

    def _hear(self, connection: _Connection, message: dict[str, Any]) -> None:
        if "begin" in message and not self._begun.done():
            self._begun.set_result(message["begin"])
        if "ended" in message:
            connection.close()
            self._lose(str(message["ended"]))

    def _gone(self, connection: _Connection, how: str) -> None:
        self._lose(f"the scheduler at {self._address} {how}")

    def _lose(self, reason: str) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
            if not self.has_left:
                self.lost.set_result(reason)
                self._ended(reason)
