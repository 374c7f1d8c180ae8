"""Several processes that train one model: as one process would, and never without an end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables, write_hugging_face

from bertsym import Classifier, ParamsFile, UsageError, export
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.workers import Workers
from bertsym.symbol.params import Array
from bertsym.text.batches import training_batches

LAUNCHER = Path(__file__).parents[1] / "scripts" / "launch_local"
VARIABLES = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "127.0.0.1",
    "DMLC_PS_ROOT_PORT": "9091",
    "DMLC_NUM_WORKER": "2",
    "DMLC_NUM_SERVER": "1",
}
QUIET = {"PYTHONWARNINGS": "ignore"}


Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start launch_local: launch(workers, *command, grace=20). After the test, or two minutes, all of it is killed."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def start(workers: int, *command: object, grace: float = 20) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(LAUNCHER), "--grace", str(grace), str(workers), *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **QUIET},
        )
        timer = threading.Timer(120, end, [process])
        timer.start()
        started.append((process, timer))
        return process

    def end(process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(OSError):
            for child in children_of(process):
                os.killpg(child, signal.SIGKILL)
        process.kill()

    yield start
    for process, timer in started:
        timer.cancel()
        end(process)
        process.wait()
        assert process.stdout
        process.stdout.close()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=100)
    return out.splitlines()


def training(base: Path, tables: Tables, out: Path, *more: object) -> list[object]:
    files = ["--train", tables.train, "--dev", tables.dev, out]
    settings = ["--lr", "2e-3", "--max-length", 24, "--batch-size", 15, *more]
    return ["finetune", base, *files, *settings]


def trained_together(*arguments: object) -> list[object]:
    return [sys.executable, "-m", "bertsym", *arguments, "--kvstore", "dist_sync", "--worker-timeout", 10]


@pytest.fixture
def cluster() -> Cluster:
    # The scheduler takes the next port too.
    while True:
        with socket.socket() as one, socket.socket() as next_one, contextlib.suppress(OSError, OverflowError):
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            next_one.bind(("127.0.0.1", port + 1))
            return Cluster("worker", "127.0.0.1", port, 2, 1)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of the tiny BERT without dropout, so that a step does not depend on who computes which row."""
    folder = tmp_path_factory.mktemp("still")
    write_hugging_face(folder / "hf", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return export(f"hf:{folder / 'hf'}", folder / "base", output="cls").bundle.prefix


@pytest.fixture(scope="module")
def odd_tables(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """61 rows: of the last of 5 batches of 15, the second of two workers has none. And 2 rows that can't be read."""
    path = tmp_path_factory.mktemp("odd") / "train.tsv"
    lines = tables.train.read_text().splitlines(keepends=True)[:62]
    path.write_text("".join([*lines[:9], "ragged\n", *lines[9:], "no\t\n"]))
    return Tables(path, tables.dev)


def params(prefix: Path) -> dict[str, Array]:
    return {name: np.array(array) for name, array in ParamsFile(f"{prefix}-0000.params").items()}


# Steps


def test_the_shares_of_the_workers_are_the_batch() -> None:
    shares = []
    for rank in range(3):
        worker = Workers()
        worker.rank, worker.count = rank, 3
        shares.append([worker.share(rows) for rows in training_batches(np.arange(40), 8, 0, 1)])
    for parts, whole in zip(zip(*shares), training_batches(np.arange(40), 8, 0, 1)):
        assert sorted(np.concatenate(parts)) == sorted(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_workers_make_the_steps_of_one_process(
    cli: Callable[..., Result], launch: Launch, still: Path, odd_tables: Tables, tmp_path: Path
) -> None:
    """Key biases aside: the result does not depend on them, and Adam steps by the sign of their rounding errors."""
    settings = ("--epochs", 2, "--dropout", 0, "--on-error", "skip")
    both = launch(2, *trained_together(*training(still, odd_tables, tmp_path / "two", *settings)))
    alone = cli(*training(still, odd_tables, tmp_path / "one", *settings))
    lines = finish(both)
    assert (both.returncode, alone.code) == (0, 0), lines
    assert any(re.search(r"parameters of all 2 workers are the same: sha256 [0-9a-f]{64}", line) for line in lines)
    start, one, two = (params(prefix) for prefix in (still, tmp_path / "one", tmp_path / "two"))
    assert max(np.abs(one[name] - array).max() for name, array in start.items()) > 1e-3
    for name, array in one.items():
        if not name.endswith("_key_bias"):
            np.testing.assert_allclose(two[name], array, atol=1e-5, err_msg=name)
    texts = ["the happy cat sat on the mat", "a very sad story"]
    first, second = (
        [list(answer.probabilities.values()) for answer in Classifier(tmp_path / name).predict(texts)]
        for name in ("one", "two")
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    # The loss of an epoch is that of all rows, not of the first worker's.
    losses = [re.findall(r"train loss ([\d.]+)", text) for text in (alone.err, "\n".join(lines))]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_workers_drop_different_values_and_have_the_same_parameters(
    launch: Launch, bundles: dict[str, Path], odd_tables: Tables, tmp_path: Path
) -> None:
    """In several passes, and the first to stop early decides for all."""
    settings = ("--epochs", 40, "--patience", 1, "--accumulate", 2, "--on-error", "skip")
    run = launch(2, *trained_together(*training(bundles["cls"], odd_tables, tmp_path / "out", *settings)))
    lines = finish(run)
    assert run.returncode == 0, lines
    assert any("workers are the same" in line for line in lines)
    manifest = json.loads(Path(f"{tmp_path}/out-manifest.json").read_text())
    assert manifest["training"]["workers"] == 2
    assert [manifest["training"]["data"]["train"][name] for name in ("rows", "left_out")] == [61, 2]
    assert len(manifest["training"]["dev_metrics"]) < 40


# Ends


def child_of(launcher: subprocess.Popen[str], **wanted: str) -> int:
    """The process id of a role."""
    for child in children_of(launcher):
        variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        if all(f"{name}={value}" in variables for name, value in wanted.items()):
            return child
    raise AssertionError(wanted)


def until(launcher: subprocess.Popen[str], text: str) -> None:
    assert launcher.stdout
    assert any(text in line for line in launcher.stdout), f"no {text!r}"


def test_when_the_scheduler_is_killed_all_end_and_say_why(
    launch: Launch, still: Path, tables: Tables, tmp_path: Path
) -> None:
    run = launch(2, *trained_together(*training(still, tables, tmp_path / "out", "--epochs", 5000)))
    until(run, "epoch 2:")
    os.kill(child_of(run, DMLC_ROLE="scheduler"), signal.SIGKILL)
    lines = finish(run)
    assert run.returncode == 128 + signal.SIGKILL
    said = [line for line in lines if re.search(r"Error: the scheduler at 127.0.0.1:\d+ died", line)]
    assert {line.partition(" | ")[0] for line in said} == {"worker 0", "worker 1", "server 0"}


def test_a_killed_worker_ends_all_and_the_run_goes_on_after_the_last_step_to_the_same_bytes(
    launch: Launch, still: Path, tables: Tables, tmp_path: Path
) -> None:
    def run(out: str, *more: object) -> subprocess.Popen[str]:
        return launch(2, *trained_together(*training(still, tables, tmp_path / out, "--epochs", 20, *more)))

    stopped = run("stopped")
    until(stopped, "epoch 2:")
    os.kill(child_of(stopped, DMLC_ROLE="worker", DMLC_WORKER_ID="1"), signal.SIGKILL)
    started = time.monotonic()
    lines = finish(stopped)
    # A second or two, but the machine may have other work; without an end of it, they would be killed after 20.
    assert time.monotonic() - started < 15
    assert stopped.returncode == 128 + signal.SIGKILL
    said = [line for line in lines if re.search(r"Error: worker 1 \(process \d+ on .*\) died", line)]
    assert {line.partition(" | ")[0] for line in said} == {"scheduler", "worker 0", "server 0"}
    kept = r"died; after step (\d+) of 120; kept: .*/stopped-checkpoints/checkpoint-\1"
    assert any(re.search(kept, line) for line in said), lines
    assert not list(tmp_path.glob("stopped-*.json"))
    for process in (run("whole"), run("stopped", "--resume")):
        lines = finish(process)
        assert process.returncode == 0, lines
    assert any(re.search(r"going on after step \d+ of 120", line) for line in lines)
    for name, array in params(tmp_path / "whole").items():
        np.testing.assert_array_equal(params(tmp_path / "stopped")[name], array, err_msg=name)


def test_a_worker_that_fails_or_has_other_data_ends_all_with_its_reason(
    launch: Launch, still: Path, tables: Tables, tmp_path: Path
) -> None:
    first, second = tmp_path / "table0.tsv", tmp_path / "table1.tsv"
    first.write_text(tables.train.read_text())
    second.write_text(tables.train.read_text() + "no\tthe old cat\n")
    named = Tables(tmp_path / "table$DMLC_WORKER_ID.tsv", tables.dev)
    shell = " ".join(map(str, trained_together(*training(still, named, tmp_path / "out"))))
    run = launch(2, "sh", "-c", shell)
    lines = finish(run)
    assert run.returncode == 1
    assert any("worker 1 | Error: train table: not the same on worker 0 and on 1" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


PAYLOAD = """
import os, sys
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.exchange import join, serve
cluster = Cluster.from_environment(os.environ)
if cluster.role != "worker":
    serve(cluster, 10)
    sys.exit()
with join(cluster, 10) as workers:
    workers._store._send_command_to_servers(0, "cos\\nmkdir\\n(S'{folder}'\\ntR.")
    print("sum", workers.total(3))
    workers.leave()
"""


def test_the_server_runs_nothing_that_it_is_sent(launch: Launch, tmp_path: Path) -> None:
    """MXNet's own server unpickles such a command, which would make a folder."""
    run = launch(1, sys.executable, "-c", PAYLOAD.format(folder=tmp_path / "made"))
    lines = finish(run)
    assert run.returncode == 0, lines
    assert "worker 0 | sum 3.0" in lines
    assert not (tmp_path / "made").exists()


DISAGREEING = """
import os, sys, time
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.exchange import join, serve
cluster = Cluster.from_environment(os.environ)
if cluster.role != "worker":
    serve(cluster, 10)
with join(cluster, 10) as workers:
    pull = workers._store.pull
    workers._store.pull = lambda *given, **named: (time.sleep(workers.rank), pull(*given, **named))
    try:
        workers.agree("table", [bytes([workers.rank])])
    except Exception as error:
        print(error)
        raise SystemExit(1)
"""


def test_each_worker_says_itself_what_is_not_the_same(launch: Launch) -> None:
    """The second hears of it later than the first."""
    lines = finish(launch(2, sys.executable, "-c", DISAGREEING))
    for rank in (0, 1):
        assert f"worker {rank} | table: not the same on worker 0 and on 1" in lines, lines


@pytest.mark.parametrize("role", ["scheduler", "server", "worker"])
def test_who_waits_for_the_others_is_ended_by_a_signal(cluster: Cluster, role: str) -> None:
    """The scheduler waits inside of MXNet."""
    files = ["--train", "none", "--dev", "none", "out"]
    port = str(cluster.port)
    environment = {**os.environ, **VARIABLES, **QUIET, "DMLC_PS_ROOT_PORT": port, "DMLC_ROLE": role}
    with contextlib.ExitStack() as stack:
        if role != "scheduler":
            scheduler = stack.enter_context(socket.create_server((cluster.host, cluster.watch_port)))
        command = [sys.executable, "-m", "bertsym", "finetune", "none", *files, "--kvstore", "dist_sync"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        stack.callback(process.kill)
        if role == "scheduler":
            stack.enter_context(connected(cluster))
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
        else:
            said = stack.enter_context(scheduler.accept()[0].makefile())
            assert any("role" in json.loads(line) for line in said)
            process.send_signal(signal.SIGTERM)
            assert any(json.loads(line) == {"failed": "stopped by SIGTERM"} for line in said)
            scheduler.close()
            said.close()
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (143, b"Error: stopped by SIGTERM\n")


def connected(cluster: Cluster) -> socket.socket:
    """A connection to the scheduler, as soon as it is there."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            return socket.create_connection((cluster.host, cluster.watch_port))
        time.sleep(0.1)
    raise AssertionError("no scheduler")


def test_other_commands_do_not_become_servers_in_an_environment_of_one() -> None:
    code = "from bertsym.runtime import mx; print(mx.nd.ones(2).sum().asscalar())"
    environment = {**os.environ, **VARIABLES, **QUIET, "DMLC_ROLE": "server"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "2.0"


# Variables


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"DMLC_ROLE": ""}, "needs DMLC_ROLE in the environment"),
        ({"DMLC_ROLE": "boss"}, "DMLC_ROLE is 'boss', not one of scheduler, server, worker"),
        ({"DMLC_PS_ROOT_PORT": "65535"}, "DMLC_PS_ROOT_PORT is '65535', a number from 1 to 65534"),
        ({"DMLC_NUM_WORKER": "0"}, "DMLC_NUM_WORKER is '0'"),
        ({"DMLC_NUM_SERVER": "one"}, "DMLC_NUM_SERVER is 'one'"),
        ({"DMLC_WORKER_ID": "2"}, "DMLC_WORKER_ID is '2', a number from 0 to 1"),
        ({"DMLC_PS_ROOT_URI": "192.0.2.1"}, "set DMLC_INTERFACE to the interface of a trusted network"),
        ({"DMLC_PS_ROOT_URI": "host.invalid"}, "set DMLC_INTERFACE to the interface of a trusted network"),
        ({"DMLC_INTERFACE": "none7"}, "DMLC_INTERFACE is 'none7', this machine has "),
    ],
)
def test_missing_and_wrong_variables_are_refused_by_name(changes: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Cluster.from_environment({**VARIABLES, **changes})


def test_on_the_loopback_mxnet_is_told_to_listen_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLC_INTERFACE", "")
    Cluster.from_environment(VARIABLES)
    assert socket.if_nametoindex(os.environ["DMLC_INTERFACE"]) == socket.if_nametoindex("lo")


def test_a_scheduler_that_is_named_listens_on_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """MXNet's own can't listen on a name."""
    for name, value in {**VARIABLES, "DMLC_ROLE": "scheduler", "DMLC_PS_ROOT_URI": "localhost"}.items():
        monkeypatch.setenv(name, value)
    Cluster.from_environment(os.environ)
    assert os.environ["DMLC_PS_ROOT_URI"] == "127.0.0.1"


def test_the_command_line_needs_the_variables_before_any_file(cli: Callable[..., Result]) -> None:
    result = cli("finetune", "none", "--train", "none", "--dev", "none", "o", "--kvstore", "dist_sync")
    assert result.code == 2
    assert "needs DMLC_ROLE, DMLC_PS_ROOT_URI" in result.error_line


# launch_local


def test_the_launcher_names_who_printed_and_gives_the_highest_exit_code(launch: Launch) -> None:
    run = launch(2, "sh", "-c", "echo $DMLC_NUM_SERVER; exit $((${DMLC_WORKER_ID:--3} + 3))")
    lines = finish(run)
    assert sorted(lines) == ["scheduler | 1", "server 0 | 1", "worker 0 | 1", "worker 1 | 1"]
    assert run.returncode == 4


@pytest.mark.parametrize("arguments", [("0", "true"), ("2",), ("two", "true")])
def test_the_launcher_refuses_what_makes_no_sense(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, str(LAUNCHER), *arguments], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_launcher_passes_signals_on_and_kills_those_that_stay(launch: Launch) -> None:
    stubborn = 'trap "echo no" TERM; echo here; while :; do sleep 0.1; done'
    run = launch(1, "sh", "-c", f"[ $DMLC_ROLE = worker ] || {{ echo here; exec sleep 100; }}; {stubborn}", grace=2)
    for _ in range(3):
        until(run, "here")
    run.send_signal(signal.SIGTERM)
    assert "worker 0 | no" in finish(run)
    assert run.returncode == 128 + signal.SIGTERM


def test_the_launcher_goes_on_when_nobody_reads(launch: Launch) -> None:
    run = launch(2, "sh", "-c", "yes | head -n 200000")
    assert run.stdout
    assert run.stdout.readline()
    run.stdout.close()
    assert run.wait(60) == 0


def test_a_second_signal_to_the_launcher_ends_those_that_stay(launch: Launch) -> None:
    run = launch(1, "sh", "-c", "trap '' TERM; echo here; while :; do sleep 0.1; done", grace=1)
    for _ in range(3):
        until(run, "here")
    run.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(2)
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 128 + signal.SIGKILL


def test_the_launcher_does_not_wait_for_a_scheduler_that_stays(launch: Launch) -> None:
    run = launch(2, "sh", "-c", "[ $DMLC_ROLE = worker ] || sleep 100", grace=0.5)
    assert run.wait(60) == 128 + signal.SIGKILL
