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
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bertsym.distributed.cluster import Cluster
from bertsym.distributed.workers import WorkersLost
from bertsym.errors import UsageError

GATHERING = 600.0  #: seconds in which all must have come, as long as they are retried
_RETRY = 0.2
_BEATS = 4  # in a timeout
_Result = TypeVar("_Result")


def end_process(reason: str, code: int = 1) -> None:
    """Say why and end at once: threads that wait inside of MXNet can't be stopped."""
    print(f"Error: {reason}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


class _Loop:
    """An asyncio loop in a thread that does not keep the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="watch").start()

    def start(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Run it there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)


@dataclass(eq=False)
class _Connection:
    """One end of a connection on which both sides send lines, and an empty object when they have nothing to say."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    timeout: float
    _beating: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self._beating = asyncio.ensure_future(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.timeout / _BEATS)
            self.send({})

    def send(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other side is gone. Raises asyncio.TimeoutError when it is not heard."""
        try:
            line = await asyncio.wait_for(self.reader.readline(), self.timeout)
            message = json.loads(line) if line else None
        except asyncio.TimeoutError:  # which is an OSError from Python 3.11 on
            raise
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    async def close(self) -> None:
        self._beating.cancel()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self.writer.drain(), 1)
        self.writer.close()


@dataclass(eq=False)
class _Guest:
    """A process that the scheduler's knows of."""

    connection: _Connection
    role: str
    place: str
    worker_id: int | None
    rank: int | None = None

    def __str__(self) -> str:
        name = self.role if self.rank is None else f"{self.role} {self.rank}"
        return f"{name} ({self.place})"


class Hub:
    """The scheduler's side: lets all begin when all are there, and ends all when one is lost."""

    def __init__(self, cluster: Cluster, timeout: float, ended: Callable[[str], object]) -> None:
        """Listen; `ended` is called, once, from another thread, with why the run is over.

        Raises UsageError when the port can't be had.
        """
        self._cluster, self._timeout, self._ended = cluster, timeout, ended
        self._guests: list[_Guest] = []
        self._begun = self._over = False
        self._loop = _Loop()
        self.left: Future[None] = Future()  #: when all have said that they are done
        for port in (cluster.port, cluster.watch_port):
            _check_port(cluster.bound_host, port)
        self._loop.start(self._listen()).result()
        self._loop.start(self._limit_gathering())

    async def _listen(self) -> None:
        await asyncio.start_server(self._meet, self._cluster.bound_host or None, self._cluster.watch_port)

    async def _limit_gathering(self) -> None:
        await asyncio.sleep(GATHERING)
        if not self._begun:
            await self._end(f"not all came within {GATHERING:g} s: {self._census()}")

    def _census(self) -> str:
        wanted = {"worker": self._cluster.workers, "server": self._cluster.servers}
        counts = {role: sum(guest.role == role for guest in self._guests) for role in wanted}
        return ", ".join(f"{counts[role]} of {wanted[role]} {role}s" for role in wanted)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, self._timeout)
        try:
            hello = await connection.receive()
            guest = self._enter(connection, hello) if hello else None
        except asyncio.TimeoutError:  # a stranger
            guest = None
        try:
            if guest is not None:
                await self._listen_to(guest)
        finally:
            await connection.close()

    def _enter(self, connection: _Connection, hello: dict[str, Any]) -> _Guest | None:
        worker_id = hello.get("worker_id")
        guest = _Guest(
            connection,
            str(hello.get("role")),
            str(hello.get("place")),
            worker_id if isinstance(worker_id, int) else None,
        )
        sizes = [self._cluster.workers, self._cluster.servers]
        wanted = {"worker": sizes[0], "server": sizes[1]}
        alike = [other for other in self._guests if other.role == guest.role]
        refusal = None
        if hello.get("sizes") != sizes:
            refusal = f"{guest} was started for another number of workers or servers than the scheduler: {sizes}"
        elif guest.role not in wanted or len(alike) >= wanted[guest.role]:
            refusal = f"{guest} is one too many: {self._census()} are here"
        elif guest.worker_id is not None and guest.worker_id in [other.worker_id for other in alike]:
            refusal = f"{guest} has DMLC_WORKER_ID={guest.worker_id}, as another worker"
        if refusal:
            connection.send({"ended": refusal})
            return None
        self._guests.append(guest)
        if len(self._guests) == sum(sizes):
            self._begin()
        return guest

    def _begin(self) -> None:
        self._begun = True
        workers = [guest for guest in self._guests if guest.role == "worker"]
        free = sorted(set(range(len(workers))) - {guest.worker_id for guest in workers}, reverse=True)
        for guest in workers:
            guest.rank = free.pop() if guest.worker_id is None else guest.worker_id
        for guest in self._guests:
            guest.connection.send({"begin": guest.rank})

    async def _listen_to(self, guest: _Guest) -> None:
        try:
            while (message := await guest.connection.receive()) is not None:
                if "failed" in message:
                    await self._end(f"{guest} failed: {message['failed']}")
                if "left" in message:
                    self._guests.remove(guest)
                    if not self._guests:
                        self.left.set_result(None)
                    return
            await self._end(f"{guest} died")
        except asyncio.TimeoutError:
            await self._end(f"{guest} was not heard for {self._timeout:g} s")

    async def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        for guest in self._guests:
            guest.connection.send({"ended": reason})
        await asyncio.gather(*(guest.connection.close() for guest in self._guests))
        self._ended(reason)


def _check_port(host: str, port: int) -> None:
    """MXNet's scheduler ends the process without a word when it can't have its port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            raise UsageError(f"the scheduler can't listen on {host or '*'}:{port}: {error.strerror or error}") from None


class Member:
    """A worker's or server's side: comes, waits until all are there, and hears when the run is over."""

    def __init__(self, cluster: Cluster, timeout: float, ended: Callable[[str], object]) -> None:
        """Come; `ended` is called, once, from another thread, with why the run is over."""
        self._cluster, self._timeout, self._ended = cluster, timeout, ended
        self.lost: Future[str] = Future()  #: why the run is over
        self._begun: Future[int | None] = Future()
        self.has_left = False
        self._loop = _Loop()
        self._connection: _Connection | None = None
        self._loop.start(self._live())

    def begin(self) -> int | None:
        """Wait until all are there; the rank of a worker. Raises WorkersLost when it comes to nothing."""
        return self.wait(self._begun)

    def wait(self, future: Future[_Result]) -> _Result:
        """The result of what other processes must do their part for. Raises WorkersLost."""
        both: list[Future[Any]] = [future, self.lost]
        concurrent.futures.wait(both, return_when=concurrent.futures.FIRST_COMPLETED)
        if not future.done():
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
        async def say() -> None:
            if self._connection is not None:
                self._connection.send(message)
                await self._connection.close()

        self._loop.start(say()).result(self._timeout)

    async def _live(self) -> None:
        address = f"{self._cluster.host}:{self._cluster.watch_port}"
        try:
            connection = await asyncio.wait_for(self._connect(), GATHERING)
        except asyncio.TimeoutError:
            return self._lose(f"no scheduler at {address} after {GATHERING:g} s")
        self._connection = connection
        connection.send(
            {
                "role": self._cluster.role,
                "place": f"process {os.getpid()} on {socket.gethostname()}",
                "sizes": [self._cluster.workers, self._cluster.servers],
                "worker_id": self._cluster.worker_id,
            }
        )
        try:
            while (message := await connection.receive()) is not None:
                if "begin" in message:
                    self._begun.set_result(message["begin"])
                if "ended" in message:
                    return self._lose(message["ended"])
            self._lose(f"the scheduler at {address} died")
        except asyncio.TimeoutError:
            self._lose(f"the scheduler at {address} was not heard for {self._timeout:g} s")
        finally:
            await connection.close()

    async def _connect(self) -> _Connection:
        while True:
            try:
                streams = await asyncio.open_connection(self._cluster.host, self._cluster.watch_port)
            except OSError:
                await asyncio.sleep(_RETRY)
            else:
                return _Connection(*streams, self._timeout)

    def _lose(self, reason: str) -> None:
        if not self.has_left:
            self.lost.set_result(reason)
            self._ended(reason)
