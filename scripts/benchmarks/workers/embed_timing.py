"""Time the computation of many texts, and of some of them one by one, including tokenization."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from job import read_rows

_ALONE, _SHOWN = 50, 20  # texts that are computed one by one, and vectors that are compared


def measure(job: dict[str, Any], compute: Callable[[list[str]], Any]) -> dict[str, Any]:
    """Time `compute` after one run that is not counted; `vectors` are the first that it returns."""
    texts = [row["text"] for row in read_rows(job["table"])]
    values = compute(texts)
    seconds = [timed(compute, texts) for _ in range(job["repeats"])]
    for text in texts[:_ALONE]:
        compute([text])
    alone = statistics.median(timed(compute, [text]) for text in texts[:_ALONE])
    vectors = np.asarray(values[:_SHOWN]).tolist() if isinstance(values, np.ndarray) else None
    return {"seconds": seconds, "alone": alone, "vectors": vectors}


def timed(compute: Callable[[list[str]], Any], texts: list[str]) -> float:
    """Return the seconds that a computation takes."""
    start = time.perf_counter()
    compute(texts)
    return time.perf_counter() - start
