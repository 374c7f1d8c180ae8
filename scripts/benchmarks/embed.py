"""Speed of embeddings of short texts compared with predictions of the same encoder, and with sentence-transformers.

sentence-transformers runs on PyTorch, onnxruntime and OpenVINO.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, THREADS, Peer, Records, arguments, bertsym, export_base, header, parse, read_pairs, write_table

PEERS = (
    Peer("predict", "bertsym predict, a classifier that reads [CLS]", "embed_bertsym.py", "bertsym"),
    Peer("embed-cls", "bertsym embed, [CLS] of its encoder", "embed_bertsym.py", "bertsym"),
    Peer("embed-mean", "bertsym embed, mean of the tokens", "embed_bertsym.py", "bertsym"),
    Peer(
        "sentence-transformers",
        "sentence-transformers on PyTorch, mean",
        "embed_sentence_transformers.py",
        "torch",
        job={"backend": "torch"},
    ),
    Peer(
        "sentence-transformers-onnx",
        "the same on onnxruntime, optimized (O3)",
        "embed_sentence_transformers.py",
        "sentence-transformers-onnx",
        job={"backend": "onnx"},
    ),
    Peer(
        "sentence-transformers-openvino",
        "the same on OpenVINO",
        "embed_sentence_transformers.py",
        "sentence-transformers-openvino",
        job={"backend": "openvino"},
    ),
)
REFERENCE = "sentence-transformers"
_WORDS = (4, 16)  # fewest and most words of a text
_QUICK_TEXTS = 1000


def main() -> None:
    parser = arguments(__doc__, PEERS, ("embed",))
    parser.add_argument(
        "--repeats", type=int, help="times that all texts are computed in each round  [default: 3, or 2]"
    )
    parser.add_argument("--texts", type=int, help=f"number of texts  [default: 10000, {_QUICK_TEXTS} with --quick]")
    options = parse(parser)
    records, folder = Records(options.results), options.folder
    model = options.model.removeprefix("hf:")
    options.texts = options.texts or (_QUICK_TEXTS if options.quick else 10_000)
    rows = short_texts(options.texts)
    common = {
        "table": write_table(folder / "embed.jsonl", rows),
        "model": model,
        "prefix": classifier(options.model, folder),
        "max_length": 128,
        "threads": THREADS,
        "repeats": options.repeats or (2 if options.quick else 3),
        "converted": str(folder / "sentence_transformers"),
    }
    for number in range(options.rounds):
        for peer in PEERS:
            if peer.name in (options.only or [each.name for each in PEERS]):
                print(f"{peer.label}, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                records.add("embed", peer.name, peer.run({**common, "peer": peer.name}))
    print(header(records))
    print(f"\n{len(rows)} texts of {_WORDS[0]} to {_WORDS[1]} words, including tokenization:\n")
    print(table(records, len(rows)))


def short_texts(count: int) -> list[dict[str, str]]:
    """Cut different texts out of the demo's sentences."""
    generator = random.Random(0)
    pairs = [row for name in ("train", "dev") for row in read_pairs(str(DATA / f"{name}.tsv"))]
    sentences = [row[key].split() for row in pairs for key in ("text", "text_pair")]
    found: dict[str, None] = {}
    while len(found) < count:
        words, length = generator.choice(sentences), generator.randint(*_WORDS)
        start = generator.randint(0, max(0, len(words) - length))
        found[" ".join(words[start : start + length])] = None
    return [{"text": text} for text in found]


def classifier(source: str, folder: Path) -> str:
    """Fine-tune a classifier of single texts for one epoch unless it exists; returns its prefix."""
    prefix = folder / "single"
    if not prefix.with_name("single-manifest.json").exists():
        base = export_base(source, folder / "cls", "--output", "cls")
        pairs = [{"text": row["text"], "label": row["label"]} for row in read_pairs(str(DATA / "train.tsv"))]
        train = write_table(folder / "single.jsonl", pairs)
        words = ("finetune", base, str(prefix), "--train", train, "--dev", train, "--epochs", "1")
        bertsym(*words, "--max-length", "128", "--freeze-encoder")
    return str(prefix)


def table(records: Records, count: int) -> str:
    ours, reference = records.median("embed", "embed-mean", "seconds"), records.of("embed", REFERENCE)
    lines = ["| | texts/s | bertsym's mean is | one by one, ms | difference |", "|---|---|---|---|---|"]
    for peer in PEERS:
        found = records.of("embed", peer.name)
        seconds, alone = (records.median("embed", peer.name, key) for key in ("seconds", "alone"))
        if not found or seconds is None or alone is None:
            continue
        relative = f"{seconds / ours:.2f}x" if ours else ""
        is_mean = peer.name == "embed-mean" or peer.name.startswith(REFERENCE)
        differs = difference(found[0], reference[0]) if is_mean and reference else ""
        lines.append(f"| {peer.label} | {count / seconds:.0f} | {relative} | {1000 * alone:.1f} | {differs} |")
    return "\n".join(lines)


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return the largest difference of two peers' vectors, relative to the largest element."""
    one, other = (np.array(record["vectors"]) for record in (ours, theirs))
    return f"{np.abs(one - other).max() / np.abs(other).max():.1e}"


if __name__ == "__main__":
    main()
