"""Embedding with bertsym's `Encoder`, or prediction with its `Classifier`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embed_timing import measure
from job import read_job, write_result

from bertsym import Classifier, Encoder


def main() -> None:
    job = read_job()
    compute: Callable[[list[str]], Any]
    if job["peer"] == "predict":
        compute = Classifier(job["prefix"]).predict
    else:
        compute = Encoder(job["prefix"], job["peer"].removeprefix("embed-")).encode
    write_result(**measure(job, compute))


if __name__ == "__main__":
    main()
