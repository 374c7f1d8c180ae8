"""Fine-tuning speed compared with other libraries: rows per second, a BERT-base step, a frozen encoder, other families.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import (
    BERT_BASE,
    DATA,
    THREADS,
    Peer,
    Records,
    arguments,
    export_base,
    header,
    in_turn,
    parse,
    random_encoder,
    read_pairs,
    write_table,
)

PEERS = (
    Peer("bertsym", "bertsym", "finetune_bertsym.py", "bertsym"),
    Peer(
        "bertsym-report",
        "bertsym with --report, --log-json and --tensorboard",
        "finetune_bertsym.py",
        "bertsym",
        job={"report": True},
    ),
    Peer("module", "(a) GluonNLP's symbol in Module, padded to 128", "finetune_module.py", "bertsym"),
    Peer("gluon", "(b) GluonNLP's BERTClassifier, Trainer, bucketing sampler", "finetune_gluon.py", "bertsym"),
    Peer(
        "gluon-threads",
        f"(b) with OMP_NUM_THREADS={THREADS}",
        "finetune_gluon.py",
        "bertsym",
        {"OMP_NUM_THREADS": str(THREADS)},
    ),
    Peer(
        "torch",
        "(c) Hugging Face on PyTorch, sdpa, fused AdamW, dynamic padding",
        "finetune_torch.py",
        "torch",
        job={"compiled": False},
    ),
    Peer("torch-compiled", "(c) by torch.compile", "finetune_torch.py", "torch", job={"compiled": True}),
)
_LEADERS = ("bertsym", "torch", "torch-compiled")
_QUICK_PEERS = (*_LEADERS, "bertsym-report")
#: peers of each part
WORKS = {
    "epoch": ("bertsym", "module", "gluon", "gluon-threads", "torch", "torch-compiled"),
    "step": _LEADERS,
    "step-256": _LEADERS,
    "step-512": _LEADERS,
    "frozen": ("bertsym", "torch"),
    "roberta": ("bertsym", "module", "torch"),
    "distilbert": ("bertsym", "module", "torch"),
    "report": ("bertsym", "bertsym-report"),
}
#: parts that `--quick` runs by default, with the peers of _QUICK_PEERS
QUICK = ("epoch", "step", "step-256", "step-512")
TITLES = {
    "epoch": "Fine-tuning, batch 32, at most 128 tokens",
    "step": "One step of BERT-base (random weights), batch 8, 128 tokens per row",
    "step-256": "One step of MiniLM, batch 16, 256 tokens per row",
    "step-512": "One step of MiniLM, batch 16, 512 tokens per row",
    "frozen": "Head only, frozen encoder, batch 32",
    "roberta": "A RoBERTa of MiniLM's size (random weights), batch 32, at most 128 tokens",
    "distilbert": "A DistilBERT of MiniLM's size (random weights), batch 32, at most 128 tokens",
    "report": "Fine-tuning with a report and logs, batch 32, at most 128 tokens",
}
#: configs of MiniLM's size; with BERT's tokenizer, the id of the padding is 0
FAMILIES: dict[str, dict[str, Any]] = {
    "roberta": {
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 0,
    },
    "distilbert": {
        "vocab_size": 30522,
        "dim": 384,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 1536,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    },
}


@dataclass(frozen=True)
class Steps:
    """Steps whose rows all have the same length."""

    batch_size: int
    length: int


STEPS = {"step": Steps(8, 128), "step-256": Steps(16, 256), "step-512": Steps(16, 512)}
_WARMUP = 3
_QUICK_ROWS = 600


def main() -> None:
    parser = arguments(__doc__, PEERS, list(WORKS))
    parser.add_argument(
        "--train", default=str(DATA / "train.tsv"), help="training table: pairs with a header, such as MRPC's train.tsv"
    )
    parser.add_argument("--dev", default=str(DATA / "dev.tsv"), help="dev table of the same format")
    parser.add_argument("--rows", type=int, help="size of a random sample of the training table, for a quick run")
    parser.add_argument("--epochs", type=int, default=1, help="number of epochs")
    parser.add_argument("--frozen-epochs", type=int, default=10, help="number of epochs with a frozen encoder")
    parser.add_argument(
        "--steps", type=int, help="number of steps; the first three are not counted  [default: 15, 8 with --quick]"
    )
    options = parse(parser)
    options.steps = options.steps or (8 if options.quick else 15)
    options.rows = options.rows or (_QUICK_ROWS if options.quick else None)
    records = Records(options.results)
    for work in options.work or (QUICK if options.quick else WORKS):
        names = options.only or (_QUICK_PEERS if options.quick else WORKS[work])
        peers = [peer for peer in PEERS if peer.name in WORKS[work] and peer.name in names]
        in_turn(peers, {work: job_of(work, options)}, options.rounds, records)
    print(header(records))
    for work in WORKS:
        if records.of(work, "bertsym"):
            print(f"\n{TITLES[work]}:\n\n{table(work, records)}")


def job_of(work: str, options: Any) -> dict[str, Any]:
    folder = options.folder
    rows, dev = read_pairs(options.train, options.rows), read_pairs(options.dev)
    source, epochs, batch_size, max_length = options.model, options.epochs, 32, 128
    name, output = "model", "pooled"
    if work in FAMILIES:
        name, output, source = work, "cls", random_encoder(folder, work, FAMILIES[work])
    if work == "frozen":
        epochs = options.frozen_epochs
    if work in STEPS:
        epochs, batch_size, max_length = 1, STEPS[work].batch_size, STEPS[work].length
        rows = long_rows(rows, batch_size * options.steps, max_length)
        dev = dev[:batch_size]
    if work == "step":
        name, source = "base", random_encoder(folder, "bert", BERT_BASE)
    model = source.removeprefix("hf:")
    return {
        "model": model,
        "config": json.loads(Path(model, "config.json").read_text(encoding="utf-8")),
        "prefix": export_base(source, folder / name, "--output", output),
        "gluonnlp_prefix": export_base(source, folder / f"{name}_gluonnlp", "--output", output, "--form", "gluonnlp"),
        "train": write_table(folder / f"{work}_train.jsonl", rows),
        "dev": write_table(folder / f"{work}_dev.jsonl", dev),
        "threads": THREADS,
        "seed": 0,
        "max_length": max_length,
        "batch_size": batch_size,
        "learning_rate": 1e-3 if work == "frozen" else 5e-5,
        "frozen": work == "frozen",
        "epochs": epochs,
    }


def long_rows(rows: list[dict[str, str]], count: int, length: int) -> list[dict[str, str]]:
    """Join rows to rows of more than `length` tokens each."""
    whole = " ".join(row["text"] for row in rows).split()
    words = length * 3 // 4  # of each text of a pair
    parts = [" ".join(whole[(i * words) % (len(whole) - words) :][:words]) for i in range(2 * count)]
    return [
        {"text": a, "text_pair": b, "label": str(i % 2)} for i, (a, b) in enumerate(zip(parts[:count], parts[count:]))
    ]


def figures(work: str, record: dict[str, Any]) -> dict[str, float]:
    """Return the figures of one run by column; the first column is compared."""
    training, dev = sum(record["epoch_seconds"]), sum(record["dev_seconds"])
    seen = record["rows"] * len(record["epoch_seconds"])
    if work in STEPS:
        seconds = statistics.median(record["step_seconds"][_WARMUP:])
        return {"step, s": seconds, "samples/s": STEPS[work].batch_size / seconds}
    if work == "report":
        return {"samples/s over an epoch": seen / training, "whole run, s": record["whole_seconds"]}
    if work == "frozen":
        return {f"{len(record['epoch_seconds'])} epochs, s": training, "with dev after each, s": training + dev}
    return {
        "samples/s over an epoch": seen / training,
        "with the dev pass": seen / (training + dev),
        "dev accuracy": record["accuracy"][-1],
    }


def median_seconds(work: str, records: Records, peer: str) -> float | None:
    """Return the median seconds of a step, or of all epochs without the dev passes."""
    runs = records.of(work, peer)
    if work in STEPS:
        found = [statistics.median(run["step_seconds"][_WARMUP:]) for run in runs]
    else:
        found = [sum(run["epoch_seconds"]) for run in runs]
    return statistics.median(found) if found else None


def table(work: str, records: Records) -> str:
    found = {}
    for peer in PEERS:
        runs = [figures(work, record) for record in records.of(work, peer.name)]
        if runs:
            found[peer] = {column: statistics.median(run[column] for run in runs) for column in runs[0]}
    columns = list(next(iter(found.values())))
    ours = next(iter(found.values()))[columns[0]]
    lines = [f"| | {' | '.join(columns)} | bertsym is |", "|---|" + "---|" * (len(columns) + 1)]
    for peer, values in found.items():
        theirs = values[columns[0]]
        ratio = theirs / ours if work == "frozen" or work in STEPS else ours / theirs
        lines.append(f"| {peer.label} | {' | '.join(f'{values[column]:.3g}' for column in columns)} | {ratio:.2f}x |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
