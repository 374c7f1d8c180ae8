"""Who of a distributed run is alive: all hear when one is not, and why, and nobody waits for ever."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import Future
from typing import Any

import pytest

from bertsym import UsageError
from bertsym.distributed import liveness
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.liveness import Coordinator, Peer
from bertsym.distributed.workers import WorkersLost


@pytest.fixture
def cluster() -> Cluster:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return Cluster("worker", "127.0.0.1", one.getsockname()[1], 2, 1)


class Ended(Future[str]):
    def __call__(self, reason: str) -> None:
        self.set_result(reason)


@pytest.fixture
def hub(cluster: Cluster) -> Ended:
    ended = Ended()
    Coordinator(cluster, 1.0, ended).start()
    return ended


def guest(cluster: Cluster, **changes: Any) -> Peer:
    member = Peer(Cluster(**{**vars(cluster), **changes}), 1.0, lambda reason: None)
    member.start()
    return member


def test_all_begin_when_all_are_there_with_the_ranks_that_they_ask_for(cluster: Cluster, hub: Ended) -> None:
    members = [guest(cluster), guest(cluster, worker_id=0), guest(cluster, role="server")]
    assert [member.begin() for member in members] == [1, 0, None]
    time.sleep(1.5)  # beyond the timeout: they are heard
    assert not hub.done()
    for member in members:
        member.leave()
    time.sleep(0.2)
    assert not hub.done()


def test_the_others_know_of_nobody_who_could_not_tell_them_of_a_failure_yet(cluster: Cluster) -> None:
    """A signal between the making of a member and what watches over it would be told to nobody."""
    with socket.create_server((cluster.host, cluster.watch_port)) as scheduler:
        Peer(cluster, 1.0, print)
        scheduler.settimeout(0.5)
        with pytest.raises(socket.timeout):
            scheduler.accept()
    Coordinator(cluster, 1.0, print)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((cluster.host, cluster.watch_port))


def test_a_failure_is_told_to_all(cluster: Cluster, hub: Ended) -> None:
    members = [guest(cluster), guest(cluster), guest(cluster, role="server")]
    for member in members:
        member.begin()
    rank = members[1].begin()
    members[1].fail("no more memory")
    said = rf"worker {rank} \(process \d+ on .*\) failed: no more memory"
    assert re.fullmatch(said, hub.result(5))
    with pytest.raises(WorkersLost, match=said):
        members[0].wait(Future())


def test_one_that_says_nothing_is_given_up(cluster: Cluster, hub: Ended) -> None:
    hello = {"role": "server", "place": "nowhere", "sizes": [2, 1], "worker_id": None}
    with socket.create_connection((cluster.host, cluster.watch_port)) as silent:
        silent.sendall(json.dumps(hello).encode() + b"\n")
        assert hub.result(5) == "server (nowhere) was not heard for 1 s"


def test_those_that_slept_themselves_give_nobody_up(cluster: Cluster) -> None:
    """As on a machine with too much work: nobody could say that he lives."""
    ended = Ended()
    hub = Coordinator(cluster, 1.0, ended)
    hub.start()
    members = [guest(cluster), guest(cluster), guest(cluster, role="server")]
    for member in members:
        member.begin()
    for loop in (hub._loop, *(member._loop for member in members)):
        loop.call_soon_threadsafe(time.sleep, 1.5)
    time.sleep(2.5)
    assert not ended.done()
    assert not any(member.lost.done() for member in members)


@pytest.mark.parametrize("first", ["read", "write"])
def test_what_was_said_last_is_heard_though_the_connection_breaks(cluster: Cluster, first: str) -> None:
    """With messages before it, and all of it at once; found out by reading, or by writing."""
    with socket.create_server((cluster.host, cluster.watch_port)) as scheduler:
        member = guest(cluster)
        connection, _ = scheduler.accept()
        with connection.makefile() as said:
            assert any("role" in json.loads(line) for line in said)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # by a reset

        def slow() -> None:
            time.sleep(0.3)
            if first == "write":
                assert member._connection
                member._connection.send({})

        member._loop.call_soon_threadsafe(slow)
        time.sleep(0.1)
        connection.sendall(b'{}\n{"begin": 1}\n{"begin": 1}\n{"ended": "worker 1 died"}\n')
        connection.close()
        assert member.lost.result(10) == "worker 1 died"
        assert member.begin() == 1


def test_who_comes_when_another_has_left_already_is_refused(cluster: Cluster, hub: Ended) -> None:
    first, second, server = (guest(cluster), guest(cluster), guest(cluster, role="server"))
    for member in (first, second, server):
        member.begin()
    second.leave()
    with pytest.raises(WorkersLost, match=r"worker \(process .*\) came too late: the run has begun"):
        guest(cluster).begin()
    assert not hub.done()
    assert not first.lost.done()


def test_strangers_and_those_that_do_not_belong_there_change_nothing(cluster: Cluster, hub: Ended) -> None:
    for text in (b"GET / HTTP/1.0\r\n\r\n", b"[1]\n", b'{"role": ["worker"], "worker_id": [1]}\n', b"\xff" * 100_000):
        with socket.create_connection((cluster.host, cluster.watch_port)) as stranger:
            stranger.sendall(text)
    first, _, _ = members = [guest(cluster, worker_id=1), guest(cluster), guest(cluster, role="server")]
    for member in members:
        member.begin()
    for changes, said in (
        ({}, "one too many: 2 of 2 workers, 1 of 1 servers are here"),
        ({"role": "boss"}, "one too many"),
        ({"workers": 3}, r"another number of workers or servers than the scheduler: \[2, 1\]"),
    ):
        with pytest.raises(WorkersLost, match=said):
            guest(cluster, **changes).begin()
    assert not hub.done()
    assert first.begin() == 1


def test_when_not_all_come_those_that_are_there_are_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "GATHERING", 0.5)
    ended = Ended()
    Coordinator(cluster, 1.0, ended).start()
    with pytest.raises(WorkersLost, match=r"not all came within 0.5 s: 1 of 2 workers, 0 of 1 servers"):
        guest(cluster).begin()
    assert ended.result(5)


def test_without_a_scheduler_a_worker_does_not_wait_for_ever(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "GATHERING", 0.5)
    with pytest.raises(WorkersLost, match=r"no scheduler at 127.0.0.1:\d+ after 0.5 s"):
        guest(cluster).begin()


def test_a_strange_name_of_the_scheduler_is_no_reason_to_wait(cluster: Cluster) -> None:
    with pytest.raises(WorkersLost, match=r"no scheduler at a\.\.b:\d+: .*idna"):
        guest(cluster, host="a..b").begin()


def test_a_port_that_is_taken_is_refused(cluster: Cluster) -> None:
    with socket.create_server((cluster.host, cluster.port)), pytest.raises(UsageError, match="can't listen on"):
        Coordinator(cluster, 1.0, print)


def test_text_from_other_processes_is_escaped_before_a_terminal_shows_it() -> None:
    program = "from bertsym.distributed.liveness import end_process; end_process('worker 0 failed: \\x1b[2J\\n\\x07')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "Error: worker 0 failed: \\x1b[2J \\x07\n")
