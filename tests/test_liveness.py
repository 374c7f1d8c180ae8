"""Liveness of a distributed run: if one process is lost, every other process learns why and ends."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from bertsym import UsageError
from bertsym.distributed import liveness
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.liveness import Coordinator, Peer
from bertsym.distributed.workers import WorkersLost

TIMEOUT = 600.0  # seconds without a message; no test waits so long
DEADLOCK = 600.0  # seconds after which an event counts as missing
HELLO = {"role": "server", "place": "nowhere", "sizes": [2, 1], "worker_id": None}


@pytest.fixture
def cluster() -> Cluster:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return Cluster("worker", "127.0.0.1", one.getsockname()[1], 2, 1)


class Ended(Future[str]):
    def __call__(self, reason: str) -> None:
        self.set_result(reason)


class RunningCoordinator(Coordinator):
    """A coordinator that listens; `ended` has the reason why the run ended, and its clock can be moved forward."""

    def __init__(self, cluster: Cluster) -> None:
        self.ended, self._offset = Ended(), 0.0
        super().__init__(cluster, TIMEOUT, self.ended)
        setattr(self._loop, "time", lambda: time.monotonic() + self._offset)  # noqa: B010
        self.start()

    def advance(self, seconds: float) -> None:
        def advance() -> None:
            self._offset += seconds

        self._loop.call_soon_threadsafe(advance)  # not in the middle of a callback


@pytest.fixture
def coordinator(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> RunningCoordinator:
    monkeypatch.setattr(liveness, "START_TIMEOUT", 10 * TIMEOUT)
    return RunningCoordinator(cluster)


def connect(cluster: Cluster, **changes: Any) -> Peer:
    peer = Peer(Cluster(**{**vars(cluster), **changes}), TIMEOUT, lambda reason: None)
    peer.start()
    return peer


def connect_all(cluster: Cluster) -> list[Peer]:
    """Two workers and a server, which have started."""
    peers = [connect(cluster), connect(cluster), connect(cluster, role="server")]
    for peer in peers:
        peer.wait_for_start()
    return peers


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLOCK
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_run_starts_when_all_are_connected_with_the_ranks_that_workers_request(
    cluster: Cluster, coordinator: RunningCoordinator
) -> None:
    peers = [connect(cluster), connect(cluster, worker_id=0), connect(cluster, role="server")]
    assert [peer.wait_for_start() for peer in peers] == [1, 0, None]
    for peer in peers:
        peer.leave()
    coordinator.all_left.result(DEADLOCK)
    assert not coordinator.ended.done()


def test_no_process_is_connected_before_it_could_report_a_failure(cluster: Cluster) -> None:
    """A signal between the construction and the start would be reported to nobody."""
    with socket.create_server((cluster.host, cluster.liveness_port)) as scheduler:
        Peer(cluster, TIMEOUT, print)
        scheduler.settimeout(0.5)
        with pytest.raises(socket.timeout):
            scheduler.accept()
    Coordinator(cluster, TIMEOUT, print)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((cluster.host, cluster.liveness_port))


def test_a_failure_is_reported_to_all(cluster: Cluster, coordinator: RunningCoordinator) -> None:
    peers = connect_all(cluster)
    rank = peers[1].wait_for_start()
    peers[1].fail("no more memory")
    reason = rf"worker {rank} \(process \d+ on .*\) failed: no more memory"
    assert re.fullmatch(reason, coordinator.ended.result(DEADLOCK))
    with pytest.raises(WorkersLost, match=reason):
        peers[0].wait(Future())


def test_a_process_is_lost_if_it_sends_no_message_within_the_timeout(
    cluster: Cluster, coordinator: RunningCoordinator
) -> None:
    with socket.create_connection((cluster.host, cluster.liveness_port)) as peer, peer.makefile() as messages:
        peer.sendall(json.dumps(HELLO).encode() + b"\n")
        wait_until(lambda: len(coordinator._peers) == 1)
        while messages.readline() == "{}\n":
            coordinator.advance(TIMEOUT / 4)
    assert coordinator.ended.result(DEADLOCK) == "server (nowhere) sent no message for 600 s"


def test_a_process_is_not_lost_while_it_sends_heartbeats(cluster: Cluster, coordinator: RunningCoordinator) -> None:
    with socket.create_connection((cluster.host, cluster.liveness_port)) as peer, peer.makefile() as messages:
        peer.sendall(json.dumps(HELLO).encode() + b"\n")
        wait_until(lambda: len(coordinator._peers) == 1)
        (connection,) = coordinator._peers
        for _ in range(10):
            assert messages.readline() == "{}\n"
            coordinator.advance(TIMEOUT / 4)
            peer.sendall(b"{}\n")
            wait_until(lambda: connection._last_received > coordinator._loop.time() - TIMEOUT / 8)
        assert not coordinator.ended.done()


def test_a_suspended_process_does_not_declare_others_lost(cluster: Cluster, coordinator: RunningCoordinator) -> None:
    """As on an overloaded machine, where no process could have sent a message."""
    with socket.create_connection((cluster.host, cluster.liveness_port)) as peer, peer.makefile() as messages:
        peer.sendall(json.dumps(HELLO).encode() + b"\n")
        wait_until(lambda: len(coordinator._peers) == 1)
        assert messages.readline() == "{}\n"
        coordinator.advance(2 * TIMEOUT)
        assert messages.readline() == "{}\n"
    assert re.fullmatch(r"server \(nowhere\) died", coordinator.ended.result(DEADLOCK))


@pytest.mark.parametrize("first", ["read", "write"])
def test_the_last_messages_are_received_though_the_connection_breaks(cluster: Cluster, first: str) -> None:
    """With heartbeats before them, all at once; the break is detected by a read or by a write."""
    with socket.create_server((cluster.host, cluster.liveness_port)) as scheduler:
        peer = connect(cluster)
        connection, _ = scheduler.accept()
        with connection.makefile() as messages:
            assert any("role" in json.loads(line) for line in messages)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        is_blocked, is_broken = threading.Event(), threading.Event()

        def block() -> None:
            is_blocked.set()
            is_broken.wait(DEADLOCK)
            if first == "write":
                assert peer._connection
                peer._connection.send({})

        peer._loop.call_soon_threadsafe(block)
        is_blocked.wait(DEADLOCK)
        connection.sendall(b'{}\n{"start": 1}\n{"start": 1}\n{"ended": "worker 1 died"}\n')
        connection.close()
        is_broken.set()
        assert peer.lost.result(DEADLOCK) == "worker 1 died"
        assert peer.wait_for_start() == 1


def test_a_process_that_connects_after_another_has_left_is_refused(
    cluster: Cluster, coordinator: RunningCoordinator
) -> None:
    first, second, _ = connect_all(cluster)
    second.leave()
    with pytest.raises(WorkersLost, match=r"worker \(process .*\) connected too late: the run has started"):
        connect(cluster).wait_for_start()
    assert not coordinator.ended.done()
    assert not first.lost.done()


def test_unknown_and_unexpected_processes_do_not_affect_the_run(
    cluster: Cluster, coordinator: RunningCoordinator
) -> None:
    for text in (b"GET / HTTP/1.0\r\n\r\n", b"[1]\n", b'{"role": ["worker"], "worker_id": [1]}\n', b"\xff" * 100_000):
        with socket.create_connection((cluster.host, cluster.liveness_port)) as stranger:
            stranger.sendall(text)
    first, _, _ = peers = [connect(cluster, worker_id=1), connect(cluster), connect(cluster, role="server")]
    for peer in peers:
        peer.wait_for_start()
    for changes, reason in (
        ({}, "is not expected: 2 of 2 workers, 1 of 1 servers are connected"),
        ({"role": "boss"}, "is not expected"),
        ({"workers": 3}, r"other numbers of workers and servers than the scheduler, \[2, 1\]"),
    ):
        with pytest.raises(WorkersLost, match=reason):
            connect(cluster, **changes).wait_for_start()
    assert not coordinator.ended.done()
    assert first.wait_for_start() == 1


def test_if_not_all_connect_the_connected_processes_get_an_error(
    cluster: Cluster, coordinator: RunningCoordinator
) -> None:
    peer = connect(cluster)
    wait_until(lambda: len(coordinator._peers) == 1)
    coordinator.advance(liveness.START_TIMEOUT)
    with pytest.raises(WorkersLost, match=r"not all processes connected within 6000 s: 1 of 2 workers, 0 of 1 servers"):
        peer.wait_for_start()
    assert coordinator.ended.result(DEADLOCK)


def test_a_worker_does_not_wait_forever_for_a_scheduler(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "START_TIMEOUT", 0.5)
    with pytest.raises(WorkersLost, match=r"no scheduler at 127.0.0.1:\d+ after 0.5 s"):
        connect(cluster).wait_for_start()


def test_an_invalid_host_name_of_the_scheduler_is_reported_at_once(cluster: Cluster) -> None:
    with pytest.raises(WorkersLost, match=r"no scheduler at a\.\.b:\d+: .*label empty"):
        connect(cluster, host="a..b").wait_for_start()


def test_a_port_that_is_taken_is_refused(cluster: Cluster) -> None:
    with socket.create_server((cluster.host, cluster.port)), pytest.raises(UsageError, match="cannot listen on"):
        Coordinator(cluster, TIMEOUT, print)


def test_text_from_other_processes_is_escaped_before_a_terminal_shows_it() -> None:
    program = "from bertsym.distributed.liveness import end_process; end_process('worker 0 failed: \\x1b[2J\\n\\x07')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLOCK)
    assert (done.returncode, done.stderr) == (1, "Error: worker 0 failed: \\x1b[2J \\x07\n")
