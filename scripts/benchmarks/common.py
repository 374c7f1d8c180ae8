"""Shared parts of the benchmarks: peers in their own environments, alternating runs, records, medians, tables."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).parent / "workers"
DATA = Path(__file__).parents[2] / "bertsym" / "demo" / "data"
THREADS = len(os.sched_getaffinity(0))
#: thread and BLAS settings of MXNet, numpy and torch; the caller's are removed, a peer may set its own
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MXNET_CPU_WORKER_NTHREADS",
)
#: flag of a processor -> name of its instruction set, the widest first
_VECTORS = {"amx_int8": "AVX-512 VNNI and AMX", "avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx2": "AVX2"}
BERT_BASE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class Peer:
    """A program to compare: a file of WORKERS, run in one of the environments."""

    name: str
    label: str
    worker: str
    python: str  #: "bertsym", or an environment that `prepare_benchmark` of scripts/environment.sh made
    env: dict[str, str] = field(default_factory=dict, hash=False)
    job: dict[str, Any] = field(default_factory=dict, hash=False)  #: added to each job

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run the job in a new process and return its result; exits with the worker's error if it fails."""
        return run_worker(self.worker, {**job, **self.job}, self.python, self.env)


def interpreter(name: str) -> str:
    """Return the Python of an environment, as set by the shell scripts."""
    return sys.executable if name == "bertsym" else f"{os.environ['BENCH_ENVIRONMENTS']}/{name}/bin/python"


def without_threads() -> dict[str, str]:
    """Return the environment variables without the caller's thread and BLAS settings; Python keeps compiled modules."""
    removed = (*_VARIABLES, "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in removed}


def run_worker(worker: str, job: dict[str, Any], python: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a job by a worker in a new process and return its result."""
    variables = {**without_threads(), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", **(env or {})}
    command = [interpreter(python), str(WORKERS / worker), json.dumps(job)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{worker} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class Records:
    """Results of peers, also stored in a JSON Lines file so that a long benchmark can be run in several sessions."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.peaks: dict[str, Any] = {}  #: of the machine, once the header is made
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._records: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def add(self, work: str, peer: str, result: dict[str, Any]) -> None:
        record = {"work": work, "peer": peer, **result}
        self._records.append(record)
        if self._path:
            with self._path.open("a") as file:
                print(json.dumps(record), file=file)

    def of(self, work: str, peer: str) -> list[dict[str, Any]]:
        """Return the results of a peer, in the order of the rounds."""
        return [record for record in self._records if (record["work"], record["peer"]) == (work, peer)]

    def settings(self) -> list[str]:
        """Return the distinct settings that peers report."""
        return sorted({record["settings"] for record in self._records if "settings" in record})

    def median(self, work: str, peer: str, key: str) -> float | None:
        """Return the median over the rounds of a number, or of the medians of a list."""
        values = [
            statistics.median(value) if isinstance(value := record[key], list) else value
            for record in self.of(work, peer)
            if record.get(key) is not None
        ]
        return statistics.median(values) if values else None


def in_turn(peers: Sequence[Peer], jobs: dict[str, dict[str, Any]], rounds: int, records: Records) -> None:
    """Run every job by every peer, with alternating peers: A B A B."""
    for work, job in jobs.items():
        for number in range(rounds):
            for peer in peers:
                print(f"{work}: {peer.label}, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                records.add(work, peer.name, peer.run(job))


def arguments(description: str | None, peers: Iterable[Peer], works: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--model",
        default=f"hf:{os.environ.get('BERTSYM_MODEL_DIR', '')}",
        metavar="hf:DIR",
        help="Hugging Face folder; `base`: BERT-base with random weights and the vocabulary of $BERTSYM_MODEL_DIR",
    )
    parser.add_argument(
        "--only", action="append", choices=[peer.name for peer in peers], help="run only this peer; repeatable"
    )
    parser.add_argument("--work", action="append", choices=works, help="run only this part; repeatable")
    parser.add_argument("--rounds", type=int, help="number of runs of each peer  [default: 3, 2 with --quick]")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, rows and repetitions")
    parser.add_argument(
        "--results",
        type=Path,
        help="JSON Lines file with earlier results, which the table includes; new ones are appended",
    )
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="folder for intermediate models and tables")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; the number of rounds and the folder are complete."""
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 3)
    options.folder = options.folder.resolve()
    return options


def random_encoder(folder: Path, model_type: str, config: dict[str, Any]) -> str:
    """Return a Hugging Face folder, ``hf:DIR``, of a random encoder; writes it unless it exists."""
    path = folder / f"{model_type}_hf"
    if not (path / "config.json").exists():
        tokenizer = os.environ["BERTSYM_MODEL_DIR"]
        job = {"model_type": model_type, "config": config, "tokenizer": tokenizer, "out": str(path)}
        run_worker("random_encoder.py", job, "torch")
    return f"hf:{path}"


def header(records: Records) -> str:
    """Describe the machine, and the versions and threads that the peers report."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in file)}
    model = known.get("model name") or platform.processor() or platform.machine()
    flags = known.get("flags", "").split()
    vectors = next((shown for flag, shown in _VECTORS.items() if flag in flags), "no AVX2")
    peak = run_worker("machine_peaks.py", {"threads": THREADS}, "torch")
    gflops = ", ".join(f"{value:.0f} GFLOP/s on {count}" for count, value in peak["gflops"].items())
    records.peaks = peak
    facts = [
        f"{model}, {vectors}, {THREADS} processors; Linux {platform.release()}, Python {platform.python_version()}",
        f"Peak sgemm throughput by number of threads: {gflops}; reading memory: {peak['gigabytes']:.0f} GB/s",
        "; ".join(records.settings()),
    ]
    return " ".join(f"{fact}." for fact in facts if fact)


def write_table(path: Path, rows: list[dict[str, str]]) -> str:
    """Write rows as JSON Lines, which every peer reads; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_pairs(path: str, rows: int | None = None) -> list[dict[str, str]]:
    """Read a table of pairs with a header, as GLUE's MRPC or the demo's are; with `rows`, a random sample."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        records = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = ("#1 String", "#2 String", "Quality") if "Quality" in records[0] else ("sentence1", "sentence2", "label")
    columns = [records[0].index(name) for name in names]
    found = [dict(zip(("text", "text_pair", "label"), (record[i].strip() for i in columns))) for record in records[1:]]
    return random.Random(0).sample(found, min(rows, len(found))) if rows else found


def export_base(source: str, prefix: Path, *options: str) -> str:
    """Export a bundle to `prefix` unless it exists."""
    if not prefix.with_name(f"{prefix.name}-manifest.json").exists():
        bertsym("export", source, str(prefix), *options)
    return str(prefix)


def bertsym(*words: str) -> None:
    """Run the command line; exits with its error if it fails."""
    done = subprocess.run([sys.executable, "-m", "bertsym", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
