"""Kill export, lower and finetune at random times (SIGKILL): afterwards the old or the new bundle must be intact.

finetune is also killed at random steps and resumed: the result must be byte-identical to an uninterrupted run.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertsym.cli.group import run

ROWS, EPOCHS = 280, 2  # of the training table, and of each run
DATA = Path(__file__).parents[2] / "bertsym" / "demo" / "data"
Process = subprocess.Popen[bytes]
BERTSYM = [sys.executable, "-W", "ignore", "-m", "bertsym"]


@dataclass
class Job:
    """A command that replaces a bundle: its `arguments` without OUT, the files before and after, its duration."""

    name: str
    arguments: list[str]
    old: dict[str, bytes]
    new: dict[str, bytes]
    seconds: float


def bertsym(*arguments: object) -> None:
    """Run a command in this process; exits with its error if it fails."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run([str(argument) for argument in arguments])
    if code:
        sys.exit(f"bertsym {' '.join(map(str, arguments))}: {printed.getvalue()}")


def files(prefix: Path) -> dict[str, bytes]:
    """Return the files of a bundle by name without the prefix."""
    paths = [path for path in prefix.parent.glob(f"{prefix.name}-*") if path.is_file()]
    return {path.name[len(prefix.name) :]: path.read_bytes() for path in paths}


def make_job(folder: Path, name: str, old: list[str], arguments: list[str]) -> Job:
    """Run both commands once: `old` writes the old bundle, `arguments` replaces it."""
    folder.mkdir()
    prefix = folder / "model"
    bertsym(*old, str(prefix))
    before = files(prefix)
    started = time.monotonic()
    bertsym(*arguments, str(prefix), "--force")
    return Job(name, arguments, before, files(prefix), time.monotonic() - started)


def kill(job: Job, folder: Path, until: Callable[[Process], object]) -> str:
    """Kill a job when `until` returns, and run inspect; returns which bundle exists then: old, new or CORRUPTED."""
    shutil.rmtree(folder)
    folder.mkdir()
    prefix = folder / "model"
    for name, content in job.old.items():
        folder.joinpath(f"model{name}").write_bytes(content)
    command = [*BERTSYM, *job.arguments, str(prefix), "--force"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(process)
        process.kill()
    bertsym("inspect", prefix)
    there = files(prefix)
    return "old" if there == job.old else "new" if there == job.new else "CORRUPTED"


def checkpoint(folder: Path) -> int:
    """Return the step of the newest checkpoint, or 0."""
    return max((int(path.name.partition("-")[2]) for path in folder.glob("model-checkpoints/checkpoint-*")), default=0)


def at_time(seconds: float) -> Callable[[Process], object]:
    """Return a function that waits for this time."""
    return lambda process: time.sleep(seconds)


def at_step(folder: Path, step: int, late: float) -> Callable[[Process], object]:
    """Return a function that waits until a run has written the checkpoint of a step, and `late` seconds more."""

    def wait(process: Process) -> None:
        while process.poll() is None and checkpoint(folder) < step:
            time.sleep(0.002)
        time.sleep(late)

    return wait


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="source to export, such as hf:DIR")
    parser.add_argument("--kills", type=int, default=50, help="number of kills at random times")
    parser.add_argument(
        "--resumes",
        type=int,
        default=10,
        help="number of kills of finetune at random steps",
    )
    parser.add_argument("--batch-size", type=int, default=4, help="rows per step of finetune")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random times")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        base = str(place / "base")
        export = ["export", options.source, "--headless"]
        bertsym(*export, base)
        train = ["finetune", base, "--train", f"{DATA}/train.tsv", "--dev", f"{DATA}/dev.tsv"]
        train += ["--epochs", str(EPOCHS), "--batch-size", str(options.batch_size), "--max-length", "32"]
        jobs = [
            make_job(place / "export", "export", ["export", options.source, "--output", "mean"], export),
            make_job(place / "lower", "lower", ["lower", base], ["lower", base, "--target-mxnet", "1.9", "--fold"]),
            make_job(place / "finetune", "finetune", [*train, "--seed", "1"], [*train, "--checkpoint-steps", "2"]),
        ]
        print(*(f"{job.name} takes {job.seconds:.1f} s" for job in jobs), sep=", ", flush=True)
        found: Counter[str] = Counter()
        for number in range(options.kills):
            job = chance.choice(jobs)
            fraction = chance.uniform(0, 1.1)
            state = kill(job, place / job.name, at_time(fraction * job.seconds))
            found[state] += 1
            print(f"{number + 1}: {job.name} killed after {fraction:.0%} of its duration: {state} bundle", flush=True)
        job = jobs[-1]
        folder, steps = place / job.name, EPOCHS * math.ceil(ROWS / options.batch_size)
        for number in range(options.resumes):
            step, late = chance.randrange(1, steps), chance.uniform(0, 0.1)
            state = kill(job, folder, at_step(folder, step, late))
            last = checkpoint(folder)
            resume = [*BERTSYM, *job.arguments, str(folder / "model"), "--force", "--resume"]
            done = subprocess.run(resume, capture_output=True, text=True)  # a new process, as after a real kill
            if done.returncode:
                sys.exit(f"{' '.join(resume)}: {done.stderr}")
            same = "identical bytes" if files(folder / "model") == job.new else "DIFFERENT BYTES"
            found[state] += 1
            found[f"resumed: {same}"] += 1
            print(f"{number + 1}: finetune killed after step {last}: {state} bundle, resumed: {same}", flush=True)
        print(", ".join(f"{count} {what}" for what, count in sorted(found.items())))
    return int(bool(found["CORRUPTED"] or found["resumed: DIFFERENT BYTES"]))


if __name__ == "__main__":
    sys.exit(main())
