"""Measure the machine's peak single-precision throughput: the best of many square matrix products by PyTorch."""

from __future__ import annotations

import time

import torch
from job import read_job, write_result

_SIZE, _ROUNDS = 2048, 15


def main() -> None:
    peaks = {}
    a, b = torch.randn(_SIZE, _SIZE), torch.randn(_SIZE, _SIZE)
    for threads in (1, read_job()["threads"]):
        torch.set_num_threads(threads)
        best = float("inf")
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - start)
        peaks[str(threads)] = 2 * _SIZE**3 / best / 1e9
    write_result(gflops=peaks, torch=torch.__version__)


if __name__ == "__main__":
    main()
