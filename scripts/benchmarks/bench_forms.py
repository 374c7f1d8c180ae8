#!/usr/bin/env python
"""Forward pass time of each form relative to GluonNLP's own: bench_forms.py [SOURCE], hf:DIR or random:MODEL.

The forms alternate in one process; reported is the median of several rounds, for a headless bundle with the [CLS]
output.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bertsym import ExportOptions, export
from bertsym.mxnet_runtime import mx, quiet_stderr

FORMS: dict[str, dict[str, Any]] = {
    "gluonnlp": {"form": "gluonnlp"},
    "portable": {},
    "portable, guarded": {"guard": True},
    "portable for 1.9": {"target": "1.9"},
    "fast": {"form": "fast"},
}
SHAPES = ((1, 16), (1, 128), (32, 64))
ROUNDS = 9


def executor(prefix: Path, batch: int, length: int) -> Any:
    with quiet_stderr():
        symbol, arguments, _ = mx.model.load_checkpoint(str(prefix), 0)
    rng = np.random.default_rng(0)
    inputs = {
        "data0": mx.nd.array(rng.integers(1000, size=(batch, length))),
        "data1": mx.nd.zeros((batch, length)),
        "data2": mx.nd.array(rng.integers(length // 2, length + 1, size=batch)),
    }
    return symbol.bind(mx.cpu(), {**arguments, **inputs}, grad_req="null")


def seconds(bound: Any, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        bound.forward(is_train=False)[0].wait_to_read()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default=f"hf:{os.environ.get('BERTSYM_MODEL_DIR', '')}")
    source = parser.parse_args().source
    with tempfile.TemporaryDirectory() as folder:
        for name, options in FORMS.items():
            export(source, Path(folder) / name, ExportOptions(**options))
        print(f"mxnet {mx.__version__}, {os.cpu_count()} CPUs, {platform.processor() or platform.machine()}\n")
        print("| form |" + "".join(f" {batch} x {length}, ms | ratio |" for batch, length in SHAPES))
        print("|---|" + "---|---|" * len(SHAPES))
        columns = [measure(Path(folder), *shape) for shape in SHAPES]
        for name in FORMS:
            cells = [f" {1000 * column[name]:.1f} | {column['gluonnlp'] / column[name]:.2f}x |" for column in columns]
            print(f"| {name} |" + "".join(cells))


def measure(folder: Path, batch: int, length: int) -> dict[str, float]:
    """Median seconds of a forward by form."""
    bound = {name: executor(folder / name, batch, length) for name in FORMS}
    repeats = max(1, 512 // (batch * length))
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(ROUNDS + 1):
        for name in FORMS:
            times[name].append(seconds(bound[name], repeats))
    return {name: statistics.median(values[1:]) for name, values in times.items()}  # the first round warms up


if __name__ == "__main__":
    main()
