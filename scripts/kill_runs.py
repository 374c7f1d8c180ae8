"""Kill -9 at random moments of export, lower and finetune: the old bundle or the new one is there, always whole.

finetune is resumed after some of the kills, and has to end with the bytes of a run that nobody stopped.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).with_name("demo_data")
BERTSYM = [sys.executable, "-W", "ignore", "-m", "bertsym"]


@dataclass
class Job:
    """A command that replaces a bundle: `arguments` without it, the files before and after, and its seconds."""

    name: str
    arguments: list[str]
    old: dict[str, bytes]
    new: dict[str, bytes]
    seconds: float


def bertsym(*arguments: object) -> None:
    """Run a command to its end."""
    result = subprocess.run([*BERTSYM, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"bertsym {' '.join(map(str, arguments))}: {result.stderr}")


def files(prefix: Path) -> dict[str, bytes]:
    """The files of a bundle by their names without the prefix."""
    paths = [path for path in prefix.parent.glob(f"{prefix.name}-*") if path.is_file()]
    return {path.name[len(prefix.name) :]: path.read_bytes() for path in paths}


def make_job(folder: Path, name: str, old: list[str], arguments: list[str]) -> Job:
    """Run both commands once: the one that makes the old bundle, and the one that replaces it."""
    folder.mkdir()
    prefix = folder / "model"
    bertsym(*old, *target(name, prefix))
    before = files(prefix)
    started = time.monotonic()
    bertsym(*arguments, *target(name, prefix), "--force")
    return Job(name, arguments, before, files(prefix), time.monotonic() - started)


def target(name: str, prefix: Path) -> list[str]:
    return ["--out", str(prefix)] if name == "finetune" else [str(prefix)]


def kill(job: Job, folder: Path, moment: float) -> str:
    """Kill a job at a moment of its time; which bundle is there then, after a command that only reads it."""
    shutil.rmtree(folder)
    folder.mkdir()
    prefix = folder / "model"
    for name, content in job.old.items():
        folder.joinpath(f"model{name}").write_bytes(content)
    command = [*BERTSYM, *job.arguments, *target(job.name, prefix), "--force"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment * job.seconds)
    process.kill()
    process.wait()
    bertsym("inspect", prefix)
    there = files(prefix)
    return "old" if there == job.old else "new" if there == job.new else "neither"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="what is exported, such as hf:DIR")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--resumes", type=int, default=10, help="after so many kills of finetune")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        base = str(place / "base")
        export = ["export", options.source]
        bertsym(*export, base)
        train = ["finetune", base, "--train", f"{DATA}/train.tsv", "--dev", f"{DATA}/dev.tsv"]
        train += ["--epochs", "2", "--batch-size", "4", "--max-length", "32"]
        jobs = [
            make_job(
                place / "export", "export", ["export", options.source, "--output", "mean"], ["export", options.source]
            ),
            make_job(place / "lower", "lower", ["lower", base], ["lower", base, "--target-mxnet", "1.9", "--fold"]),
            make_job(place / "finetune", "finetune", [*train, "--seed", "1"], [*train, "--checkpoint-steps", "2"]),
        ]
        print(*(f"{job.name} takes {job.seconds:.1f} s" for job in jobs), sep=", ", flush=True)
        found: Counter[str] = Counter()
        resumed = 0
        for number in range(options.kills):
            job = jobs[-1 - number % len(jobs)]
            folder = place / job.name
            moment = chance.uniform(0, 1.1)
            state = kill(job, folder, moment)
            said = f"{number + 1}: {job.name} killed at {moment:.2f} of its time: {state}"
            found[state] += 1
            if job.name == "finetune" and resumed < options.resumes:
                resumed += 1
                steps = sorted(path.name for path in folder.glob("model-checkpoints/*"))
                bertsym(*job.arguments, *target(job.name, folder / "model"), "--force", "--resume")
                same = files(folder / "model") == job.new
                found["resumed to the same bytes" if same else "resumed to other bytes"] += 1
                said += f", resumed from {steps or 'the start'}: {'the same bytes' if same else 'OTHER BYTES'}"
            print(said, flush=True)
        print(", ".join(f"{count} {what}" for what, count in sorted(found.items())))
    return int(bool(found["neither"] or found["resumed to other bytes"]))


if __name__ == "__main__":
    sys.exit(main())
