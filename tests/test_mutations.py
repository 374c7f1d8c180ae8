"""Corrupt files of every kind work or are refused in one line: no crash, no hang, no gigabytes, no traceback.

BERTSYM_MUTATIONS is the range of mutations, by default 0:36; each number is the seed of one mutation.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import queue
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_runner import Run, Runner
from mutations import JSON, PARAMS, SAFETENSORS, SYMBOL, VOCABULARY, Corruption, corrupt
from third_party import CONFIG, checkpoint, some_graph

FIRST, LAST = map(int, os.environ.get("BERTSYM_MUTATIONS", "0:36").split(":"))
SEED, WORKERS = 6, 2
TINY = dataclasses.replace(CONFIG, vocab_size=60)


@dataclass(frozen=True)
class Kind:
    """A file to corrupt, and the command that reads it."""

    files: str  #: the folder of `originals`
    name: str
    corruptions: tuple[Corruption, ...]
    commands: tuple[str, ...]
    resigned: bool = False  #: whether the manifest is made to fit it
    weight: int = 2


ON_A_BUNDLE = ("inspect", "verify", "predict", "lower")
KINDS = (
    Kind("checkpoint", "m-symbol.json", SYMBOL, ("inspect", "shapes", "lower"), weight=12),
    Kind("checkpoint", "m-0000.params", PARAMS, ("inspect", "lower"), weight=6),
    *(
        Kind("bundle", f"m-{name}", corruptions, ON_A_BUNDLE, resigned, weight)
        for name, corruptions, resigned, weight in (
            ("symbol.json", SYMBOL, False, 2),
            ("0000.params", PARAMS, False, 2),
            ("signature.json", JSON, False, 2),
            ("vocab.txt", VOCABULARY, False, 1),
            ("manifest.json", JSON, False, 4),
            ("symbol.json", SYMBOL, True, 8),
            ("0000.params", PARAMS, True, 3),
            ("signature.json", JSON, True, 6),
            ("vocab.txt", VOCABULARY, True, 2),
        )
    ),
    Kind("hf", "model.safetensors", SAFETENSORS, ("export",), weight=3),
    Kind("hf", "config.json", JSON, ("export",), weight=3),
    Kind("hf", "vocab.txt", VOCABULARY, ("export",), weight=1),
    Kind("hf", "tokenizer_config.json", JSON, ("export",), weight=1),
)
ARGUMENTS = {
    "inspect": ("inspect", "m"),
    "shapes": ("inspect", "m", "--shapes"),
    "verify": ("verify", "m"),
    "predict": ("predict", "m", "--text", "the happy cat"),
    "lower": ("lower", "m", "out/m"),
    "export": ("export", "hf:.", "out/m", "--no-verify"),
}


@pytest.fixture(scope="session")
def originals(tiny_hf: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with the intact files."""
    folder = tmp_path_factory.mktemp("originals")
    shutil.copytree(tiny_hf, folder / "hf")
    (folder / "bundle").mkdir()
    for path in classifier.parent.glob(f"{classifier.name}-*"):
        shutil.copy(path, folder / "bundle" / path.name.replace(classifier.name, "m", 1))
    checkpoint(folder / "checkpoint" / "m", graph=some_graph(config=TINY), config=TINY)
    return folder


def mutation(number: int, originals: Path, folder: Path) -> tuple[Kind, str, str]:
    """Make one in `folder`; its kind, the name of the change, and the command to run on it."""
    rng = random.Random(f"{SEED} {number}")
    kind = rng.choices(KINDS, [kind.weight for kind in KINDS])[0]
    shutil.copytree(originals / kind.files, folder)
    path = folder / kind.name
    change, content = corrupt(path.read_bytes(), kind.corruptions, rng)
    path.write_bytes(content)
    if kind.resigned:
        manifest = json.loads((folder / "m-manifest.json").read_text())
        entry = manifest["files"][kind.name.removeprefix("m-")]
        entry.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        (folder / "m-manifest.json").write_text(json.dumps(manifest))
    return kind, change, rng.choice(kind.commands)


def fault(run: Run, under_digest: bool) -> str | None:
    """What is wrong with how a command ended."""
    if run.code == 0 and under_digest:
        return "a file was accepted whose digest differs from the manifest"
    return run.fault


def test_corrupt_files_work_or_are_refused_in_one_line(originals: Path, tmp_path: Path) -> None:
    runners: queue.Queue[Runner] = queue.Queue()
    for _ in range(WORKERS):
        runners.put(Runner())

    def one(number: int) -> tuple[str, str, str | None, Run]:
        folder = tmp_path / str(number)
        kind, change, command = mutation(number, originals, folder)
        what = f"{number}: {command} of {kind.files}/{kind.name}, {change}{', signed anew' * kind.resigned}"
        runner = runners.get()
        try:
            done = runner.run(folder, *ARGUMENTS[command])
        finally:
            runners.put(runner)
        shutil.rmtree(folder)
        under_digest = kind.files == "bundle" and not kind.resigned and kind.name != "m-manifest.json"
        return what, f"{command} {done.code}", fault(done, under_digest), done

    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(one, range(FIRST, LAST)))
    while not runners.empty():
        runners.get().stop()
    faults = [f"{what}: {why}: {done.error.strip()[-300:]}" for what, _, why, done in results if why]
    ends = collections.Counter(end for _, end, _, _ in results)
    longest, slowest = max((done.worked, what) for what, _, _, done in results)
    memory = max(done.memory for _, _, _, done in results)
    print(f"{dict(sorted(ends.items()))}, at most {memory >> 20} MiB, and {longest:.1f} s ({slowest})")
    assert not faults, "\n" + "\n".join(faults)
