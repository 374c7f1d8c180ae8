"""Time a classifier on a table, on its rows one by one and on single texts, including tokenization."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: text pairs -> (N, C) float, a probability for each class
Classify = Callable[[Sequence[str], Sequence[str]], Any]


def measure(job: dict[str, Any], rows: list[dict[str, str]], classify: Classify) -> dict[str, Any]:
    """Time each workload after one run that is not counted."""
    texts, pairs = [row["text"] for row in rows], [row["text_pair"] for row in rows]
    result: dict[str, Any] = {"table_seconds": [], "rows": len(rows)}
    classify(texts, pairs)
    for _ in range(job["repeats"]):
        start = time.perf_counter()
        probabilities = classify(texts, pairs)
        result["table_seconds"].append(time.perf_counter() - start)
    labels = [job["class_names"][i] for i in np.argmax(probabilities, 1)]
    result["accuracy"] = sum(label == row["label"] for label, row in zip(labels, rows)) / len(rows)
    result["probabilities"] = np.asarray(probabilities, float).tolist()
    singles = {length: [pair] * job["single_repeats"] for length, pair in job["singles"].items()}
    singles["each"] = [(row["text"], row["text_pair"]) for row in rows[: job["rows_alone"]]] * 2
    for name, some in singles.items():
        seconds = []
        for text, pair in some:
            start = time.perf_counter()
            classify([text], [pair])
            seconds.append(time.perf_counter() - start)
        result[f"latency_{name}"] = statistics.median(seconds[len(seconds) // (2 if name == "each" else 5) :])
    return result
