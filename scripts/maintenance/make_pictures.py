"""Make the pictures of pages and of the terminal in docs/images, or with --check only find those that are stale.

python scripts/maintenance/make_pictures.py [--check]

The demo's model is trained on the demo's tables; Chromium, by playwright, takes the pictures of its report, of the page
of `bertsym draw`, and of the commands with their output. A picture is stale if one of the files that determine how it
looks has changed since: their digests are in docs/images/sources.json.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertsym.demo import find_weights

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
SOURCES = IMAGES / "sources.json"
WIDTH, HEIGHT = 1200, 820  # pixels

PAGE = ("bertsym/web_page.py",)
REPORT = ("page.html", "page.css", "figures.py", "page.py", "evaluation.py", "training.py")
DRAWING = ("page.html", "page.css", "page.js", "drawing.css", "page.py", "dot.py", "node_style.py")
DEMO = ("bertsym/demo/data/train.tsv", "bertsym/demo/data/dev.tsv", "scripts/maintenance/make_pictures.py")
#: picture -> files that determine how it looks
PICTURES = {
    "report.png": (*PAGE, *DEMO, *(f"bertsym/reports/{name}" for name in REPORT)),
    "draw-page.png": (*PAGE, *(f"bertsym/drawing/{name}" for name in DRAWING)),
    # Not the modules of the commands, whose every change would count: make it again when what they print changes.
    "terminal.png": DEMO,
}
#: what is run, in a folder with the weights as `minilm` and both tables
COMMANDS = (
    "bertsym export hf:minilm out/minilm --headless",
    "bertsym finetune out/minilm out/frozen --train train.tsv --dev dev.tsv --freeze-encoder --epochs 20",
    "bertsym finetune out/minilm out/paraphrase --train train.tsv --dev dev.tsv --epochs 3 --batch-size 8 --lr 1e-4 "
    "--report report",
    "bertsym compare out/frozen out/paraphrase dev.tsv",
    "bertsym draw out/paraphrase out/paraphrase.html",
)
SHOWN = COMMANDS[2:4]  # in the picture of the terminal
LINES = 16  # of the output of a command, the last ones
MACHINE = r"  [\d.]+ samples/s|  [\d:]+ left"  # what depends on the machine is left out
STYLE = """
body { margin: 0; background: #0b0e13; }
pre { margin: 0; padding: 22px 26px; width: 1148px; color: #e3e8ef; font: 15px/1.45 "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
b { color: #7fb2ff; font-weight: 600; }
i { color: #98a4b4; font-style: normal; }
"""


def main(arguments: list[str]) -> int:
    """Make the pictures, or list those that are stale; the exit code is then 1."""
    found = {picture: digests(paths) for picture, paths in PICTURES.items()}
    if arguments == ["--check"]:
        known = json.loads(SOURCES.read_text("utf-8"))
        stale = [name for name in found if found[name] != known.get(name) or not (IMAGES / name).exists()]
        for name in stale:
            print(f"docs/images/{name} is stale: run scripts/make_pictures", file=sys.stderr)
        return bool(stale)
    with tempfile.TemporaryDirectory() as name:
        make_pictures(Path(name))
    SOURCES.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def digests(paths: tuple[str, ...]) -> dict[str, str]:
    """Path -> SHA-256 of a file."""
    return {path: hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for path in paths}


def make_pictures(folder: Path) -> None:
    """Run the commands in a folder, and take the pictures."""
    from playwright.sync_api import sync_playwright

    (folder / "minilm").symlink_to(find_weights(print).resolve())
    (folder / "out").mkdir()
    for table in ("train.tsv", "dev.tsv"):
        shutil.copy(ROOT / "bertsym" / "demo" / "data" / table, folder)
    outputs = {command: run(command, folder) for command in COMMANDS}
    (folder / "terminal.html").write_text(terminal_page(outputs), "utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto((folder / "report" / "index.html").as_uri())
        page.screenshot(path=str(IMAGES / "report.png"))
        page.goto((folder / "out" / "paraphrase.html").as_uri())
        choose_classifier(page)
        page.screenshot(path=str(IMAGES / "draw-page.png"))
        page.goto((folder / "terminal.html").as_uri())
        page.locator("pre").screenshot(path=str(IMAGES / "terminal.png"))
        browser.close()


def choose_classifier(page: Any) -> None:
    """Show the head in the page of `draw`, with the attributes of its FullyConnected."""
    box = page.locator("g.box", has_text="fc-finetune").last
    box.scroll_into_view_if_needed()
    box.click()


def run(command: str, folder: Path) -> list[str]:
    """Run a command with the code of this checkout; return the lines that it prints."""
    words = [sys.executable, "-m", *shlex.split(command)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout}")
    return done.stdout.splitlines()


def terminal_page(outputs: dict[str, list[str]]) -> str:
    """Return a page that looks like a terminal, with the commands that are shown."""

    def lines() -> Iterator[str]:
        for command in SHOWN:
            yield f"<b>$ {html.escape(command)}</b>"
            if len(outputs[command]) > LINES:
                yield "<i>...</i>"
            yield from (html.escape(re.sub(MACHINE, "", line)) for line in outputs[command][-LINES:])
            yield ""

    text = "\n".join(lines()).rstrip()
    return f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><style>{STYLE}</style><pre>{text}</pre></html>'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
