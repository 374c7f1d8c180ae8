#!/usr/bin/env python
"""Compare ONNX files that `bertsym onnx --signature hf` writes, run by optimum, with transformers under torch.

    compare_optimum [MODEL_TYPE ...]

transformers makes a small model with large random weights for each class. Each model is exported; `hf` writes the
bundle as a folder, and `onnx --signature hf` writes model.onnx into it. transformers and optimum's ORTModel classes
load the folder: their outputs for a padded batch of texts, and what pipelines answer with ORTModels, text by text, are
compared with those of the original model and tokenizer under torch (outputs in float64). The model of
BERTSYM_MODEL_DIR, a sentence-transformers folder, is embedded by `SentenceTransformer(..., backend="onnx")` and by
ORTModelForCustomTasks too.
Exit code 1 where an output differs by more than 1e-5 of its scale, or an answer of a pipeline is another one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bertsym import ExportOptions, OnnxOptions, export, export_hugging_face, export_onnx

WORKER = Path(__file__).with_name("compare_optimum_worker.py")
MODEL_TYPES = ("bert", "roberta", "distilbert")


def convert(source: Path, place: Path, *, headless: bool) -> Path:
    """Write the folder of transformers or sentence-transformers, and model.onnx in it, of the bundle of a folder."""
    options = ExportOptions(output="sequence") if headless else ExportOptions()
    bundle = export(f"hf:{source}", place / "bundle", options).bundle
    folder = export_hugging_face(bundle.prefix, place / "written").folder
    export_onnx(bundle.prefix, folder / "model.onnx", OnnxOptions(signature="hf"))
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="MODEL_TYPE", help=f"of {', '.join(MODEL_TYPES)}; default: all")
    model_types = parser.parse_args().types or MODEL_TYPES
    python = os.environ.get("BENCH_OPTIMUM_PYTHON", sys.executable)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}

    def worker(*arguments: object) -> int:
        return subprocess.run([python, str(WORKER), *map(str, arguments)], env=environment).returncode

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if worker("make", place / "models", *model_types):
            return 1
        sources = {path: path.name for path in sorted((place / "models").glob("*/*"))}
        if "BERTSYM_MODEL_DIR" in os.environ:
            sources[Path(os.environ["BERTSYM_MODEL_DIR"])] = "sentence"
        jobs = []
        for i, (source, task) in enumerate(sources.items()):
            (place / str(i)).mkdir()
            folder = convert(source, place / str(i), headless=task == "encoder")
            jobs.append({"source": str(source), "written": str(folder), "task": task})
        (place / "jobs.json").write_text(json.dumps(jobs))
        return worker("compare", place / "jobs.json")


if __name__ == "__main__":
    sys.exit(main())
