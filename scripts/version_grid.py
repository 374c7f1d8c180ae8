#!/usr/bin/env python
"""Every emitted form in every MXNet from 1.4 to 1.9.

Of each form: the headless base with the [CLS] output, a classifier grafted onto it, and its training symbol. Each wheel
runs them through Module, SymbolBlock and the C predict API, at two lengths with padded rows, and trains with Module.
Outputs are compared with GluonNLP's BERTModel, training with the gluonnlp form in the installed MXNet, each as a part
of the reference's scale. An MXNet that is older than the oldest that the symbol is said to load in must refuse it.

The wheels are unpacked once, side by side, and run under this Python, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from version_grid_table import TOLERANCES, Cell, expectation, judge, line_of, markdown, worst

from bertsym import Bundle, SymbolGraph
from bertsym.cli.group import run as bertsym
from bertsym.symbol.operators import oldest_mxnet
from bertsym.verification import Reference

VERSIONS = ("1.4.1", "1.5.1.post0", "1.6.0", "1.7.0.post2", "1.8.0.post0", "1.9.1")
#: form -> the options of `bertsym export`
FORMS = {
    "portable-1.4": ("--target-mxnet", "1.4"),
    "portable-1.5": (),
    "portable-1.7": ("--target-mxnet", "1.7"),
    "gluonnlp": ("--form", "gluonnlp"),
    "fast": ("--form", "fast"),
}
REFERENCE_FORM = "gluonnlp"
APIS = ("Module", "SymbolBlock", "C predict")
PARTS = ("base", "classifier")
TRAINING = ("gradients", "losses", "parameters")
STEPS, LEARNING_RATE = 12, 1e-4
WORKER = Path(__file__).with_name("version_grid_worker.py")


class GridError(Exception):
    """The grid can't be run; the message is one line."""


# Files


@dataclass(frozen=True)
class Files:
    """The bundles of one form, what runs on them, and what they need of MXNet."""

    names: list[str]  #: of the forms that give these very files
    folder: Path

    def requirements(self, symbol: Path) -> list[tuple[str, str]]:
        """(version, reason) for each thing that some node of a symbol needs of MXNet."""
        nodes = SymbolGraph.load(symbol).nodes
        return sorted({(each.version, each.reason) for node in nodes for each in oldest_mxnet([node]).requirements})

    def jobs(self, data: Path) -> Iterator[dict[str, Any]]:
        """The jobs of each MXNet, each with an id and what they need of MXNet."""
        for part in PARTS:
            symbol = self.folder / f"{part}-symbol.json"
            for api in APIS:
                yield {
                    "id": [self.names[0], api, part],
                    "api": api,
                    "symbol": str(symbol),
                    "params": str(self.folder / f"{part}-0000.params"),
                    "cases": str(data / "cases.npz"),
                    "reference": str(data / f"{part}.npz"),
                    "requirements": self.requirements(symbol),
                }
        symbol = self.folder / "still-train-symbol.json"
        yield {
            "id": [self.names[0], "training"],
            "api": "training",
            "symbol": str(symbol),
            "params": str(self.folder / "still-0000.params"),
            "cases": str(data / "steps.npz"),
            "reference": str(data / "training.npz"),
            "learning_rate": LEARNING_RATE,
            "requirements": self.requirements(symbol),
        }


