"""Which output should a classifier read? Fine-tune on each of them, encoder trained and frozen, with several seeds.

Prints a Markdown table: the mean dev accuracy after the last epoch, and its standard deviation over the seeds. No epoch
is chosen on dev. With --results FILE, each cell is stored when it is finished, and an interrupted run resumes after it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import Records
from evaluations import Evaluations, over_seeds, seed_options
from review_data import write_reviews

import bertsym

OUTPUTS = ("cls", "pooled", "mean", "sequence")


@dataclass(frozen=True)
class Job:
    """A task with its tables and the settings of its runs."""

    name: str
    train: Path
    dev: Path
    options: bertsym.FinetuneOptions


def main() -> None:
    """Run all combinations, and print a row for each output and way of training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="train.tsv of MRPC")
    parser.add_argument("dev", type=Path, help="dev.tsv of MRPC")
    parser.add_argument("--model", default=os.environ.get("BERTSYM_MODEL_DIR"), help="Hugging Face folder")
    parser.add_argument("--task", choices=["MRPC", "reviews"], help="the only task; by default both")
    parser.add_argument("--rows", type=int, default=1000, help="training rows of MRPC")
    parser.add_argument("--review-rows", type=int, default=300, help="training rows of the reviews")
    parser.add_argument("--dev-rows", type=int, default=408, help="dev rows of each task, at most 408 of MRPC")
    parser.add_argument(
        "--epochs", type=int, default=3, help="with a trained encoder; ten times as many with a frozen one"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="JSON Lines file with the finished cells, which are not repeated")
    settings = parser.parse_args()
    if settings.model is None:
        parser.error("give --model, or set BERTSYM_MODEL_DIR")
    records = Records(settings.results)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for output in OUTPUTS:
            bertsym.export(f"hf:{settings.model}", folder / output, bertsym.ExportOptions(output=output))
        jobs = [job for job in make_jobs(settings, folder) if settings.task in (None, job.name)]
        print("| encoder | the classifier reads |", " | ".join(job.name for job in jobs), "|")
        print("|---|---|" + "---|" * len(jobs), flush=True)
        for frozen in (False, True):
            for output in OUTPUTS:
                cells = [measure(job, folder, output, frozen, settings, records) for job in jobs]
                print(f"| {'frozen' if frozen else 'trained'} | `{output}` |", " | ".join(cells), "|", flush=True)
        print("| | the most frequent label |", " | ".join(f"{majority(job):.3f}" for job in jobs), "|")
        print("| | words alone (naive Bayes) |", " | ".join(f"{naive_bayes(job):.3f}" for job in jobs), "|")


def make_jobs(settings: argparse.Namespace, folder: Path) -> list[Job]:
    """Cut MRPC to the first rows, and make the reviews."""
    counts = {"train": (settings.rows, settings.review_rows), "dev": (settings.dev_rows, settings.dev_rows)}
    for part, (rows, review_rows) in counts.items():
        lines = getattr(settings, part).read_bytes().rstrip().split(b"\n")
        (folder / f"mrpc-{part}.tsv").write_bytes(b"\n".join(lines[: rows + 1]) + b"\n")
        write_reviews(folder / f"reviews-{part}.tsv", part, review_rows)
    # No pair of MRPC is longer than 103 tokens. Inputs of the whole sequence all have the maximum length.
    options = bertsym.FinetuneOptions(batch_size=16, max_length=104)
    return [
        Job("MRPC", folder / "mrpc-train.tsv", folder / "mrpc-dev.tsv", dataclasses.replace(options, task="mrpc")),
        Job(
            "reviews",
            folder / "reviews-train.tsv",
            folder / "reviews-dev.tsv",
            dataclasses.replace(options, max_length=24),
        ),
    ]


def measure(job: Job, folder: Path, output: str, frozen: bool, settings: argparse.Namespace, records: Records) -> str:
    """Return the mean accuracy after the last epoch, with the standard deviation over the seeds."""
    epochs = settings.epochs * (10 if frozen else 1)
    rows = " and ".join(str(len(read_rows(path))) for path in (job.train, job.dev))
    work = f"{job.name}, {rows} rows, {epochs} epochs, {settings.seeds} seeds"
    cell = f"{output}, {'frozen' if frozen else 'trained'}"
    if not records.of(work, cell):
        options = dataclasses.replace(
            job.options,
            freeze_encoder=frozen,
            epochs=epochs,
            learning_rate=1e-3 if frozen else 1e-4,
            whole_sequence=output == "sequence",
            **seed_options(range(settings.seeds)),
        )
        evaluations, started = Evaluations(), time.monotonic()
        base, out = folder / output, folder / "out"
        bertsym.finetune(base, job.train, job.dev, out, options=options, on_event=evaluations, force=True)
        seconds = round(time.monotonic() - started, 1)
        records.add(work, cell, {"accuracy": evaluations.last("accuracy"), "seconds": seconds})
        print(f"{job.name}, {cell}: {seconds} s", file=sys.stderr, flush=True)
    return over_seeds(records.of(work, cell)[-1]["accuracy"])


def read_rows(path: Path) -> list[tuple[str, list[str]]]:
    """Return the label and the lower-case words of each row of a table."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")[1:]
    cells = [line.rstrip("\r").split("\t") for line in lines if line]
    return [(row[0], " ".join(row[3:] or row[1:]).lower().split()) for row in cells]


def majority(job: Job) -> float:
    """Return the dev accuracy of the label that is most frequent in train."""
    label = Counter(label for label, _ in read_rows(job.train)).most_common(1)[0][0]
    return statistics.mean(found == label for found, _ in read_rows(job.dev))


def naive_bayes(job: Job) -> float:
    """Return the dev accuracy of a naive Bayes classifier on words, with add-one smoothing."""
    train = read_rows(job.train)
    labels = Counter(label for label, _ in train)
    counts = {label: Counter(word for found, words in train if found == label for word in words) for label in labels}
    vocabulary = {word for words in counts.values() for word in words}

    def score(label: str, words: list[str]) -> float:
        total = sum(counts[label].values()) + len(vocabulary)
        known = [word for word in words if word in vocabulary]
        return float(np.log(labels[label]) + sum(np.log((counts[label][word] + 1) / total) for word in known))

    right = [max(labels, key=lambda label: score(label, words)) == found for found, words in read_rows(job.dev)]
    return statistics.mean(right)


if __name__ == "__main__":
    main()
