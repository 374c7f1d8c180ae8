"""Executors that are bound on the CPU run at the same time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from bertsym.mxnet_runtime import engine_workers, mx


def bound(rows: int, units: int, layers: int) -> Any:
    """An executor of dense layers, whose inputs and weights are zero."""
    x = mx.sym.var("data")
    for i in range(layers):
        x = mx.sym.FullyConnected(x, num_hidden=units, name=f"dense{i}")
    return x.simple_bind(mx.cpu(), grad_req="null", data=(rows, units))


@pytest.mark.skipif(engine_workers() < 2, reason="MXNET_CPU_WORKER_NTHREADS is 1")
def test_a_short_forward_never_waits_for_a_long_one_of_another_executor() -> None:
    """By default MXNet's executors share four scratch buffers: every fourth waits for the first."""
    long, ended = bound(1024, 2048, 16), []
    outputs = {"long": long.forward(is_train=False)[0]}
    outputs["long"].wait_to_read()  # the first forward prepares the weights
    short = {f"short {i}": bound(64, 1024, 16) for i in range(4)}
    outputs["long"] = long.forward(is_train=False)[0]
    outputs |= {name: executor.forward(is_train=False)[0] for name, executor in short.items()}

    def wait(name: str) -> None:
        outputs[name].wait_to_read()
        ended.append(name)

    threads = [threading.Thread(target=wait, args=[name]) for name in (*short, "long")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended[-1] == "long"
