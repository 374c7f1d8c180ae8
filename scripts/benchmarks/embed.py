"""Speed of embeddings compared with predictions of the same encoder, and with sentence-transformers.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, THREADS, Peer, Records, arguments, bertsym, export_base, header, read_pairs, write_table

PEERS = (
    Peer("predict", "bertsym predict, a classifier that reads [CLS]", "embed_bertsym.py", "bertsym"),
    Peer("embed-cls", "bertsym embed, [CLS] of its encoder", "embed_bertsym.py", "bertsym"),
    Peer("embed-mean", "bertsym embed, mean of the tokens", "embed_bertsym.py", "bertsym"),
    Peer("sentence-transformers", "sentence-transformers, mean of the tokens", "embed_torch.py", "torch"),
)


def main() -> None:
    parser = arguments(__doc__, PEERS, ("embed",))
    parser.add_argument("--repeats", type=int, default=5, help="times that all texts are computed in each round")
    parser.add_argument("--texts", type=int, help="number of texts, evenly chosen; by default all of them")
    options = parser.parse_args()
    records, folder = Records(options.results), options.folder.resolve()
    model = options.model.removeprefix("hf:")
    rows = [
        {"text": row[key]}
        for name in ("train", "dev")
        for row in read_pairs(str(DATA / f"{name}.tsv"))
        for key in ("text", "text_pair")
    ]
    rows = rows[:: -(-len(rows) // options.texts)] if options.texts else rows
    common = {
        "table": write_table(folder / "embed.jsonl", rows),
        "model": model,
        "prefix": classifier(options.model, folder),
        "max_length": 128,
        "threads": THREADS,
        "repeats": options.repeats,
    }
    for number in range(options.rounds):
        for peer in PEERS:
            if peer.name in (options.only or [each.name for each in PEERS]):
                print(f"{peer.label}, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                records.add("embed", peer.name, peer.run({**common, "peer": peer.name}))
    print(header(records))
    print(f"\n{len(rows)} texts, including tokenization:\n")
    print(table(records, len(rows)))


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
    ours = records.median("embed", "predict", "seconds")
    reference = records.of("embed", "sentence-transformers")
    lines = ["| | texts/s | relative to predict | one by one, ms | difference |", "|---|---|---|---|---|"]
    for peer in PEERS:
        found = records.of("embed", peer.name)
        seconds, alone = (records.median("embed", peer.name, key) for key in ("seconds", "alone"))
        if not found or seconds is None or alone is None:
            continue
        relative = f"{ours / seconds:.2f}x" if ours else ""
        differs = difference(found[0], reference[0]) if peer.name == "embed-mean" and reference else ""
        lines.append(f"| {peer.label} | {count / seconds:.0f} | {relative} | {1000 * alone:.1f} | {differs} |")
    return "\n".join(lines)


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return the largest difference of two peers' vectors, relative to the largest element."""
    one, other = (np.array(record["vectors"]) for record in (ours, theirs))
    return f"{np.abs(one - other).max() / np.abs(other).max():.1e}"


if __name__ == "__main__":
    main()
