"""Measure the machine's peaks by PyTorch: single-precision throughput of matrix products, and reading of memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from job import read_job, write_result

_SIZE, _ROUNDS = 2048, 15
_ELEMENTS = 1 << 28  # 1 GiB, more than the caches have


def main() -> None:
    threads = read_job()["threads"]
    gflops = {}
    a, b = torch.randn(_SIZE, _SIZE), torch.randn(_SIZE, _SIZE)
    for count in (1, threads):
        torch.set_num_threads(count)
        gflops[str(count)] = 2 * _SIZE**3 / best_time(lambda: torch.mm(a, b)) / 1e9
    large = torch.ones(_ELEMENTS)
    write_result(gflops=gflops, gigabytes=4 * _ELEMENTS / best_time(large.sum) / 1e9, torch=torch.__version__)


def best_time(compute: Callable[[], object]) -> float:
    """Return the seconds of the fastest of many runs."""
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        compute()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
