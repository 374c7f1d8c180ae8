#!/usr/bin/env python
"""Run every form in every MXNet from 1.4 to 1.9.

Each form has a headless base with the [CLS] output, a classifier grafted onto it, and its training symbol. Each MXNet
runs them through Module, SymbolBlock and the C predict API, at two lengths with padded rows, and trains with Module.
The portable form of the first model has the heads of the other tasks too, which run in the same way without training.
Outputs are compared with the reference encoder, training with the gluonnlp form in the installed MXNet, each relative
to the scale of the reference. An MXNet older than the minimum version of the symbol must refuse to load it.

The model of an --embedding, a sentence-transformers folder, is one bundle that ends in the embedding: only its
outputs are compared.

The wheels are unpacked once, next to each other, and run under this Python, each in a process of its own.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from version_grid_table import TRAINING, Cell, expectation, judge, line_of, markdown, verdict, worst

from bertsym import Bundle, SymbolGraph
from bertsym.cli.group import run as bertsym
from bertsym.processors import processor_count
from bertsym.reference import Checkpoint, Inputs, encoder_outputs
from bertsym.symbol.operator_versions import oldest_mxnet
from bertsym.verifier import apply_head

VERSIONS = ("1.4.1", "1.5.1.post0", "1.6.0", "1.7.0.post2", "1.8.0.post0", "1.9.1")
#: form -> the options of `bertsym export`
FORMS: dict[str, tuple[str, ...]] = {
    "portable": (),
    "portable-guard": ("--guard",),
    "portable-1.4": ("--target-mxnet", "1.4"),
    "portable-1.5": ("--target-mxnet", "1.5"),
    "portable-1.7": ("--target-mxnet", "1.7"),
    "portable-1.9": ("--target-mxnet", "1.9"),
    "gluonnlp": ("--form", "gluonnlp"),
    "fast": ("--form", "fast"),
    "fast-1.4": ("--form", "fast", "--target-mxnet", "1.4"),
}
REFERENCE_FORM = "gluonnlp"
APIS = ("Module", "SymbolBlock", "C predict")
PARTS = ("base", "classifier")
#: task of a further head, on the form HEADS_FORM -> the output that it reads, and lines of its training file
HEADS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "multilabel": ("cls", [{"text": "one two", "label": ["a", "b"]}, {"text": "three", "label": ["c"]}]),
    "regression": ("cls", [{"text": "one two", "label": 0.5}, {"text": "three", "label": 2}]),
    "tagging": ("sequence", [{"tokens": ["one", "two", "three"], "tags": ["O", "B-X", "B-Y"]}]),
    "qa": ("sequence", [{"question": "which", "context": "one two three", "answers": ["two"]}]),
}
HEADS_FORM = "portable"
STILL = "still"
EMBEDDING = "embedding"
COLUMNS = (*APIS, *TRAINING)
INSTALLED = "1.9.1"
STEPS, LEARNING_RATE = 12, 1e-4
CACHE = Path(__file__).parents[2] / ".grid"
WORKER = Path(__file__).with_name("version_grid_worker.py")


class GridError(Exception):
    """The grid can't be run; the message is one line."""


class DownloadError(GridError):
    """A wheel can't be downloaded."""


class Model(NamedTuple):
    """A model of the grid."""

    source: str  #: of `bertsym export`
    forms: list[str]  #: keys of FORMS
    embeds: bool = False  #: whether its sentence embedding is run, instead of a base and a classifier


# Files


@dataclass(frozen=True)
class Form:
    """The bundles of a model in one form: base, classifier, and a copy of the classifier without dropout for training.

    There is a bundle for each of the further `heads` too. A model that embeds has one bundle. The folder around them
    has the data of the model.
    """

    model: Model
    name: str
    folder: Path
    heads: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The bundles whose outputs are compared."""
        return (EMBEDDING,) if self.model.embeds else PARTS

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of its table."""
        return APIS if self.model.embeds else COLUMNS

    def requirements(self, symbol: str) -> list[tuple[str, str]]:
        """Return (version, reason) for each requirement of a symbol's nodes."""
        nodes = SymbolGraph.load(self.folder / symbol).nodes
        return sorted({(each.version, each.reason) for node in nodes for each in oldest_mxnet([node]).requirements})

    def signature(self, part: str) -> dict[str, Any]:
        """Return the signature of a bundle, with its minimum and target MXNet."""
        document: dict[str, Any] = json.loads((self.folder / f"{part}-signature.json").read_text())
        return document

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Yield the jobs of each MXNet."""
        data = self.folder.parent
        for part, api in itertools.product((*self.parts, *self.heads), APIS):
            yield self._job(api, part, f"{part}-symbol.json", data / "cases.npz", data / f"{part}.npz")
        if not self.model.embeds:
            yield self._job("training", STILL, f"{STILL}-train-symbol.json", data / "steps.npz", data / "training.npz")

    def _job(self, api: str, part: str, symbol: str, cases: Path, reference: Path) -> dict[str, Any]:
        signature = self.signature(part)
        return {
            "folder": str(self.folder),
            "target": signature["target_mxnet"],
            "minimum": signature["minimum_mxnet"],
            "requirements": self.requirements(symbol),
            "api": api,
            "part": part,
            "symbol": str(self.folder / symbol),
            "params": str(self.folder / f"{part}-0000.params"),
            "cases": str(cases),
            "reference": str(reference),
            "learning_rate": LEARNING_RATE,
        }


def command(*arguments: object) -> None:
    """Run a command of bertsym silently; raises GridError with its message."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = bertsym([str(argument) for argument in arguments])
    if code:
        raise GridError(f"bertsym {' '.join(map(str, arguments))}: {printed.getvalue().strip().splitlines()[-1]}")


