"""What the benchmarks share: peers in their own environments, run in turn; records, medians, tables."""

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
DATA = Path(__file__).parents[1] / "demo_data"
THREADS = len(os.sched_getaffinity(0))
#: of MXNet, numpy and torch; a peer gets them as its own settings say, whatever the caller has set
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MXNET_CPU_WORKER_NTHREADS",
)
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
    """A program that does the same work: a file of WORKERS, run by one of the two environments."""

    name: str
    label: str
    worker: str
    python: str  #: "bertsym" or "torch"
    env: dict[str, str] = field(default_factory=dict, hash=False)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """One process, one result; stops with what the worker said when it fails."""
        return run_worker(self.worker, job, self.python, self.env)


def interpreter(name: str) -> str:
    """The Python of an environment, which the shell scripts set."""
    return os.environ["BENCH_TORCH_PYTHON"] if name == "torch" else sys.executable


def without_threads() -> dict[str, str]:
    """The environment as installed: without the caller's settings of threads and BLAS."""
    return {name: value for name, value in os.environ.items() if name not in _VARIABLES}


def run_worker(worker: str, job: dict[str, Any], python: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The result of a worker's job."""
    variables = {**without_threads(), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", **(env or {})}
    command = [interpreter(python), str(WORKERS / worker), json.dumps(job)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{worker} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class Records:
    """Results of peers, kept in a file of JSON lines too, so that a long benchmark can be run in parts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._records: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def add(self, work: str, peer: str, result: dict[str, Any]) -> None:
        record = {"work": work, "peer": peer, **result}
        self._records.append(record)
        if self._path:
            with self._path.open("a") as file:
                print(json.dumps(record), file=file)

    def of(self, work: str, peer: str) -> list[dict[str, Any]]:
        """The results of a peer, in the order of the rounds."""
        return [record for record in self._records if (record["work"], record["peer"]) == (work, peer)]

    def settings(self) -> list[str]:
        """What the peers say of themselves, each once."""
        return sorted({record["settings"] for record in self._records if "settings" in record})

    def median(self, work: str, peer: str, key: str) -> float | None:
        """The median over the rounds of a number, or of a list's own median."""
        values = [
            statistics.median(value) if isinstance(value := record[key], list) else value
            for record in self.of(work, peer)
            if record.get(key) is not None
        ]
        return statistics.median(values) if values else None


def in_turn(peers: Sequence[Peer], jobs: dict[str, dict[str, Any]], rounds: int, records: Records) -> None:
    """Every work by every peer, A B A B."""
    for work, job in jobs.items():
        for number in range(rounds):
            for peer in peers:
                print(f"{work}: {peer.label}, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                records.add(work, peer.name, peer.run(job))


def arguments(description: str | None, peers: Iterable[Peer], works: Sequence[str]) -> argparse.ArgumentParser:
    """Options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default=f"hf:{os.environ.get('BERTSYM_MODEL_DIR', '')}", metavar="hf:DIR")
    parser.add_argument("--only", action="append", choices=[peer.name for peer in peers], help="this peer; repeatable")
    parser.add_argument("--work", action="append", choices=works, help="this row of the table; repeatable")
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer has its turn")
    parser.add_argument("--results", type=Path, help="JSON lines of all results so far, added to; the table has them")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="for models and tables made on the way")
    return parser


def header(records: Records) -> str:
    """Machine, and the versions and threads that the peers say."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    peak = run_worker("sgemm.py", {"threads": THREADS}, "torch")
    gflops = ", ".join(f"{value:.0f} GFLOP/s on {count}" for count, value in peak["gflops"].items())
    facts = [
        f"{model}, {THREADS} processors; Linux {platform.release()}, Python {platform.python_version()}",
        f"Peak of sgemm by threads: {gflops}",
        "; ".join(records.settings()),
    ]
    return " ".join(f"{fact}." for fact in facts if fact)


def write_table(path: Path, rows: list[dict[str, str]]) -> str:
    """Rows as JSON Lines, which every peer reads; the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_pairs(path: str, rows: int | None = None) -> list[dict[str, str]]:
    """A table of pairs with a header line, as GLUE's MRPC or the demo's are; `rows` of it, drawn at random."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        records = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = ("#1 String", "#2 String", "Quality") if "Quality" in records[0] else ("sentence1", "sentence2", "label")
    columns = [records[0].index(name) for name in names]
    found = [dict(zip(("text", "text_pair", "label"), (record[i].strip() for i in columns))) for record in records[1:]]
    return random.Random(0).sample(found, min(rows, len(found))) if rows else found


def export_base(source: str, prefix: Path, *options: str) -> str:
    """A bundle at `prefix`, unless it is there."""
    if not prefix.with_name(f"{prefix.name}-manifest.json").exists():
        bertsym("export", source, str(prefix), *options)
    return str(prefix)


def bertsym(*words: str) -> None:
    """Run the command line; its errors stop."""
    done = subprocess.run([sys.executable, "-m", "bertsym", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
