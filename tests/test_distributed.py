"""Several processes that train one model: they make the steps of one process, and a lost one ends all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables
from kinds import KINDS, has_gradient
from launching import DEADLOCK, QUIET, Launch, children_of, finish, launching, wait_for_line
from tools import AS_A_COMMAND

from bertsym import Classifier, ParamsFile, UsageError
from bertsym.array import Array
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.workers import Workers
from bertsym.text.batches import training_batches

VARIABLES = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "127.0.0.1",
    "DMLC_PS_ROOT_PORT": "9091",
    "DMLC_NUM_WORKER": "2",
    "DMLC_NUM_SERVER": "1",
}


def training(base: Path, tables: Tables, out: Path, *more: object) -> list[object]:
    files = ["--train", tables.train, "--dev", tables.dev, out]
    settings = ["--lr", "2e-3", "--max-length", 24, "--batch-size", 15, *more]
    return ["finetune", base, *files, *settings]


def in_cluster(*arguments: object) -> list[object]:
    return [sys.executable, "-m", "bertsym", *arguments, "--kvstore", "dist_sync", "--worker-timeout", DEADLOCK]


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
def odd_tables(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """61 rows, so that the last of 5 batches has a single row, none for the second worker; and 2 unreadable rows."""
    path = tmp_path_factory.mktemp("odd") / "train.tsv"
    lines = tables.train.read_text().splitlines(keepends=True)[:62]
    path.write_text("".join([*lines[:9], "ragged\n", *lines[9:], "no\t\n"]))
    return Tables(path, tables.dev)


#: of runs of two epochs of 5 steps, without dropout
TWO_EPOCHS = ("--epochs", 2, "--dropout", 0, "--on-error", "skip")


@dataclass(frozen=True)
class Finished:
    """A run of two workers that was not interrupted."""

    prefix: Path
    code: int
    lines: list[str]


@pytest.fixture(scope="module")
def finished(without_dropout: Path, odd_tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    prefix = tmp_path_factory.mktemp("finished") / "two"
    with launching() as launch:
        process = launch(2, *in_cluster(*training(without_dropout, odd_tables, prefix, *TWO_EPOCHS)))
        lines = finish(process)
    return Finished(prefix, process.returncode, lines)


def params(prefix: Path) -> dict[str, Array]:
    return {name: np.array(array) for name, array in ParamsFile(f"{prefix}-0000.params").items()}


# Steps


def test_the_shards_of_the_workers_make_up_the_batch() -> None:
    shards = []
    for rank in range(3):
        worker = Workers()
        worker.rank, worker.count = rank, 3
        shards.append([worker.shard(rows) for rows in training_batches(np.arange(40), 8, 0, 1)])
    for parts, whole in zip(zip(*shards), training_batches(np.arange(40), 8, 0, 1)):
        assert sorted(np.concatenate(parts)) == sorted(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_two_workers_make_the_steps_of_one_process(
    cli: Callable[..., Result], finished: Finished, without_dropout: Path, odd_tables: Tables, tmp_path: Path
) -> None:
    """Key biases are ignored: their gradient is zero but for rounding errors, whose sign decides Adam's steps."""
    alone = cli(*training(without_dropout, odd_tables, tmp_path / "one", *TWO_EPOCHS))
    lines = finished.lines
    assert (finished.code, alone.code) == (0, 0), lines
    assert any(re.search(r"all 2 workers have identical parameters: sha256 [0-9a-f]{64}", line) for line in lines)
    start, one, two = (params(prefix) for prefix in (without_dropout, tmp_path / "one", finished.prefix))
    assert max(np.abs(one[name] - array).max() for name, array in start.items()) > 1e-3
    for name, array in one.items():
        if not name.endswith("_key_bias"):
            np.testing.assert_allclose(two[name], array, atol=1e-5, err_msg=name)
    texts = ["the happy cat sat on the mat", "a very sad story"]
    first, second = (
        [list(answer.probabilities.values()) for answer in Classifier(prefix).predict(texts)]
        for prefix in (tmp_path / "one", finished.prefix)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    # The loss of an epoch covers the rows of all workers.
    losses = [re.findall(r"train loss ([\d.]+)", text) for text in (alone.err, "\n".join(lines))]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_two_workers_train_where_their_shards_have_different_numbers_of_labels(
    cli: Callable[..., Result], launch: Launch, without_dropout: Path, tmp_path: Path
) -> None:
    """In tagging: of the words. The other kinds of task have one label for each row, as in the runs above."""
    task = "tagging"
    tables = Tables(*(tmp_path / f"{name}.{KINDS[task].ending}" for name in ("train", "dev")))
    KINDS[task].write(tables.train, 31, 0)
    KINDS[task].write(tables.dev, 8, 1)
    settings = ("--task", task, "--epochs", 1, "--dropout", 0)
    both = launch(2, *in_cluster(*training(without_dropout, tables, tmp_path / "two", *settings)))
    alone = cli(*training(without_dropout, tables, tmp_path / "one", *settings))
    lines = finish(both)
    assert (both.returncode, alone.code) == (0, 0), lines
    assert any("all 2 workers have identical parameters" in line for line in lines)
    losses = [float(re.findall(r"train loss ([\d.]+)", text)[0]) for text in (alone.err, "\n".join(lines))]
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)
    one, two = params(tmp_path / "one"), params(tmp_path / "two")
    for name, array in one.items():
        if has_gradient(name, task):
            np.testing.assert_allclose(two[name], array, atol=2e-5, err_msg=name)


