#!/usr/bin/env python
"""Compare exported models with transformers: compare_transformers [HEAD ...], by default with every head.

transformers makes a small model of each class with large random weights, saves it and computes it; bertsym exports the
folder, and MXNet computes the bundle on the same inputs. Exit code 1 where an output differs by more than 1e-5 of its
scale.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bertsym import Bundle, export
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.execution.loaders import load_module
from bertsym.mxnet_runtime import quiet_stderr

WORKER = Path(__file__).with_name("compare_transformers_worker.py")
CLASSES = {
    "classification": "BertForSequenceClassification",
    "multilabel": "BertForSequenceClassification",
    "regression": "BertForSequenceClassification",
    "tagging": "BertForTokenClassification",
    "qa": "BertForQuestionAnswering",
    "masked_lm": "BertForMaskedLM",
}
TOLERANCE = 1e-5


def compare(task: str, folder: Path) -> float:
    """The largest difference of the outputs for `task`, as a fraction of their scale."""
    job = {"folder": str(folder), "architecture": CLASSES[task], "task": task}
    python = os.environ.get("BENCH_TORCH_PYTHON", sys.executable)
    subprocess.run([python, str(WORKER), json.dumps(job)], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    bundle: Bundle = export(f"hf:{folder}", folder / "bundle", verify=False).bundle
    with np.load(folder / "outputs.npz") as arrays:
        inputs = {name: arrays[name].astype(np.float32) for name in INPUT_NAMES}
        expected = arrays["output"]
    with quiet_stderr():
        found = load_module(bundle.graph().to_json(), bundle.params(), inputs, ())(inputs)[0]
    if expected.ndim == 3:  # transformers computes something at padding too
        is_token = np.arange(expected.shape[1]) < inputs[INPUT_NAMES[2]][:, None]
        found, expected = found[is_token], expected[is_token]
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main() -> int:
    """Print a line for each head; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="*", metavar="HEAD", help=f"of {', '.join(CLASSES)}")
    tasks = parser.parse_args().heads or list(CLASSES)
    worst = 0.0
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            difference = compare(task, Path(folder))
        worst = max(worst, difference)
        print(f"{task:<14} {CLASSES[task]:<30} largest difference {difference:.1e} of the scale", flush=True)
    return int(not worst <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
