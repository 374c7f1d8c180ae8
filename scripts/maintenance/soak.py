"""Run rows of varying lengths through one Classifier of a tiny model: its memory must stay constant.

Blocks of rows alternate between length distributions, and between `predict` and `predict_table`. After the first tenth
of the rows, in which every executor is bound, resident memory may grow by at most 32 MiB.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bertsym import BertConfig, Classifier, Columns, FinetuneOptions, SourceOptions, TableFormat, export, finetune
from bertsym.encoders.parameters import parameter_shapes
from bertsym.symbol.params import write_params

DATA = Path(__file__).parents[2] / "bertsym" / "demo" / "data"
BLOCK = 400  # rows per distribution
MAX_LENGTH, GROWTH = 128, 32 << 20
WORDS = [f"{a}{b}{c}" for a, b, c in itertools.product("bdgklm", "aeiou", "nrst")]
#: name of a distribution -> number of words of a row
LENGTHS: dict[str, Callable[[random.Random], int]] = {
    "uniform": lambda rng: rng.randint(1, 150),
    "short": lambda rng: rng.randint(1, 6),
    "long-tailed": lambda rng: min(600, 1 + int(rng.lognormvariate(2.5, 1))),
    "two lengths": lambda rng: rng.choice((2, 110)),
    "constant": lambda rng: 40,
    "truncated": lambda rng: rng.randint(140, 400),
}


def tiny_classifier(folder: Path) -> Path:
    """Make a classifier with random weights, fine-tuned for one epoch."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    config = BertConfig(2, 32, 64, 4, len(vocabulary), max_length=MAX_LENGTH)
    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(name.endswith("gamma"), 0.2, shape).astype(np.float32)
        for name, shape in parameter_shapes(config, pooler=False).items()
    }
    with (folder / "bert.params").open("wb") as file:
        write_params(file, params)
    source = SourceOptions(vocab=str(folder / "vocab.txt"), num_heads=4)
    encoder = export(f"params:{folder / 'bert.params'}", folder / "encoder", source_options=source).bundle.prefix
    tables = TableFormat(columns=Columns(text="sentence1", label="label"))
    options = FinetuneOptions(epochs=1, max_length=MAX_LENGTH, table_format=tables)
    train, dev = DATA / "train.tsv", DATA / "dev.tsv"
    return finetune(encoder, train, dev, folder / "classifier", options=options).bundle.prefix


def blocks(rows: int, rng: random.Random) -> Iterator[list[str]]:
    """Yield blocks of texts, of each distribution in turn."""
    for start, length_of in zip(range(0, rows, BLOCK), itertools.cycle(LENGTHS.values())):
        count = min(BLOCK, rows - start)
        yield [" ".join(rng.choices(WORDS, k=length_of(rng))) for _ in range(count)]


def predict(classifier: Classifier, texts: list[str], table: Path, rng: random.Random) -> int:
    """Predict a block, in calls of varying size or as a table; returns the number of predictions."""
    if rng.random() < 0.5:
        table.write_text("".join(f"{text}\n" for text in texts))
        return sum(1 for _ in classifier.predict_table(table, TableFormat("lines")))
    predictions = 0
    while predictions < len(texts):
        predictions += len(classifier.predict(texts[predictions : predictions + rng.choice((1, 3, 20, 100))]))
    return predictions


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print the memory after every 5 % of the rows; exit with 1 if it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="number of rows")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random texts")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier = Classifier(tiny_classifier(folder))
        started, done = time.monotonic(), 0
        samples: list[tuple[int, int]] = []
        for texts in blocks(arguments.rows, rng):
            done += predict(classifier, texts, folder / "table.txt", rng)
            samples.append((done, resident()))
            if done * 20 // arguments.rows > (done - len(texts)) * 20 // arguments.rows:
                print(f"{done} rows, {resident() / 2**20:.1f} MiB, {done / (time.monotonic() - started):.0f} rows/s")
    assert done == arguments.rows, f"{done} predictions"
    warm = [(rows, memory) for rows, memory in samples if rows >= arguments.rows // 10]
    growth = max(memory for _, memory in warm) - warm[0][1]
    slope = float(np.polyfit(*np.array(warm, float).T, 1)[0]) if len(warm) > 1 else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{done} rows predicted; {warm[0][1] / 2**20:.1f} MiB after {warm[0][0]} rows, {warm[-1][1] / 2**20:.1f} MiB "
        f"at the end, maximum growth {growth / 2**20:+.1f} MiB, slope {slope:+.1f} bytes per row; peak of the process, "
        f"including training, {peak:.1f} MiB"
    )
    sys.exit(growth > GROWTH)


if __name__ == "__main__":
    main()