def test_workers_have_different_dropout_masks_and_identical_parameters(
    launch: Launch, bundles: dict[str, Path], odd_tables: Tables, tmp_path: Path
) -> None:
    """With several passes per batch; the first worker decides for all when to stop early."""
    settings = ("--epochs", 40, "--patience", 1, "--lr", 0.05, "--accumulate", 2, "--on-error", "skip")
    run = launch(2, *in_cluster(*training(bundles["cls"], odd_tables, tmp_path / "out", *settings)))
    lines = finish(run)
    assert run.returncode == 0, lines
    assert any("workers have identical parameters" in line for line in lines)
    manifest = json.loads(Path(f"{tmp_path}/out-manifest.json").read_text())
    assert manifest["training"]["workers"] == 2
    assert [manifest["training"]["data"]["train"][name] for name in ("rows", "left_out")] == [61, 2]
    assert len(manifest["training"]["evaluations"]) < 40


# Lost processes


def child_of(launcher: subprocess.Popen[str], **wanted: str) -> int:
    """The process id of the child with these environment variables."""
    for child in children_of(launcher):
        variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        if all(f"{name}={value}" in variables for name, value in wanted.items()):
            return child
    raise AssertionError(wanted)


def test_a_killed_scheduler_ends_all_processes_with_the_reason(
    launch: Launch, without_dropout: Path, tables: Tables, tmp_path: Path
) -> None:
    run = launch(2, *in_cluster(*training(without_dropout, tables, tmp_path / "out", "--epochs", 5000)))
    wait_for_line(run, "epoch 2 of")
    os.kill(child_of(run, DMLC_ROLE="scheduler"), signal.SIGKILL)
    lines = finish(run)
    assert run.returncode == 128 + signal.SIGKILL
    reasons = [line for line in lines if re.search(r"Error: the scheduler at 127.0.0.1:\d+ died", line)]
    assert {line.partition(" | ")[0] for line in reasons} == {"worker 0", "worker 1", "server 0"}


# The second worker dies before its eighth step, which is the third of the second epoch.
DYING = """
import os, signal
from bertsym.cli import main
from bertsym.training.trainer import Trainer

start, steps = Trainer._start_step, []

def start_or_die(*arguments):
    steps.append(arguments)
    if len(steps) == 8 and os.environ["DMLC_WORKER_ID"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return start(*arguments)

Trainer._start_step = start_or_die
main()
"""


