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
    parse,
    random_encoder,
    run_worker,
    without_threads,
)

_MIB = 1 << 20
_INTERVAL = 0.01  # seconds between looks at a process's memory
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
    options = parse(arguments(__doc__, PEERS, ("export",)))
    records = Records(options.results)
    folder = options.folder
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
    source = random_encoder(folder, "bert", BERT_BASE)
    prefix = export_base(source, folder / "base", "--output", "pooled")
    saved = folder / "base_gluonnlp.params"
    if not saved.exists():
        run_worker("save_gluonnlp.py", {"config": BERT_BASE, "prefix": prefix, "out": str(saved)}, "bertsym")
    job = {"config": BERT_BASE, "params": str(saved), "out": "OUT"}
    command = [sys.executable, "-m", "bertsym"]
    params = [*command, "export", f"params:{saved}", "OUT", "--vocab", f"{prefix}-vocab.txt", "--output", "pooled"]
    model = [*command, "export", source, "OUT", "--output", "pooled"]
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
    """Run a process; returns its seconds, and its peak memory in bytes with mapped files and without them."""
    environment = without_threads()
    start, anonymous, status = time.perf_counter(), 0, None
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            anonymous = max(anonymous, anonymous_memory(process.pid))
            time.sleep(_INTERVAL)
        seconds = time.perf_counter() - start
        if status:
            errors.seek(0)
            raise SystemExit(errors.read().decode().strip())
    return {"seconds": seconds, "peak": usage.ru_maxrss * 1024, "anonymous": anonymous}


def anonymous_memory(process: int) -> int:
    """Return the resident memory of a process that belongs to no file, in bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def table(records: Records, size: int) -> str:
    lines = [
        "| | s | peak memory, MiB | peak / parameters | without mapped files, MiB | / parameters |",
        "|---|---|---|---|---|---|",
    ]
    for peer in PEERS:
        seconds, peak, anonymous = (
            records.median("export", peer.name, key) for key in ("seconds", "peak", "anonymous")
        )
        if seconds is not None and peak is not None and anonymous is not None:
            memory = " | ".join(f"{value / _MIB:.0f} | {value / size:.2f}" for value in (peak, anonymous))
            lines.append(f"| {peer.label} | {seconds:.2f} | {memory} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
