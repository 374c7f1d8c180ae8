"""A forked process predicts, trains and has a sandbox of its own, whatever the threads of its parent do."""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_data_parallel import batch, make_executor

from bertsym import BertsymError, Classifier, Prediction, mxnet_runtime
from bertsym.mxnet_runtime import engine_workers, mxnet_errors, openmp_threads, share_threads

FEW = ["the cat is happy", "a small bird was sad"]
MANY = [f"the {word} dog {'ran very ' * (i % 5)}on the mat" for i in range(40) for word in ("happy", "sad")]
HUNG = 600.0  # seconds after which a child counts as deadlocked


def in_fork(check: Callable[[], None]) -> None:
    """Call `check` in a forked process; fails when it raises, or does not return."""
    child = os.fork()
    if not child:
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + HUNG
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail(f"the forked process did not end within {HUNG:g} s")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


def probabilities(predictions: list[Prediction]) -> list[list[float]]:
    return [list(prediction.probabilities.values()) for prediction in predictions]


def test_a_process_that_is_forked_while_a_thread_predicts_predicts_the_same(classifier: Path) -> None:
    mine = Classifier(classifier)
    expected = [probabilities(mine.predict(texts)) for texts in (FEW, MANY)]
    stopped = threading.Event()
    calls: list[int] = []

    def keep_predicting() -> None:
        while not stopped.is_set():
            calls.append(len(mine.predict(MANY)))

    def check() -> None:
        assert engine_workers() == int(os.environ.get("MXNET_MP_WORKER_NTHREADS", "1"))
        for texts, wanted in zip((FEW, MANY), expected):
            np.testing.assert_allclose(probabilities(mine.predict(texts)), wanted, atol=1e-6)

    thread = threading.Thread(target=keep_predicting, daemon=True)
    thread.start()
    try:
        for _ in range(8):
            in_fork(check)
            # The parent's thread continues to predict.
            before, deadline = len(calls), time.monotonic() + HUNG
            while len(calls) == before:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    finally:
        stopped.set()
        thread.join(HUNG)


_shared: list[Classifier] = []  # not pickled, as an argument would be


def _label(text: str) -> str:
    return _shared[0].predict([text])[0].label


def test_a_pool_of_forked_processes_predicts(classifier: Path) -> None:
    _shared[:] = [Classifier(classifier)]
    expected = [prediction.label for prediction in _shared[0].predict(MANY)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_label, MANY).get(HUNG) == expected


def test_rows_that_the_parent_began_to_read_are_refused_in_a_forked_process(classifier: Path) -> None:
    """They are read by a thread, which the child does not have."""
    rows = Classifier(classifier).predict_table(io.BytesIO("\n".join(MANY * 50).encode()))
    next(rows)

    def check() -> None:
        with pytest.raises(BertsymError, match="started before a fork cannot continue"):
            list(rows)

    in_fork(check)
    assert len(list(rows)) == 50 * len(MANY) - 1


def test_a_training_step_can_be_made_in_a_forked_process() -> None:
    executor = make_executor(shards=2)
    expected = executor.compute_gradients(batch(6, 8), 0)[0].asnumpy()

    def check() -> None:
        found = executor.compute_gradients(batch(6, 8), 0)[0].asnumpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)

    in_fork(check)


_SANDBOX = """
import json, os, sys, threading
import numpy as np
from bertsym.execution import sandbox

nodes = [{"op": op, "name": name, "inputs": inputs} for op, name, inputs in
         (("null", "x", []), ("null", "w", []), ("broadcast_mul", "scaled", [[0, 0, 0], [1, 0, 0]]))]
symbol = json.dumps({"nodes": nodes, "arg_nodes": [0, 1], "heads": [[2, 0, 0]]})
params = {"w": np.full(1, 3, np.float32)}

def scale(value):
    inputs = {"x": np.full(2, value, np.float32)}
    return sandbox.call("compute", symbol, "it", False, fused=True, params=params, inputs=inputs)[0].tolist()

def keep_scaling():
    while not done:
        scale(2)

def worker():
    return sandbox._running["mxnet"]._process.pid

done = False
assert scale(2) == [6, 6]
first = worker()
thread = threading.Thread(target=keep_scaling)
thread.start()
child = os.fork()
if not child:
    assert scale(5) == [15, 15]
    assert worker() != first
    sys.exit()  # and clear up what is its own, not the parent's
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done = True
thread.join()
assert scale(7) == [21, 21]
assert worker() == first, "the parent's sandbox was ended"
assert code == 0
"""


@pytest.mark.parametrize("fork", ["os.fork", "subprocess"])
def test_a_fork_leaves_the_number_of_threads_of_each_worker(fork: str) -> None:
    """MXNet starts new workers. Python 3.9 forks for a subprocess too, without calling what is registered."""
    openmp = ctypes.CDLL("libgomp.so.1")

    def threads() -> list[int]:
        found: list[int] = []
        mxnet_runtime._on_each_worker(engine_workers(), lambda: found.append(openmp.omp_get_max_threads()))
        return found

    share_threads(2)
    before = threads()
    in_fork(lambda: None) if fork == "os.fork" else subprocess.run(["true"], check=True)
    share_threads(2)
    assert threads() == before == [max(1, openmp_threads() // 2)] * 2


def test_a_forked_process_has_a_sandbox_of_its_own_and_leaves_its_parents_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _SANDBOX]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        try:
            _, printed = started.communicate(timeout=2 * HUNG)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            pytest.fail("the forked process did not end")
    assert (started.returncode, printed) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_fork_waits_for_a_thread_that_uses_mxnet() -> None:
    inside, leave, forked = (threading.Event() for _ in range(3))

    def use() -> None:
        with mxnet_errors("it"):
            inside.set()
            leave.wait()

    def fork() -> None:
        in_fork(lambda: None)
        forked.set()

    threads = [threading.Thread(target=target) for target in (use, fork)]
    threads[0].start()
    assert inside.wait(HUNG)
    threads[1].start()
    try:
        assert not forked.wait(0.2)
    finally:
        leave.set()
        for thread in threads:
            thread.join(HUNG)
    assert forked.is_set()
