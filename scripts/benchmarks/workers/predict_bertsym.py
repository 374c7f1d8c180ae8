"""Prediction with bertsym's `Classifier`, as in `bertsym predict`."""

from __future__ import annotations

from job import read_job, read_rows, write_result
from timing import measure

from bertsym import Classifier, using_engine


def main() -> None:
    job = read_job()
    chosen: list[str] = []
    with using_engine(job.get("engine", "mxnet"), chosen.append):
        classifier = Classifier(job["prefix"])
    result = measure(
        job,
        read_rows(job["table"]),
        lambda texts, pairs: [
            list(prediction.probabilities.values()) for prediction in classifier.predict(texts, pairs)
        ],
    )
    write_result(**result, **({"settings": "--engine auto: " + ", ".join(chosen)} if chosen else {}))


if __name__ == "__main__":
    main()
