"""Time texts of one length by bertsym's `Encoder`, alone and in batches, and measure the peak memory."""

from __future__ import annotations

import os
import resource
import statistics
from pathlib import Path

from embed_timing import timed
from job import read_job, write_result

from bertsym import Encoder


def main() -> None:
    job = read_job()
    # Not OMP_NUM_THREADS: batches are computed by two workers of MXNet's engine, whatever it says.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    encoder = Encoder(job["prefix"], batch_size=job["batch_size"])
    words = Path(f"{job['prefix']}-vocab.txt").read_text(encoding="utf-8").split("\n")
    known = [word for word in words if word.isalpha() and word.isascii() and len(word) > 3]
    length = job["length"] - 2  # without [CLS] and [SEP]
    count = 64 if job["quick"] else 256
    texts = [" ".join(known[(i * length) % 10_000 :][:length]) for i in range(max(job["batch_size"], count))]
    encoder.encode(texts)
    seconds = [timed(encoder.encode, texts) for _ in range(3)]
    for text in texts[:5]:
        encoder.encode([text])
    alone = [timed(encoder.encode, [text]) for text in texts[:40]]
    write_result(
        alone=statistics.median(alone),
        texts_per_second=len(texts) / statistics.median(seconds),
        memory=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


if __name__ == "__main__":
    main()
