"""Measure and plot how time and memory grow with length, batch size, layers, threads and nodes of the graph.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import DATA, THREADS, Records, export_base, header, random_encoder, read_pairs, run_worker, without_threads
from finetune import long_rows

LENGTHS = (16, 32, 64, 128, 256, 512)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
LAYERS = (1, 2, 4, 8, 12, 24)
NODES = (100, 1000, 10_000, 100_000)
MINILM = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
_STEPS, _BATCH = 6, 16
_START = 3  # runs of a command, of which the median counts


@dataclass(frozen=True)
class Point:
    """A measured point of a curve."""

    figure: str  #: a key of FIGURES
    curve: str
    x: float
    y: float


#: figure -> name of the axes
FIGURES = {
    "latency": ("tokens of a text", "ms for a text alone"),
    "throughput": ("tokens of a text", "texts/s in batches"),
    "batch": ("texts in a batch, 64 tokens each", "texts/s"),
    "layers": ("layers of MiniLM's width", "ms for a text of 64 tokens"),
    "memory": ("tokens of a text", "peak memory of prediction, MiB"),
    "training": ("tokens of a row", "rows/s of fine-tuning, batch 16"),
    "graphs": ("nodes of the graph", "processor time, s"),
    "start": ("command", "s"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=f"hf:{os.environ.get('BERTSYM_MODEL_DIR', '')}", metavar="hf:DIR")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="run only this part; repeatable")
    parser.add_argument("--quick", action="store_true", help="fewer points and repetitions")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="folder for intermediate models")
    parser.add_argument("--results", type=Path, help="JSON file of the points; parts that are not run stay as they are")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="folder for the plots, an .svg file for each figure")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.results or options.folder / "scale.json"
    points = [Point(**each) for each in json.loads(path.read_text())] if path.exists() else []
    for name in options.part or PARTS:
        print(name, file=sys.stderr, flush=True)
        new = list(PARTS[name](options))
        replaced = {(point.figure, point.curve) for point in new}
        points = [point for point in points if (point.figure, point.curve) not in replaced] + new
        path.write_text(json.dumps([asdict(point) for point in points], indent=1))
    print(header(Records(None)))
    for figure, axes in FIGURES.items():
        found = [point for point in points if point.figure == figure]
        if found:
            print(f"\n{figure}: {axes[1]}\n\n{table(found, axes[0])}")
    if options.plots:
        options.plots.mkdir(parents=True, exist_ok=True)
        job = {"points": [asdict(point) for point in points], "figures": FIGURES, "out": str(options.plots.resolve())}
        run_worker("plot_scale.py", job, "plots")


def measure_prediction(options: Any) -> Iterator[Point]:
    """Texts alone, in batches, of several lengths, with one thread and with all."""
    prefix = export_base(options.model, options.folder / "model", "--output", "pooled")
    lengths = LENGTHS[::2] if options.quick else LENGTHS
    for threads in sorted({1, THREADS}):
        curve = f"{threads} thread{'s' if threads > 1 else ''}"
        for length in lengths:
            job = {"prefix": prefix, "length": length, "batch_size": 32, "quick": options.quick}
            found = run_scale(job, threads)
            yield Point("latency", curve, length, 1000 * found["alone"])
            yield Point("throughput", curve, length, found["texts_per_second"])
            yield Point("memory", curve, length, found["memory"] / (1 << 20))
    for batch_size in BATCHES[::2] if options.quick else BATCHES:
        found = run_scale({"prefix": prefix, "length": 64, "batch_size": batch_size, "quick": options.quick}, THREADS)
        yield Point("batch", f"{THREADS} threads", batch_size, found["texts_per_second"])


def measure_layers(options: Any) -> Iterator[Point]:
    """A text alone, for models of several depths."""
    for layers in LAYERS[:4] if options.quick else LAYERS:
        folder = options.folder / f"layers{layers}"
        folder.mkdir(exist_ok=True)
        source = random_encoder(folder, "bert", {**MINILM, "num_hidden_layers": layers})
        prefix = export_base(source, folder / "model", "--output", "pooled", "--no-verify")
        found = run_scale({"prefix": prefix, "length": 64, "batch_size": 32, "quick": options.quick}, THREADS)
        yield Point("layers", f"{THREADS} threads", layers, 1000 * found["alone"])


def measure_training(options: Any) -> Iterator[Point]:
    """Steps of fine-tuning at several lengths."""
    rows = read_pairs(str(DATA / "train.tsv"))
    prefix = export_base(options.model, options.folder / "model", "--output", "pooled")
    for length in LENGTHS[1::2] if options.quick else LENGTHS[1:]:
        with tempfile.TemporaryDirectory() as folder:
            tables = {}
            for name, count in (("train", _BATCH * _STEPS), ("dev", _BATCH)):
                tables[name] = f"{folder}/{name}.jsonl"
                lines = map(json.dumps, long_rows(rows, count, length))
                Path(tables[name]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            job = {
                **tables,
                "prefix": prefix,
                "seed": 0,
                "max_length": length,
                "batch_size": _BATCH,
                "learning_rate": 5e-5,
                "frozen": False,
                "epochs": 1,
            }
            seconds = run_worker("finetune_bertsym.py", job, "bertsym")["step_seconds"]
        yield Point("training", f"{THREADS} threads", length, _BATCH / statistics.median(seconds[2:]))


def measure_graphs(options: Any) -> Iterator[Point]:
    """Work on graphs of several sizes: a BERT of up to 250 layers, and a chain of layers after it."""
    for nodes in NODES[:-1] if options.quick else NODES:
        for work, seconds in run_worker("scale_graphs.py", {"nodes": nodes}, "bertsym").items():
            if work != "nodes":
                yield Point("graphs", work, nodes, seconds)


def measure_start(options: Any) -> Iterator[Point]:
    """Whole processes of small commands."""
    prefix = export_base(options.model, options.folder / "model", "--output", "pooled")
    one = str(options.folder / "one.txt")
    Path(one).write_text("A text.\n")
    commands = {
        "--help": ["--help"],
        "inspect": ["inspect", prefix],
        "tokenize": ["tokenize", prefix, "--text", "A text."],
        "embed": ["embed", prefix, one, str(options.folder / "one.npy"), "--format", "lines", "--force"],
    }
    for place, (name, words) in enumerate(commands.items()):
        seconds = []
        for _ in range(_START + 1):  # the first compiles modules
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "bertsym", *words], check=True, capture_output=True, env=without_threads()
            )
            seconds.append(time.perf_counter() - start)
        yield Point("start", name, place, statistics.median(seconds[1:]))


def run_scale(job: dict[str, Any], threads: int) -> dict[str, Any]:
    return run_worker("scale_predict.py", {**job, "threads": threads}, "bertsym")


#: part -> what measures it
PARTS: dict[str, Callable[[Any], Iterator[Point]]] = {
    "graphs": measure_graphs,
    "start": measure_start,
    "prediction": measure_prediction,
    "layers": measure_layers,
    "training": measure_training,
}


def shown(value: float) -> str:
    """Format with three digits, or as an integer."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def table(points: list[Point], axis: str) -> str:
    """Format a column for each curve."""
    curves = list(dict.fromkeys(point.curve for point in points))
    if axis == "command":
        return "\n".join([f"| {axis} | s |", "|---|---|", *(f"| {each.curve} | {each.y:.2f} |" for each in points)])
    known = {(point.curve, point.x): shown(point.y) for point in points}
    lines = [f"| {axis} | {' | '.join(curves)} |", "|---|" + "---|" * len(curves)]
    for x in sorted({point.x for point in points}):
        lines.append(f"| {x:g} | {' | '.join(known.get((curve, x), '') for curve in curves)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