def test_a_killed_worker_ends_all_processes_and_the_run_resumes_with_identical_results(
    launch: Launch, finished: Finished, without_dropout: Path, odd_tables: Tables, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    python, _, _, *command = in_cluster(*training(without_dropout, odd_tables, out, *TWO_EPOCHS))
    stopped = launch(2, python, "-c", DYING, *command)
    lines = finish(stopped)
    assert stopped.returncode == 128 + signal.SIGKILL, lines
    reasons = [line for line in lines if re.search(r"Error: worker 1 \(process \d+ on .*\) died", line)]
    assert {line.partition(" | ")[0] for line in reasons} == {"scheduler", "worker 0", "server 0"}
    newest = r"died; after step (\d+) of 10; newest checkpoint: .*/stopped-checkpoints/checkpoint-\1"
    assert any(re.search(newest, line) for line in reasons), lines
    assert not list(tmp_path.glob("stopped-*.json"))
    resumed = launch(2, python, "-m", "bertsym", *command, "--resume")
    lines = finish(resumed)
    assert resumed.returncode == 0, lines
    assert any(re.search(r"resuming after step [67] of 10", line) for line in lines), lines
    for name, array in params(finished.prefix).items():
        np.testing.assert_array_equal(params(out)[name], array, err_msg=name)


def test_a_worker_with_different_data_ends_all_processes_with_the_reason(
    launch: Launch, without_dropout: Path, tables: Tables, tmp_path: Path
) -> None:
    first, second = tmp_path / "table0.tsv", tmp_path / "table1.tsv"
    first.write_text(tables.train.read_text())
    second.write_text(tables.train.read_text() + "no\tthe old cat\n")
    named = Tables(tmp_path / "table$DMLC_WORKER_ID.tsv", tables.dev)
    shell = " ".join(map(str, in_cluster(*training(without_dropout, named, tmp_path / "out"))))
    run = launch(2, "sh", "-c", shell)
    lines = finish(run)
    assert run.returncode == 1
    assert any("worker 1 | Error: train table: differs between worker 0 and worker 1" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


PROGRAM = """
import os, sys, time
from bertsym.distributed.cluster import Cluster
from bertsym.distributed.exchange import join, serve
cluster = Cluster.from_environment(os.environ)
if cluster.role != "worker":
    serve(cluster, 600)
with join(cluster, 600) as workers:
    workers._store._send_command_to_servers(0, "cos\\nmkdir\\n(S'{folder}'\\ntR.")
    print("sum", workers.sum_number(3))
    pull = workers._store.pull
    workers._store.pull = lambda *given, **named: (time.sleep(workers.rank), pull(*given, **named))
    try:
        workers.require_equal("table", [bytes([workers.rank])])
    except Exception as error:
        print(error)
        raise SystemExit(1)
"""


def test_the_server_executes_no_command_that_it_is_sent_and_each_worker_reports_a_difference(
    launch: Launch, tmp_path: Path
) -> None:
    """MXNet's own server would unpickle the command, which makes a folder; one worker learns of the difference late."""
    program = AS_A_COMMAND + PROGRAM.format(folder=tmp_path / "made")
    lines = finish(launch(2, sys.executable, "-c", program))
    for rank in (0, 1):
        assert f"worker {rank} | sum 6.0" in lines, lines
        assert f"worker {rank} | table: differs between worker 0 and worker 1" in lines, lines
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("role", ["scheduler", "server", "worker"])
def test_a_signal_ends_a_process_that_waits_for_the_others(cluster: Cluster, role: str) -> None:
    """Even the scheduler, which waits inside of MXNet."""
    files = ["--train", "none", "--dev", "none", "out"]
    port = str(cluster.port)
    environment = {**os.environ, **VARIABLES, **QUIET, "DMLC_PS_ROOT_PORT": port, "DMLC_ROLE": role}
    with contextlib.ExitStack() as stack:
        if role != "scheduler":
            scheduler = stack.enter_context(socket.create_server((cluster.host, cluster.liveness_port)))
        command = [sys.executable, "-m", "bertsym", "finetune", "none", *files, "--kvstore", "dist_sync"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        stack.callback(process.kill)
        if role == "scheduler":
            stack.enter_context(connected(cluster))
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
        else:
            messages = stack.enter_context(scheduler.accept()[0].makefile())
            assert any("role" in json.loads(line) for line in messages)
            process.send_signal(signal.SIGTERM)
            assert any(json.loads(line) == {"failed": "stopped by SIGTERM"} for line in messages)
            scheduler.close()
            messages.close()
        _, error = process.communicate(timeout=DEADLOCK)
    assert (process.returncode, error) == (143, b"Error: stopped by SIGTERM\n")


def connected(cluster: Cluster) -> socket.socket:
    """A connection to the scheduler, as soon as it listens."""
    for _ in range(10 * DEADLOCK):
        with contextlib.suppress(OSError):
            return socket.create_connection((cluster.host, cluster.liveness_port))
        time.sleep(0.1)
    raise AssertionError("no scheduler")


def test_other_commands_ignore_the_role_of_a_server() -> None:
    code = "from bertsym.mxnet_runtime import mx; print(mx.nd.ones(2).sum().asscalar())"
    environment = {**os.environ, **VARIABLES, **QUIET, "DMLC_ROLE": "server"}
    done = subprocess.run(
        [sys.executable, "-c", AS_A_COMMAND + code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLOCK,
    )
    assert done.stdout.strip() == "2.0"


# Variables


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DMLC_ROLE": ""}, "requires the environment variables DMLC_ROLE:"),
        ({"DMLC_ROLE": "boss"}, "DMLC_ROLE must be one of scheduler, server, worker, not 'boss'"),
        ({"DMLC_PS_ROOT_PORT": "65535"}, "DMLC_PS_ROOT_PORT must be a number from 1 to 65534, not '65535'"),
        ({"DMLC_NUM_WORKER": "0"}, "DMLC_NUM_WORKER must be a number from 1 to 65536, not '0'"),
        ({"DMLC_NUM_SERVER": "one"}, "DMLC_NUM_SERVER must be a number from 1 to 65536, not 'one'"),
        ({"DMLC_WORKER_ID": "2"}, "DMLC_WORKER_ID must be a number from 0 to 1, not '2'"),
        ({"DMLC_PS_ROOT_URI": "192.0.2.1"}, "set DMLC_INTERFACE to the interface of a trusted network"),
        ({"DMLC_PS_ROOT_URI": "host.invalid"}, "set DMLC_INTERFACE to the interface of a trusted network"),
        ({"DMLC_INTERFACE": "none7"}, "DMLC_INTERFACE must be an interface of this machine ("),
    ],
)
def test_missing_and_wrong_variables_are_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Cluster.from_environment({**VARIABLES, **changes})


def test_with_a_loopback_address_mxnet_listens_on_the_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLC_INTERFACE", "")
    Cluster.from_environment(VARIABLES)
    assert socket.if_nametoindex(os.environ["DMLC_INTERFACE"]) == socket.if_nametoindex("lo")


def test_the_scheduler_resolves_its_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """MXNet cannot listen on a host name."""
    for name, value in {**VARIABLES, "DMLC_ROLE": "scheduler", "DMLC_PS_ROOT_URI": "localhost"}.items():
        monkeypatch.setenv(name, value)
    Cluster.from_environment(os.environ)
    assert os.environ["DMLC_PS_ROOT_URI"] == "127.0.0.1"


def test_the_command_line_checks_the_variables_before_any_file(cli: Callable[..., Result]) -> None:
    result = cli("finetune", "none", "--train", "none", "--dev", "none", "o", "--kvstore", "dist_sync")
    assert result.code == 2
    assert "requires the environment variables DMLC_ROLE, DMLC_PS_ROOT_URI" in result.error_line
