"""Fine-tune the same classifier under several Pythons and compare the files, byte by byte.

python scripts/maintenance/compare_pythons.py ENV/bin/python ENV2/bin/python...   # each with bertsym and mxnet

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = "import platform, numpy; print(f'Python {platform.python_version()}, numpy {numpy.__version__}', end='')"
FILES = ("symbol.json", "train-symbol.json", "0000.params")


def main(pythons: list[str]) -> int:
    weights = os.environ["BERTSYM_MODEL_DIR"]
    data = ROOT / "bertsym" / "demo" / "data"
    table = ["--train", str(data / "train.tsv"), "--dev", str(data / "dev.tsv"), "--epochs", "2", "--lr", "1e-4"]
    found = []
    for python in map(os.path.abspath, pythons):
        versions = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout
        with tempfile.TemporaryDirectory() as folder:
            for arguments in (
                ["export", f"hf:{weights}", "base", "--headless"],
                ["finetune", "base", "classifier", *table],
            ):
                command = [python, "-m", "bertsym", *arguments]
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
            digests = [hashlib.sha256((Path(folder) / f"classifier-{name}").read_bytes()).hexdigest() for name in FILES]
        for name, digest in zip(FILES, digests):
            print(f"{versions}: classifier-{name} {digest}", flush=True)
        found.append(digests)
    same = all(digests == found[0] for digests in found)
    print("identical" if same else "different")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
