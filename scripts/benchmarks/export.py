"""Export of BERT-base (random weights) compared with GluonNLP's: time and peak memory; and small commands.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import (
    BERT_BASE,
    WORKERS,
    Peer,
    Records,
    arguments,
    export_base,
    header,
    run_worker,
    without_threads,
    write_random_encoder,
)

_MIB = 1 << 20
PEERS = (
    Peer("gluonnlp", "GluonNLP's export of its .params file", "export_gluonnlp.py", "bertsym"),
    Peer("params-unverified", "bertsym export params:FILE --no-verify", "", "bertsym"),
    Peer("params", "bertsym export params:FILE", "", "bertsym"),
    Peer("hf-unverified", "bertsym export hf:DIR --no-verify", "", "bertsym"),
    Peer("hf", "bertsym export hf:DIR", "", "bertsym"),
    Peer("help", "bertsym --help", "", "bertsym"),
    Peer("inspect", "bertsym inspect MODEL", "", "bertsym"),
)


def main() -> None:
    options = arguments(__doc__, PEERS, ("export",)).parse_args()
    records = Records(options.results)
    folder = options.folder.resolve()
    commands, size = prepare(options, folder)
    # The first round is not counted, because Python compiles modules in it.
    for number in range(options.rounds + 1):
        for peer in PEERS:
            if peer.name in (options.only or commands):
                print(f"{peer.label}, round {number} of {options.rounds}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    words = [word.replace("OUT", f"{out}/base") for word in commands[peer.name]]
                    result = measure(words)
                    if number:
                        records.add("export", peer.name, result)
    print(header(records))
    print(f"\nBERT-base, {size / _MIB:.0f} MiB of parameters; measured over whole processes:\n\n{table(records, size)}")


def prepare(options: Any, folder: Path) -> tuple[dict[str, list[str]], int]:
    """Make the inputs; returns the command of each peer and the size of the parameters in bytes."""
    hugging_face = folder / "bert_base_hf"
    if not hugging_face.exists():
        write_random_encoder(hugging_face, "bert", BERT_BASE, options.model)
    prefix = export_base(f"hf:{hugging_face}", folder / "bert_base", "--output", "pooled")
    saved = folder / "bert_base_gluonnlp.params"
    if not saved.exists():
        run_worker("save_gluonnlp.py", {"config": BERT_BASE, "prefix": prefix, "out": str(saved)}, "bertsym")
    job = {"config": BERT_BASE, "params": str(saved), "out": "OUT"}
    command = [sys.executable, "-m", "bertsym"]
    params = [*command, "export", f"params:{saved}", "OUT", "--vocab", f"{prefix}-vocab.txt", "--output", "pooled"]
    model = [*command, "export", f"hf:{hugging_face}", "OUT", "--output", "pooled"]
    commands = {
        "gluonnlp": [sys.executable, str(WORKERS / PEERS[0].worker), json.dumps(job)],
        "params-unverified": [*params, "--no-verify"],
        "params": params,
        "hf-unverified": [*model, "--no-verify"],
        "hf": model,
        "help": [*command, "--help"],
        "inspect": [*command, "inspect", prefix],
    }
    return commands, os.path.getsize(f"{prefix}-0000.params")


def measure(words: list[str]) -> dict[str, Any]:
    """Run a process; returns its seconds and peak resident memory, including mapped files."""
    environment = without_threads()
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            errors.seek(0)
            raise SystemExit(errors.read().decode().strip())
    return {"seconds": seconds, "peak": usage.ru_maxrss * 1024}


def table(records: Records, size: int) -> str:
    lines = ["| | s | peak memory, MiB | peak / parameters |", "|---|---|---|---|"]
    for peer in PEERS:
        seconds, peak = (records.median("export", peer.name, key) for key in ("seconds", "peak"))
        if seconds is not None and peak is not None:
            lines.append(f"| {peer.label} | {seconds:.2f} | {peak / _MIB:.0f} | {peak / size:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
