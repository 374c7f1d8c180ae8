#!/usr/bin/env python
"""Compare exports of pytorch_model.bin with those of the same weights in safetensors: compare_pickles FOLDER

FOLDER is a Hugging Face folder with safetensors. Under torch its weights are saved as one pickle, as a pickle in the
format of torch before 1.6, as shards, and as the folder that sentence-transformers 2 writes of it with a dense layer, a
pickle too; bertsym exports each with torch installed, and every file of the bundle but the manifest must be
byte-identical with that of safetensors. Without torch each is refused, and the command in the refusal must convert the
folder. A pickle that runs code when it is loaded must not run it. Exit code 1 where any of this fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
TORCH_PYTHON = os.environ.get("BENCH_TORCH_PYTHON", sys.executable)
SAVE = """
import json, os, sys
import torch
from pathlib import Path
from safetensors.torch import load_file

class Payload:
    def __init__(self, path):
        self.path = path
    def __reduce__(self):
        return os.mkdir, (self.path,)

source, out = map(Path, sys.argv[1:])
weights = {name: tensor for path in source.glob("*.safetensors") for name, tensor in load_file(path).items()}
torch.save(weights, out / "one" / "pytorch_model.bin")
torch.save(weights, out / "old" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
names, index = list(weights), {}
for number, part in enumerate((names[::2], names[1::2]), 1):
    file = f"pytorch_model-0000{number}-of-00002.bin"
    torch.save({name: weights[name] for name in part}, out / "shards" / file)
    index.update(dict.fromkeys(part, file))
(out / "shards" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
torch.save(weights, out / "sentence" / "pytorch_model.bin")
layer = load_file(out / "sentence safetensors" / "2_Dense" / "model.safetensors")
torch.save(layer, out / "sentence" / "2_Dense" / "pytorch_model.bin")
torch.save({**weights, "extra": Payload(str(out / "was run"))}, out / "malicious" / "pytorch_model.bin")
"""


def export(python: str, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run ``bertsym export`` under a Python."""
    command = [python, "-m", "bertsym", "export", f"hf:{source}", str(out), "--no-verify"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def files(prefix: Path) -> dict[str, bytes]:
    """The files of a bundle, but for the manifest, which names the files of the source."""
    found = {path.name: path.read_bytes() for path in prefix.parent.glob(f"{prefix.name}-*")}
    return {name.removeprefix(prefix.name): content for name, content in found.items() if "manifest" not in name}


def check(what: str, passed: bool, detail: str = "") -> bool:
    """Print a line for a check; returns whether it passed."""
    print(f"{'passed' if passed else 'FAILED'}  {what}" + (f": {detail}" if detail else ""), flush=True)
    return passed


def write_sentence_folder(folder: Path, target: Path) -> None:
    """Copy a folder as one of sentence-transformers 2, with mean pooling and a dense layer, in safetensors."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("[0-9]_*", "modules.json"))
    units = json.loads((folder / "config.json").read_text())["hidden_size"]
    tanh = "torch.nn.modules.activation.Tanh"
    configs = {
        "1_Pooling": {"word_embedding_dimension": units, "pooling_mode_mean_tokens": True},
        "2_Dense": {"in_features": units, "out_features": 16, "activation_function": tanh},
    }
    paths = {"": "Transformer", **{name: name[2:] for name in configs}}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in paths.items()]
    (target / "modules.json").write_text(json.dumps(modules))
    for name, config in configs.items():
        (target / name).mkdir()
        (target / name / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    shapes = {"linear.weight": (16, units), "linear.bias": (16,)}
    weights = {name: rng.standard_normal(shape, np.float32) / 16 for name, shape in shapes.items()}
    save_file(weights, target / "2_Dense" / "model.safetensors")


def compare(folder: Path, work: Path) -> bool:
    """Make the folders with pickles in `work`, and check them all."""
    write_sentence_folder(folder, work / "sentence safetensors")
    sources = {"one": folder, "old": folder, "shards": folder, "sentence": work / "sentence safetensors"}
    for kind, source in {**sources, "malicious": folder}.items():
        shutil.copytree(source, work / kind, ignore=shutil.ignore_patterns("*.safetensors*"))
    subprocess.run([TORCH_PYTHON, "-c", SAVE, str(folder), str(work)], check=True)
    passed = True
    for kind, source in sources.items():
        assert export(sys.executable, source, work / f"{kind}-expected").returncode == 0
        expected = files(work / f"{kind}-expected")
        result = export(TORCH_PYTHON, work / kind, work / f"{kind}-out")
        same = files(work / f"{kind}-out") == expected
        passed &= check(f"{kind}: {len(expected)} files byte-identical", same, result.stderr.strip())
        result = export(sys.executable, work / kind, work / "refused")
        line = result.stderr.strip()
        passed &= check(f"{kind}: refused without torch", result.returncode == 1 and "\n" not in line)
        command = shlex.split(line.rpartition(" python -c ")[2])[0]
        subprocess.run([TORCH_PYTHON, "-c", command], check=True)
        export(sys.executable, work / f"{kind}-safetensors", work / f"{kind}-converted")
        passed &= check(f"{kind}: converted by the command", files(work / f"{kind}-converted") == expected)
    result = export(TORCH_PYTHON, work / "malicious", work / "malicious-out")
    is_refused = result.returncode == 1 and not (work / "was run").exists()
    return check("malicious: refused, nothing was run", is_refused, result.stderr.strip()) and passed


def main() -> int:
    """Compare with the folder of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("BERTSYM_MODEL_DIR"))
    folder = parser.parse_args().folder
    if folder is None:
        parser.error("give FOLDER, or set BERTSYM_MODEL_DIR")
    with tempfile.TemporaryDirectory() as work:
        return int(not compare(folder.resolve(), Path(work)))


if __name__ == "__main__":
    sys.exit(main())
