"""Draw the pictures of the documentation, or with --check only compare them: a picture whose texts differ is stale.

python scripts/maintenance/draw_docs.py [--check]

The model has the size of MiniLM and random weights, which no picture shows. Texts are compared and not bytes, since
each version of Graphviz places boxes in its own way.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
MODEL = "random:bert_6_384_12"
TABLE = "text\tlabel\na cat\t0\na dog\t1\n"

#: picture -> output of the encoder, options of finetune, options of draw
PICTURES: dict[str, tuple[str, list[str], list[str]]] = {
    "classifier.svg": ("cls", [], []),
    "whole-sequence.svg": ("sequence", ["--whole-sequence", "--max-length", "128"], []),
    "layer.svg": ("cls", [], ["--expand", "0"]),
}


def main(arguments: list[str]) -> int:
    """Write the pictures, or list those that are stale; the exit code is then 1."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = {picture: draw(folder, picture) for picture in PICTURES}
    if arguments == ["--check"]:
        stale = [name for name, svg in drawn.items() if texts(svg) != texts((IMAGES / name).read_text("utf-8"))]
        for name in stale:
            print(f"docs/images/{name} is stale: run scripts/maintenance/draw_docs.py", file=sys.stderr)
        return bool(stale)
    for name, svg in drawn.items():
        (IMAGES / name).write_text(svg, "utf-8")
    return 0


def draw(folder: Path, picture: str) -> str:
    """Return the SVG of a picture, of a classifier that is made in `folder` unless it is there."""
    output, training, options = PICTURES[picture]
    table = folder / "table.tsv"
    table.write_text(TABLE)
    base, classifier = folder / output, folder / f"{output}-classifier"
    if not Path(f"{classifier}-symbol.json").exists():
        bertsym("export", MODEL, base, "--output", output, "--no-verify")
        training = ["--freeze-encoder", "--epochs", "1", *training]
        bertsym("finetune", base, classifier, "--train", table, "--dev", table, *training)
    bertsym("draw", classifier, folder / picture, *options)
    return (folder / picture).read_text("utf-8")


def texts(svg: str) -> list[str]:
    """The texts and tooltips of a picture, in any order."""
    return sorted(re.findall(r"<(?:text|title)[^>]*>([^<]*)<", svg))


def bertsym(*arguments: object) -> None:
    """Run the command line of this checkout; its output is only shown if it fails."""
    command = [sys.executable, "-m", "bertsym", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