def command(*arguments: object) -> None:
    """Run a command of bertsym, quietly; raises GridError with what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = bertsym([str(argument) for argument in arguments])
    if code:
        raise GridError(f"bertsym {' '.join(map(str, arguments))}: {said.getvalue().strip().splitlines()[-1]}")


def write_files(model: str, forms: list[str], folder: Path) -> list[Files]:
    """Export, graft and make a copy without dropout in each form; forms that give the same symbols are one."""
    written: dict[bytes, Files] = {}
    for form in forms:
        prefix = folder / form
        prefix.mkdir()
        base, classifier, still = (prefix / name for name in (*PARTS, "still"))
        command("export", model, base, *FORMS[form])
        command("graft", base, classifier, "--num-classes", 2)
        # Dropout draws from a generator, which no two versions share.
        command("edit", classifier, still, "--dropout", "off")
        symbol = base.with_name("base-symbol.json").read_bytes()
        if symbol in written:
            written[symbol].names.append(form)
        else:
            written[symbol] = Files([form], prefix)
    return list(written.values())


def write_data(files: Files, folder: Path) -> None:
    """Inputs at two lengths with padded rows, what GluonNLP answers to them, and batches to train on."""
    classifier = Bundle.open(files.folder / "classifier")
    config = classifier.config
    reference = Reference(config, classifier.params())
    rng = np.random.default_rng(0)

    def batch(rows: int, length: int) -> dict[str, Any]:
        valid = np.ceil(np.linspace(1, length, rows))
        padding = np.arange(length) >= valid[:, None]
        ids = rng.integers(config.vocab_size, size=(rows, length))
        types = rng.integers(config.token_type_vocab_size, size=(rows, length))
        arrays = (np.where(padding, 0, ids), np.where(padding, 0, types), valid)
        return {f"data{i}": array.astype(np.float32) for i, array in enumerate(arrays)}

    cases = {str(length): batch(3, length) for length in (16, 40)}
    named = {f"{case}{name}": array for case, arrays in cases.items() for name, array in arrays.items()}
    np.savez(folder / "cases.npz", **named)
    for part in PARTS:
        signature = Bundle.open(files.folder / part).signature
        answers = {case: reference.output(signature, tuple(arrays.values())) for case, arrays in cases.items()}
        np.savez(folder / f"{part}.npz", **answers)
    batches = [batch(8, 24) for _ in range(STEPS)]
    steps = {name: np.stack([each[name] for each in batches]) for name in batches[0]}
    steps["softmax_label"] = rng.integers(2, size=(STEPS, 8)).astype(np.float32)
    np.savez(folder / "steps.npz", **steps)


# Wheels


def unpacked(version: str, cache: Path) -> Path:
    """A folder with mxnet of that version and nothing else, downloaded once."""
    place = cache / f"mxnet-{version}"
    if place.is_dir():
        return place
    print(f"downloading mxnet {version} to {place}", file=sys.stderr)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        target = Path(temporary) / "wheel"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
        done = subprocess.run([*pip, "--target", str(target), f"mxnet=={version}"], capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise GridError(f"can't download mxnet {version}: {reason}")
        target.replace(place)
    return place


def answers(version: str, library: Path | None, jobs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What one MXNet answers to each job; after a crash, a new process goes on with the job that follows.

    Without a `library`, the installed MXNet.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("MXNET_SUBGRAPH_BACKEND", None)  # before 1.6, any value makes a bind fail
    if library:
        environment["PYTHONPATH"] = str(library)
    found: list[dict[str, Any]] = []
    while len(found) < len(jobs):
        jobs_path, answers_path = folder / f"{version}-jobs.json", folder / f"{version}-answers"
        jobs_path.write_text(json.dumps(jobs[len(found) :]))
        answers_path.write_text("")
        call = [sys.executable, str(WORKER), str(jobs_path), str(answers_path)]
        try:
            done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=3600)
            end = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            end = "no end after an hour"
        lines = [json.loads(line) for line in answers_path.read_text().splitlines()]
        if not lines:
            raise GridError(f"mxnet {version} can't be imported: {(done.stderr.strip().splitlines() or [end])[-1]}")
        check_library(version, library, lines[0])
        found += lines[1:]
        if len(found) < len(jobs):
            found.append({"crashed": end})
    return found


def check_library(version: str, library: Path | None, said: dict[str, str]) -> None:
    """That the MXNet which answers is the one that was asked."""
    right = library is None or Path(said["library"]).is_relative_to(library)
    if not right or line_of(said["mxnet"]) != line_of(version):
        raise GridError(f"mxnet {version} was asked, {said['mxnet']} of {said['library']} answered")


# Table


def cells(version: str, jobs: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[tuple[str, str], Cell]:
    """(form, column) -> cell of one version."""
    parts: dict[tuple[str, str], list[Cell]] = {}
    for job, answer in zip(jobs, found):
        expected = expectation(version, job["requirements"])
        form, api = job["id"][:2]
        for measure in TRAINING if api == "training" else ("outputs",):
            column = measure if api == "training" else api
            parts.setdefault((form, column), []).append(judge(answer, measure, expected))
    return {place: worst(several) for place, several in parts.items()}


def show(files: list[Files], grid: dict[str, dict[tuple[str, str], Cell]]) -> bool:
    """Print a table for each form and the verdict; return whether all cells are as they should be."""
    columns = (*APIS, *TRAINING)
    for each in files:
        needs = [
            version for version, _ in each.requirements(each.folder / "classifier-train-symbol.json")
        ]
        print(f"### {', '.join(each.names)}: loads from MXNet {max(needs, key=line_of, default='1.0.0')} on\n")
        rows = {version: [found[each.names[0], column] for column in columns] for version, found in grid.items()}
        print(markdown(columns, rows) + "\n")
    every = [cell for found in grid.values() for cell in found.values()]
    failed = sum(cell.failed for cell in every)
    refused = sum(cell.text.startswith("refused") for cell in every)
    known = sum(cell.text.endswith("(known fault)") for cell in every)
    limits = ", ".join(f"{measure} {limit:g}" for measure, limit in TOLERANCES.items())
    print(
        f"{'FAILED' if failed else 'passed'}: of {len(every)} cells {len(every) - failed - refused - known} within "
        f"tolerance ({limits}), {refused} refused as expected, {known} with a known fault of that MXNet, {failed} failed"
    )
    return not failed


def run(model: str, versions: list[str], forms: list[str], cache: Path, folder: Path) -> bool:
    """Run the grid in a temporary folder; return whether all is as it should be."""
    libraries = {version: unpacked(version, cache) for version in versions}
    files = write_files(model, forms, folder)
    write_data(files[0], folder)
    reference = next(iter(files[0].jobs(folder)))
    jobs = [job for each in files for job in each.jobs(folder)]
    reference = {**next(job for job in jobs if job["api"] == "training"), "save": str(folder / "training.npz")}
    print(answers("1.9.1", None, [reference], folder), file=sys.stderr)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(lambda version: answers(version, libraries[version], jobs, folder), versions)
        grid = {version: cells(version, jobs, each) for version, each in zip(versions, found)}
    return show(files, grid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:bert_2_64_4", help="SOURCE of bertsym export [%(default)s]")
    parser.add_argument("--versions", nargs="+", choices=VERSIONS, default=VERSIONS, metavar="V", help="of mxnet")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="F", help=", ".join(FORMS))
    parser.add_argument("--cache", type=Path, default=Path(".grid"), help="folder of the wheels [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            good = run(options.model, options.versions, options.forms, options.cache.resolve(), Path(folder))
        except GridError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