def write_form(model: Model, name: str, folder: Path, heads: Iterable[str] = ()) -> Form:
    """Export the model in a form; graft a classifier onto it and train further heads for a step, unless it embeds."""
    form = Form(model, name, folder / name, tuple(heads))
    form.folder.mkdir()
    # Not verified here, since each MXNet compares them.
    if model.embeds:
        command("export", model.source, form.folder / EMBEDDING, "--no-verify", *FORMS[name])
        return form
    base, classifier, still = (form.folder / part for part in (*PARTS, STILL))
    command("export", model.source, base, "--headless", "--no-verify", *FORMS[name])
    command("graft", base, classifier, "--no-verify", "--num-classes", 2)
    encoders = {"cls": base}
    for head in form.heads:
        output, lines = HEADS[head]
        if output not in encoders:
            encoders[output] = form.folder / output
            command("export", model.source, encoders[output], "--no-verify", "--output", output, *FORMS[name])
        path = form.folder / f"{head}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        files = ("--train", path, "--dev", path, "--task", head)
        command("finetune", encoders[output], form.folder / head, *files, "--epochs", 1, "--freeze-encoder")
    # Without dropout, whose random numbers differ between versions.
    command("edit", classifier, still, "--no-verify", "--dropout", "off")
    return form


def write_data(form: Form, forms: Iterable[Form]) -> None:
    """Write inputs at two lengths with padded rows, the outputs of the reference encoder, and training batches.

    The heads are those of `form` and the further ones of all `forms`.
    """
    folder, whole = form.folder.parent, Bundle.open(form.folder / form.parts[-1])
    config = whole.config
    checkpoint = Checkpoint("GluonNLP export", whole.params(), config.to_dict())
    rng = np.random.default_rng(0)

    def batch(rows: int, length: int) -> dict[str, Any]:
        valid = np.ceil(np.linspace(1, length, rows))
        padding = np.arange(length) >= valid[:, None]
        ids = rng.integers(config.vocab_size, size=(rows, length))
        types = rng.integers(config.segments, size=(rows, length))
        arrays = (np.where(padding, 0, ids), np.where(padding, 0, types), valid)
        return {f"data{i}": array.astype(np.float32) for i, array in enumerate(arrays)}

    cases = {str(length): batch(3, length) for length in (16, min(40, config.max_length))}
    named = {f"{case}{name}": array for case, arrays in cases.items() for name, array in arrays.items()}
    np.savez(folder / "cases.npz", **named)
    batches = [Inputs(*arrays.values()) for arrays in cases.values()]
    encodings = [*encoder_outputs(config.family, checkpoint, batches)]
    further = [(other, head) for other in forms for head in other.heads]
    for other, part in (*((form, part) for part in form.parts), *further):
        bundle = Bundle.open(other.folder / part)
        params = whole.params() if part in form.parts else bundle.params()
        answers = {
            case: apply_head(encoded, bundle, params, fed.valid_length)
            for case, fed, encoded in zip(cases, batches, encodings)
        }
        np.savez(folder / f"{part}.npz", **answers)
    trained = [batch(8, 24) for _ in range(STEPS)]
    steps = {name: np.stack([each[name] for each in trained]) for name in trained[0]}
    steps["softmax_label"] = rng.integers(2, size=(STEPS, 8)).astype(np.float32)
    np.savez(folder / "steps.npz", **steps)


# Wheels


def unpack_wheel(version: str, cache: Path) -> Path:
    """Return a folder with this version of mxnet, downloaded once; raises DownloadError."""
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
            raise DownloadError(f"can't download mxnet {version}: {reason}")
        target.replace(place)
    return place


