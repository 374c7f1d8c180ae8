"""Liveness of a distributed run: each process sends heartbeats to the scheduler, which ends the run if one is lost.

MXNet's own heartbeats do not end a run: without this module, a worker waits forever for a dead one. Messages are JSON
objects, one per line; an empty object is a heartbeat.
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

START_TIMEOUT = 600.0  #: seconds within which all processes must have connected
_RETRY_DELAY = 0.2  # seconds between two attempts to connect
_HEARTBEATS = 4  # per timeout
_CLOSE_TIMEOUT = 5.0  # seconds to wait until a last message is received
_MAX_MESSAGE = 1 << 16  # bytes
_Result = TypeVar("_Result")


def end_process(reason: str, code: int = 1) -> None:
    """Print the reason, which may quote other processes, and exit: threads inside of MXNet cannot be stopped."""
    with contextlib.suppress(OSError, ValueError):
        print(f"Error: {one_line(reason)}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


def _start_loop() -> asyncio.AbstractEventLoop:
    """Start an asyncio loop in a daemon thread."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="liveness").start()
    return loop


class _Connection(asyncio.Protocol):
    """One end of a connection, which sends messages and heartbeats.

    Callbacks run in the loop's thread: `on_message` for each message, and `on_disconnect` once, with the cause, after
    all messages.
    """

    def __init__(
        self,
        timeout: float,
        on_message: Callable[[_Connection, dict[str, Any]], object],
        on_disconnect: Callable[[_Connection, str], object],
    ) -> None:
        self._timeout, self._on_message, self._on_disconnect = timeout, on_message, on_disconnect
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._last_received = self._last_sent = self._loop.time()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        now, interval = self._loop.time(), self._timeout / _HEARTBEATS
        if now - self._last_sent > 2 * interval:
            self._last_received = now  # this process was suspended, not the other one
        if now - self._last_received > self._timeout:
            self._disconnect(f"sent no message for {self._timeout:g} s")
            return
        self.send({})
        self._last_sent = now
        self._timer = self._loop.call_later(interval, self._send_heartbeat)

    def send(self, message: dict[str, Any]) -> None:
        if not self._transport.is_closing():
            self._transport.write(json.dumps(message).encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        self._last_received = self._loop.time()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self._disconnect("sent an invalid message")
            elif message and not self._is_closed:
                self._on_message(self, message)
        if len(self._buffer) > _MAX_MESSAGE:
            self._disconnect("sent an invalid message")

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._read_pending()
        self._disconnect("died")

    def _read_pending(self) -> None:
        """Read the messages that had arrived when a write failed."""
        handle = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):
            while not self._is_closed and (data := os.read(handle, _MAX_MESSAGE)):
                self.data_received(data)

    def close(self) -> None:
        """Close after pending messages are sent; received messages are ignored from now on."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    def _disconnect(self, cause: str) -> None:
        if not self._is_closed:
            self.close()
            self._on_disconnect(self, cause)


@dataclass(eq=False)
class _PeerState:
    """A connected process, as the scheduler knows it."""

    role: str
    place: str
    worker_id: int | None
    rank: int | None = None

    def __str__(self) -> str:
        name = self.role if self.rank is None else f"{self.role} {self.rank}"
        return f"{name} ({self.place})"


class Coordinator:
    """The scheduler's side: starts the run once all processes are connected, and ends it if one is lost."""

    def __init__(self, cluster: Cluster, timeout: float, on_end: Callable[[str], object]) -> None:
        """Check that the ports are free; raises UsageError if one is not.

        `on_end` is called once, from another thread, with the reason why the run ended early.
        """
        self._cluster, self._timeout, self._on_end = cluster, timeout, on_end
        self._peers: dict[_Connection, _PeerState] = {}
        self._has_started = self._has_ended = False
        self.all_left: Future[None] = Future()  #: done when all processes have left
        for port in (cluster.port, cluster.liveness_port):
            _check_port(cluster.bound_host, port)
        self._loop = _start_loop()

    def start(self) -> None:
        """Accept connections; raises UsageError if the port is unavailable."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    @property
    def has_left(self) -> bool:
        """Whether the other processes no longer need this one."""
        return self.all_left.done()

    def fail(self, reason: str) -> None:
        """End the run because this process failed."""

        async def announce() -> None:
            self._announce_end(f"the scheduler failed: {reason}")

        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(announce(), self._loop).result(_CLOSE_TIMEOUT)

    async def _listen(self) -> None:
        host, port = self._cluster.bound_host or None, self._cluster.liveness_port
        try:
            await self._loop.create_server(
                lambda: _Connection(self._timeout, self._on_message, self._on_disconnect), host, port
            )
        except OSError as error:
            raise _port_error(host or "", port, error) from None
        self._loop.call_later(START_TIMEOUT, self._check_started)

    def _check_started(self) -> None:
        if not self._has_started:
            self._end(f"not all processes connected within {START_TIMEOUT:g} s: {self._count_peers()}")

    def _count_peers(self) -> str:
        expected = {"worker": self._cluster.workers, "server": self._cluster.servers}
        counts = {role: sum(peer.role == role for peer in self._peers.values()) for role in expected}
        return ", ".join(f"{counts[role]} of {expected[role]} {role}s" for role in expected)

    def _on_message(self, connection: _Connection, message: dict[str, Any]) -> None:
        peer = self._peers.get(connection)
        if peer is None:
            self._register(connection, message)
        elif "failed" in message:
            self._end(f"{peer} failed: {message['failed']}")
        elif "left" in message:
            # The other side waits for this close before it closes its own end, so that its message is not lost.
            connection.close()
            del self._peers[connection]
            if not self._peers:
                self.all_left.set_result(None)

    def _on_disconnect(self, connection: _Connection, cause: str) -> None:
        peer = self._peers.pop(connection, None)
        if peer is not None:
            self._end(f"{peer} {cause}")

    def _register(self, connection: _Connection, hello: dict[str, Any]) -> None:
        worker_id = hello.get("worker_id")
        peer = _PeerState(
            str(hello.get("role")), str(hello.get("place")), worker_id if isinstance(worker_id, int) else None
        )
        sizes = [self._cluster.workers, self._cluster.servers]
        expected = {"worker": sizes[0], "server": sizes[1]}
        same_role = [other for other in self._peers.values() if other.role == peer.role]
        refusal = None
        if hello.get("sizes") != sizes:
            refusal = f"{peer} was started with other numbers of workers and servers than the scheduler, {sizes}"
        elif peer.role not in expected or len(same_role) >= expected[peer.role]:
            refusal = f"{peer} is not expected: {self._count_peers()} are connected"
        elif self._has_started or self._has_ended:
            refusal = f"{peer} connected too late: the run has started"
        elif peer.worker_id is not None and peer.worker_id in [other.worker_id for other in same_role]:
            refusal = f"{peer} has DMLC_WORKER_ID={peer.worker_id}, which another worker already has"
        if refusal:
            connection.send({"ended": refusal})
            connection.close()
            return
        self._peers[connection] = peer
        if len(self._peers) == sum(sizes):
            self._start_run()

    def _start_run(self) -> None:
        self._has_started = True
        workers = [peer for peer in self._peers.values() if peer.role == "worker"]
        free = sorted(set(range(len(workers))) - {peer.worker_id for peer in workers}, reverse=True)
        for peer in workers:
            peer.rank = free.pop() if peer.worker_id is None else peer.worker_id
        for connection, peer in self._peers.items():
            connection.send({"start": peer.rank})

    def _end(self, reason: str) -> None:
        if self._announce_end(reason):
            self._on_end(reason)

    def _announce_end(self, reason: str) -> bool:
        """Send all peers the reason why the run ended; returns False if it has ended before."""
        if self._has_ended:
            return False
        self._has_ended = True
        for connection in self._peers:
            connection.send({"ended": reason})
            connection.close()
        return True


def _check_port(host: str, port: int) -> None:
    """Raise UsageError if a port is taken; MXNet's scheduler would exit silently."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _port_error(host, port, error) from None


