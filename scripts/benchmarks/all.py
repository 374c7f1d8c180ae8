"""Run all comparisons with other libraries, and print which of the project's aims are reached.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import embed
import finetune
import predict
from common import DATA, Records

#: name of a part -> script and its arguments
PARTS = {
    "predict": ("predict.py",),
    "predict-base": ("predict.py", "--model", "base"),
    "finetune": ("finetune.py", *(word for work in finetune.QUICK for word in ("--work", work))),
    "embed": ("embed.py",),
}
_HEADS = {
    key: "a table" if key == "table_seconds" else head.removesuffix(", ms") for key, head in predict.MEASURED.items()
}


@dataclass(frozen=True)
class Aim:
    """A row of the summary: one measured work, and how many times as fast as each peer bertsym should be."""

    title: str
    work: str
    ours: str
    peers: tuple[str, ...]
    avx2: float
    avx512: float
    seconds: Callable[[Records, str, str], float | None]  #: of a work and a peer
    auto: str | None = None  #: bertsym where it may choose onnxruntime, shown beside


def aims() -> list[Aim]:
    """List the aims."""
    found = []
    for work, model in (("predict", "MiniLM"), ("predict-base", "BERT-base")):
        for precision, ours in (("float32", "bertsym"), ("int8", "bertsym-int8")):
            is_int8 = precision == "int8"
            peers = tuple(
                peer.name
                for peer in predict.PEERS
                if peer.name.endswith("-int8") == is_int8 and not peer.name.startswith("bertsym")
            )
            for key, head in _HEADS.items():
                ratio = 1.15 if key == "table_seconds" and model == "MiniLM" else 1.0
                title = f"predict {head}, {model}, {precision}"
                auto = "bertsym-auto-int8" if is_int8 else "bertsym-auto"
                found.append(Aim(title, work, ours, peers, ratio, ratio, of_key(key), auto))
    others = tuple(peer.name for peer in embed.PEERS if peer.name.startswith(embed.REFERENCE))
    found.append(Aim("embed short texts, MiniLM", "embed", "embed-mean", others, 1.3, 1.3, of_key("seconds")))
    for work, title, avx2, avx512 in (
        ("epoch", "fine-tune an epoch, MiniLM", 1.4, 2.0),
        ("step", "fine-tuning step, BERT-base, 8 x 128", 1.5, 2.2),
        ("step-256", "fine-tuning step, MiniLM, 16 x 256", 1.2, 1.5),
        ("step-512", "fine-tuning step, MiniLM, 16 x 512", 1.2, 1.5),
    ):
        found.append(Aim(title, work, "bertsym", ("torch", "torch-compiled"), avx2, avx512, training_seconds))
    return found


def of_key(key: str) -> Callable[[Records, str, str], float | None]:
    """Return a function that finds the median of a measured time."""
    return lambda records, work, peer: records.median(work, peer, key)


def training_seconds(records: Records, work: str, peer: str) -> float | None:
    """Find the median seconds of a step, or of the epochs."""
    return finetune.median_seconds(work, records, peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, rows and repetitions")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="run only this part; repeatable")
    parser.add_argument("--train", default=str(DATA / "train.tsv"), help="training table: pairs with a header")
    parser.add_argument("--dev", default=str(DATA / "dev.tsv"), help="dev table of the same format")
    parser.add_argument("--rounds", type=int, help="number of runs of each peer")
    parser.add_argument(
        "--folder", type=Path, default=Path(".bench"), help="folder for intermediate models and results"
    )
    parser.add_argument("--resume", action="store_true", help="add to the results of the last run instead of a new one")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = options.folder / "all.jsonl"
    if not options.resume:
        results.unlink(missing_ok=True)
    for name in options.part or PARTS:
        script, *words = PARTS[name]
        words += ["--folder", str(options.folder), "--results", str(results), *(["--quick"] if options.quick else [])]
        words += ["--rounds", str(options.rounds)] if options.rounds else []
        words += [] if name == "embed" else ["--train", options.train, "--dev", options.dev]
        start = time.perf_counter()
        print(f"## {name}\n", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *words], check=True)
        print(f"\n({time.perf_counter() - start:.0f} s)\n", flush=True)
    print(f"## Aims\n\n{summary(Records(results))}")


def summary(records: Records) -> str:
    """Compare bertsym with the best peer of each work."""
    wide = "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    lines = [
        f"| work | best peer | bertsym is | aim, {'AVX-512' if wide else 'AVX2'} | | with --engine auto |",
        "|---|---|---|---|---|---|",
    ]
    for aim in aims():
        ours = aim.seconds(records, aim.work, aim.ours)
        times = {name: aim.seconds(records, aim.work, name) for name in aim.peers}
        known = {name: seconds for name, seconds in times.items() if seconds is not None}
        wanted = aim.avx512 if wide else aim.avx2
        if ours is None or not known:
            lines.append(f"| {aim.title} | | | {wanted:.2f}x | not measured | |")
            continue
        best = min(known, key=lambda name: known[name])
        ratio = known[best] / ours
        reached = "reached" if ratio >= wanted else "not reached"
        missing = "".join(f", without {name}" for name in times if name not in known)
        auto = aim.seconds(records, aim.work, aim.auto) if aim.auto else None
        chosen = f"{known[best] / auto:.2f}x" if auto else ""
        lines.append(f"| {aim.title} | {best}{missing} | {ratio:.2f}x | {wanted:.2f}x | {reached} | {chosen} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
