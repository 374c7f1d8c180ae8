"""Inference speed compared with other libraries, for a MiniLM classifier: a table, single texts, int8.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import (
    DATA,
    THREADS,
    Peer,
    Records,
    arguments,
    bertsym,
    export_base,
    header,
    read_pairs,
    run_worker,
    write_table,
)

PEERS = (
    Peer("bertsym", "bertsym", "predict_bertsym.py", "bertsym"),
    Peer("torch", "(c) Hugging Face on PyTorch, sdpa", "predict_torch.py", "torch"),
    Peer("onnxruntime", "(d) onnxruntime, fused by its optimizer for BERT", "predict_onnxruntime.py", "torch"),
    Peer("bertsym-int8", "bertsym, int8", "predict_bertsym.py", "bertsym"),
    Peer("onnxruntime-int8", "(d) onnxruntime, dynamic int8", "predict_onnxruntime.py", "torch"),
)
LENGTHS = (16, 64, 128)


def main() -> None:
    parser = arguments(__doc__, PEERS, ("predict",))
    parser.add_argument("--train", default=str(DATA / "train.tsv"), help="training table: pairs with a header")
    parser.add_argument("--dev", default=str(DATA / "dev.tsv"), help="table to predict")
    parser.add_argument("--epochs", type=int, default=2, help="number of fine-tuning epochs")
    parser.add_argument("--repeats", type=int, default=5, help="predictions of the table per round")
    options = parser.parse_args()
    records = Records(options.results)
    folder = options.folder.resolve()
    rows, models = read_pairs(options.dev), prepare(options, folder)
    singles = {str(length): text_of(length, folder / "classifier-vocab.txt") for length in LENGTHS}
    common = {
        "table": write_table(folder / "predict.jsonl", rows),
        "folder": str(folder / "classifier_hf"),
        "max_length": 128,
        "threads": THREADS,
        "singles": singles,
        "repeats": options.repeats,
        "single_repeats": 50,
        "rows_alone": 100,
    }
    for number in range(options.rounds):
        for peer in PEERS:
            if peer.name in (options.only or models) and peer.name in models:
                print(f"{peer.label}, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                records.add("predict", peer.name, peer.run({**common, **models[peer.name]}))
    print(header(records))
    print(
        f"\n{len(rows)} rows of {Path(options.dev).name}, single pairs of n tokens, and 100 rows one by one, "
        "including tokenization:\n"
    )
    print(table(records))


def prepare(options: Any, folder: Path) -> dict[str, dict[str, str]]:
    """Make the classifier in every peer's format unless it exists; returns the inputs of each peer's job."""
    prefix, other = folder / "classifier", folder / "classifier_hf"
    if not Path(f"{prefix}-manifest.json").exists():
        base = export_base(options.model, folder / "model", "--output", "pooled")
        train, dev = (
            write_table(folder / f"fit_{name}.jsonl", read_pairs(path))
            for name, path in (("train", options.train), ("dev", options.dev))
        )
        bertsym("finetune", base, "--train", train, "--dev", dev, str(prefix), "--epochs", str(options.epochs))
    if not other.exists():
        job = {"prefix": str(prefix), "model": options.model.removeprefix("hf:"), "out": str(other)}
        run_worker("to_hugging_face.py", job, "bertsym")
    if not (other / "int8.onnx").exists():
        run_worker("to_onnx.py", {"folder": str(other)}, "torch")
    models = {
        "bertsym": {"prefix": str(prefix)},
        "torch": {},
        "onnxruntime": {"onnx": str(other / "fused.onnx")},
        "onnxruntime-int8": {"onnx": str(other / "int8.onnx")},
    }
    if subprocess.run([sys.executable, "-m", "bertsym", "quantize", "--help"], capture_output=True).returncode == 0:
        int8 = folder / "classifier_int8"
        if not Path(f"{int8}-manifest.json").exists():
            bertsym("quantize", str(prefix), str(int8), "--calibrate", str(folder / "fit_train.jsonl"))
        models["bertsym-int8"] = {"prefix": str(int8)}
    return models


def text_of(length: int, vocabulary: Path) -> tuple[str, str]:
    """Return a pair with `length` tokens, including [CLS] and both [SEP], of single-token words."""
    words = [word for word in vocabulary.read_text(encoding="utf-8").split("\n") if word.isalpha() and word.isascii()]
    words = [word for word in words if len(word) > 3][:length]
    return " ".join(words[: length // 2 - 2]), " ".join(words[length // 2 : length - 1])


def table(records: Records) -> str:
    peers = [peer for peer in PEERS if records.of("predict", peer.name)]
    keys = ("table_seconds", *(f"latency_{length}" for length in LENGTHS), "latency_each")
    heads = ("rows/s", *(f"1 x {length}, ms" for length in LENGTHS), "row by row, ms")
    lines = [
        f"| | dev accuracy |{''.join(f' {head} | bertsym is |' for head in heads)}",
        "|---|---|" + "---|---|" * len(keys),
    ]
    for peer in peers:
        cells = []
        for key in keys:
            theirs, ours = records.median("predict", peer.name, key), records.median("predict", "bertsym", key)
            count = records.of("predict", peer.name)[0]["rows"]
            shown = f"{count / theirs:.0f}" if key == "table_seconds" else f"{1000 * theirs:.1f}"
            cells.append(f" {shown} | {theirs / ours:.2f}x |" if ours else f" {shown} | |")
        accuracy = statistics.median(record["accuracy"] for record in records.of("predict", peer.name))
        lines.append(f"| {peer.label} | {accuracy:.3f} |{''.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