def _port_error(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(f"the scheduler cannot listen on {host or '*'}:{port}: {error.strerror or error}")


class Peer:
    """A worker's or server's side: connects to the scheduler, waits for the start, and learns when the run ends."""

    def __init__(self, cluster: Cluster, timeout: float, on_end: Callable[[str], object]) -> None:
        """`on_end` is called once, from another thread, with the reason why the run ended early."""
        self._cluster, self._timeout, self._on_end = cluster, timeout, on_end
        self._address = f"{cluster.host}:{cluster.liveness_port}"
        self.lost: Future[str] = Future()  #: the reason why the run ended early
        self._started: Future[int | None] = Future()
        self._closed: Future[None] = Future()
        self.has_left = False
        self.has_raised = False  #: whether `wait` raised WorkersLost
        self._connection: _Connection | None = None
        self._loop = _start_loop()

    def start(self) -> None:
        """Connect to the scheduler, in the background."""
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop)

    def wait_for_start(self) -> int | None:
        """Wait until all processes are connected; returns a worker's rank. Raises WorkersLost if the run ends."""
        return self.wait(self._started)

    def wait(self, future: Future[_Result]) -> _Result:
        """Return the result of a future that depends on other processes; raises WorkersLost if the run ends."""
        both: list[Future[Any]] = [future, self.lost]
        concurrent.futures.wait(both, return_when=concurrent.futures.FIRST_COMPLETED)
        if not future.done():
            self.has_raised = True
            raise WorkersLost(self.lost.result())
        return future.result()

    def leave(self) -> None:
        """Leave the run: this process has done its work."""
        self.has_left = True
        self._send_last({"left": True})

    def fail(self, reason: str) -> None:
        """End the run because this process failed."""
        if not self.lost.done():
            self.has_left = True
            self._send_last({"failed": reason})

    def _send_last(self, message: dict[str, Any]) -> None:
        """Send the last message, and wait until it was received."""
        if self._connection is not None:
            self._loop.call_soon_threadsafe(self._connection.send, message)
            with contextlib.suppress(concurrent.futures.TimeoutError):
                self._closed.result(_CLOSE_TIMEOUT)

    async def _connect(self) -> None:
        try:
            connection = await asyncio.wait_for(self._retry_connecting(), START_TIMEOUT)
        except asyncio.TimeoutError:
            self._on_lost(f"no scheduler at {self._address} after {START_TIMEOUT:g} s")
            return
        except Exception as error:  # such as UnicodeError for an invalid host name: nothing else would report it
            self._on_lost(f"no scheduler at {self._address}: {error}")
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

    async def _retry_connecting(self) -> _Connection:
        def protocol() -> _Connection:
            return _Connection(self._timeout, self._on_message, self._on_disconnect)

        while True:
            try:
                _, connection = await self._loop.create_connection(
                    protocol, self._cluster.host, self._cluster.liveness_port
                )
            except OSError:
                await asyncio.sleep(_RETRY_DELAY)
            else:
                return connection

    def _on_message(self, connection: _Connection, message: dict[str, Any]) -> None:
        if "start" in message and not self._started.done():
            self._started.set_result(message["start"])
        if "ended" in message:
            connection.close()
            self._on_lost(str(message["ended"]))

    def _on_disconnect(self, connection: _Connection, cause: str) -> None:
        self._on_lost(f"the scheduler at {self._address} {cause}")

    def _on_lost(self, reason: str) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
            if not self.has_left:
                self.lost.set_result(reason)
                self._on_end(reason)
