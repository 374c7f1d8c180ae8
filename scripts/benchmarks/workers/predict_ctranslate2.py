"""Prediction with CTranslate2: its Encoder with the pooler, in float32 or int8, and the classifier by numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from job import read_job, read_rows, write_result
from padding import Batched, Logits
from timing import measure


def main() -> None:
    job = read_job()
    threads = job["threads"]
    shares = [encoder(job, 1) for _ in range(threads)]
    batched = Batched(job, "np", encoder(job, threads), shares)
    result = measure(job, read_rows(job["table"]), batched)
    way = "batches at once" if batched.at_once else "one batch at a time"
    write_result(**result, settings=f"ctranslate2 {ctranslate2.__version__}, {threads} threads, {way}")


def encoder(job: dict[str, Any], threads: int) -> Logits:
    """Load the encoder."""
    loaded = ctranslate2.Encoder(
        job["ctranslate2"], device="cpu", compute_type=job["compute_type"], inter_threads=1, intra_threads=threads
    )
    head = np.load(Path(job["ctranslate2"]) / "classifier.npz")
    weight, bias = head["weight"], head["bias"]

    def logits(batch: Any) -> Any:
        lengths = batch["attention_mask"].sum(1)
        ids, types = (
            [row[:length].tolist() for row, length in zip(batch[name], lengths)]
            for name in ("input_ids", "token_type_ids")
        )
        return np.array(loaded.forward_batch(ids, token_type_ids=types).pooler_output) @ weight.T + bias

    return logits


if __name__ == "__main__":
    main()