def answers(version: str, library: Path | None, jobs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Run the jobs in one MXNet and return their results; after a crash, a new process continues with the next job.

    Without a `library`, the installed MXNet runs.
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


def check_library(version: str, library: Path | None, imported: dict[str, str]) -> None:
    """Raise GridError if another MXNet than that of the wheel was imported."""
    right = library is None or Path(imported["library"]).is_relative_to(library)
    if not right or line_of(imported["mxnet"]) != line_of(version):
        raise GridError(f"mxnet {version} was requested, but {imported['mxnet']} of {imported['library']} was imported")


# Table


def cells(version: str, jobs: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[tuple[str, str], Cell]:
    """Map (folder of a form, column) to the cell of one version."""
    squares: dict[tuple[str, str], list[Cell]] = {}
    for job, answer in zip(jobs, found):
        expected = expectation(version, job["minimum"], job["requirements"], job["target"])
        column = job["part"] if job["part"] in HEADS else job["api"]
        measures = {name: name for name in TRAINING} if job["api"] == "training" else {column: "outputs"}
        for column, measure in measures.items():
            squares.setdefault((job["folder"], column), []).append(judge(answer, measure, expected))
    return {square: worst(several) for square, several in squares.items()}


def show(forms: list[Form], grid: dict[str, dict[tuple[str, str], Cell]]) -> bool:
    """Print a table for each form and the verdict; return whether no cell failed."""
    for form in forms:
        export = " ".join(("bertsym export", form.model.source, "OUT", *FORMS[form.name]))
        minimum = form.signature(form.parts[-1])["minimum_mxnet"]
        title = f"{form.name}, sentence embedding" if form.model.embeds else form.name
        print(f"### {title}\n\n`{export}`: loads from MXNet {minimum} on\n")
        rows = {
            version: [found[str(form.folder), column] for column in form.columns] for version, found in grid.items()
        }
        print(markdown("MXNet", form.columns, rows) + "\n")
        if form.heads:
            print("Heads of other tasks, the largest difference of Module, SymbolBlock and C predict:\n")
            tasks = {head: [found[str(form.folder), head] for found in grid.values()] for head in form.heads}
            print(markdown("task", grid, tasks) + "\n")
    every = [cell for found in grid.values() for cell in found.values()]
    print(verdict(every))
    return not any(cell.failed for cell in every)


def write_model(model: Model, folder: Path, heads: Iterable[str] = ()) -> tuple[list[Form], list[dict[str, Any]]]:
    """Write a model's forms and data; return the forms, and the jobs that compute the reference of its training.

    The form HEADS_FORM has the further `heads`.
    """
    folder.mkdir()
    # The reference of the training is needed even if its form was not requested.
    reference_form = model.forms[0] if model.embeds else REFERENCE_FORM
    forms = {
        name: write_form(model, name, folder, heads if name == HEADS_FORM else ())
        for name in dict.fromkeys([*model.forms, reference_form])
    }
    reference = forms[reference_form]
    write_data(reference, forms.values())
    training = [{**job, "save": job["reference"]} for job in reference.jobs() if job["api"] == "training"]
    return [forms[name] for name in model.forms], training


def run(models: list[Model], versions: list[str], cache: Path, folder: Path) -> bool:
    """Run the grid on models, with files in `folder`; return whether no cell failed."""
    libraries = {version: unpack_wheel(version, cache) for version in versions}
    print("writing the bundles", file=sys.stderr)
    written = [
        write_model(model, folder / str(i), () if i or model.embeds else HEADS) for i, model in enumerate(models)
    ]
    for answer in answers(INSTALLED, None, [job for _, training in written for job in training], folder):
        if answer:
            raise GridError(f"no reference for training: {answer}")
    forms = [form for several, _ in written for form in several]
    jobs = [job for form in forms for job in form.jobs()]
    grid = {}
    with ThreadPoolExecutor(processor_count()) as pool:
        found = {version: pool.submit(answers, version, libraries[version], jobs, folder) for version in versions}
        for version, future in found.items():
            grid[version] = cells(version, jobs, future.result())
            print(f"mxnet {version} has finished", file=sys.stderr)
    return show(forms, grid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    weights = os.environ.get("BERTSYM_MODEL_DIR")
    parser.add_argument(
        "--model",
        metavar="SOURCE",
        nargs="+",
        help="sources of bertsym export [the pretrained weights in .venv]; small weights would hide faults of gelu",
    )
    parser.add_argument(
        "--embedding",
        metavar="SOURCE",
        nargs="+",
        default=[],
        help="sentence-transformers folders, as sources, whose embeddings are run [none]",
    )
    parser.add_argument(
        "--versions", nargs="+", choices=VERSIONS, default=VERSIONS, metavar="V", help="versions of mxnet"
    )
    parser.add_argument(
        "--forms", nargs="+", choices=FORMS, default=FORMS, metavar="F", help=f"forms: {', '.join(FORMS)}"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the wheels [.grid in the clone]")
    options = parser.parse_args()
    if options.model is None and not options.embedding and not weights:
        parser.error("give --model, or BERTSYM_MODEL_DIR in the environment")
    sources = options.model or ([] if options.embedding else [f"hf:{weights}"])
    models = [Model(source, list(options.forms)) for source in sources]
    models += [Model(source, list(options.forms), embeds=True) for source in options.embedding]
    with tempfile.TemporaryDirectory() as folder:
        try:
            good = run(models, list(options.versions), options.cache.resolve(), Path(folder))
        except GridError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
