"""Inference speed compared with other libraries, for a MiniLM or BERT-base classifier: a table, single texts, int8.

Linux x86-64 only, since it runs MXNet.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    BERT_BASE,
    DATA,
    THREADS,
    Peer,
    Records,
    arguments,
    bertsym,
    export_base,
    header,
    parse,
    random_encoder,
    read_pairs,
    run_worker,
    write_table,
)

PEERS = (
    Peer("bertsym", "bertsym", "predict_bertsym.py", "bertsym"),
    Peer("bertsym-auto", "bertsym --engine auto", "predict_bertsym.py", "bertsym", job={"engine": "auto"}),
    Peer("torch", "Hugging Face on PyTorch, sdpa", "predict_torch.py", "torch", job={"compiled": False}),
    Peer("torch-compiled", "the same, by torch.compile", "predict_torch.py", "torch", job={"compiled": True}),
    Peer("onnxruntime", "onnxruntime, fused by its optimizer for BERT", "predict_onnxruntime.py", "onnxruntime"),
    Peer("openvino", "OpenVINO", "predict_openvino.py", "openvino"),
    Peer("ctranslate2", "CTranslate2", "predict_ctranslate2.py", "ctranslate2", job={"compute_type": "float32"}),
    Peer("bertsym-int8", "bertsym, int8", "predict_bertsym.py", "bertsym"),
    Peer("bertsym-auto-int8", "bertsym, int8, --engine auto", "predict_bertsym.py", "bertsym", job={"engine": "auto"}),
    Peer("onnxruntime-int8", "onnxruntime, dynamic int8", "predict_onnxruntime.py", "onnxruntime"),
    Peer("openvino-int8", "OpenVINO, int8 by NNCF, static", "predict_openvino.py", "openvino"),
    Peer(
        "ctranslate2-int8", "CTranslate2, int8", "predict_ctranslate2.py", "ctranslate2", job={"compute_type": "int8"}
    ),
)
LENGTHS = (16, 64, 128)
#: measured time -> head of its columns
MEASURED = {
    "table_seconds": "rows/s",
    **{f"latency_{length}": f"1 x {length}, ms" for length in LENGTHS},
    "latency_each": "row by row, ms",
}
_CALIBRATION_ROWS = 256  # as many as `bertsym quantize` reads
_BASE_ROWS = 100  # of the tables of a model with random weights, which learns nothing


def main() -> None:
    parser = arguments(__doc__, PEERS, ("predict",))
    parser.add_argument("--train", default=str(DATA / "train.tsv"), help="training table: pairs with a header")
    parser.add_argument("--dev", default=str(DATA / "dev.tsv"), help="table to predict")
    parser.add_argument("--epochs", type=int, default=3, help="number of fine-tuning epochs; the head's, of BERT-base")
    parser.add_argument("--repeats", type=int, help="predictions of the table per round  [default: 5, 2 with --quick]")
    options = parse(parser)
    records, is_base = Records(options.results), options.model == "base"
    rows, models = read_pairs(options.dev), prepare(options)
    if is_base:
        rows = rows[: 64 if options.quick else 200]
    prefix = models["bertsym"]["prefix"]
    singles = {str(length): text_of(length, Path(f"{prefix}-vocab.txt")) for length in LENGTHS}
    common = {
        "table": write_table(options.folder / "predict.jsonl", rows),
        "folder": f"{prefix}_hf",
        "class_names": json.loads(Path(f"{prefix}-signature.json").read_text(encoding="utf-8"))["class_names"],
        "max_length": 128,
        "threads": THREADS,
        "singles": singles,
        "repeats": options.repeats or (2 if options.quick else 5),
        "single_repeats": 10 if is_base else 30 if options.quick else 50,
        "rows_alone": 20 if is_base else 100,
    }
    work = "predict-base" if is_base else "predict"
    for number in range(options.rounds):
        for peer in PEERS:
            if peer.name in (options.only or models):
                print(f"{peer.label}, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                records.add(work, peer.name, peer.run({**common, **models[peer.name]}))
    print(header(records))
    print(
        f"\n{'BERT-base with random weights' if is_base else 'MiniLM'}: {len(rows)} rows of {Path(options.dev).name}, "
        f"single pairs of n tokens, and {common['rows_alone']} rows one by one, including tokenization:\n"
    )
    print(table(records, work))
    config = json.loads(Path(f"{prefix}_hf", "config.json").read_text(encoding="utf-8"))
    print(f"\n{limits(records, work, config)}")


def prepare(options: Any) -> dict[str, dict[str, str]]:
    """Make the classifier in every peer's format unless it exists; returns the inputs of each peer's job.

    Its name has a digest of what it depends on, so that other tables or epochs make another one.
    """
    folder, is_base = options.folder, options.model == "base"
    source = random_encoder(folder, "bert", BERT_BASE) if is_base else options.model
    depends = f"{source} {options.epochs}".encode() + Path(options.train).read_bytes() + Path(options.dev).read_bytes()
    prefix = folder / f"{'base' if is_base else 'model'}-{hashlib.sha256(depends).hexdigest()[:8]}"
    other, int8 = Path(f"{prefix}_hf"), Path(f"{prefix}_int8")
    rows = _BASE_ROWS if is_base else None
    train, dev = (
        write_table(folder / f"fit_{name}{_BASE_ROWS if is_base else ''}.jsonl", read_pairs(path, rows))
        for name, path in (("train", options.train), ("dev", options.dev))
    )
    if not Path(f"{prefix}-manifest.json").exists():
        base = export_base(source, folder / ("base" if is_base else "model"), "--output", "pooled")
        words = ("finetune", base, "--train", train, "--dev", dev, str(prefix))
        # The weights of BERT-base are random: only a head is trained, so that there is one.
        how = ("--epochs", "1", "--freeze-encoder") if is_base else ("--epochs", str(options.epochs))
        bertsym(*words, *how)
    if not (other / "config.json").exists():
        bertsym("hf", str(prefix), str(other))
    made = {
        name: other / name for name in ("fused.onnx", "int8.onnx", "openvino.xml", "openvino_int8.xml", "ctranslate2")
    }
    if not made["int8.onnx"].exists():
        run_worker("to_onnx.py", {"folder": str(other)}, "torch")
    if not made["openvino_int8.xml"].exists():
        calibration = {"calibration": train, "rows": 32 if is_base else _CALIBRATION_ROWS}
        job = {"folder": str(other), "onnx": str(other / "plain.onnx"), **calibration}
        run_worker("to_openvino.py", job, "openvino")
    if not (made["ctranslate2"] / "classifier.npz").exists():
        run_worker("to_ctranslate2.py", {"folder": str(other), "out": str(made["ctranslate2"])}, "torch")
    if not Path(f"{int8}-manifest.json").exists():
        words = ("quantize", str(prefix), str(int8), "--calibrate", train, "--dev", dev)
        bertsym(*words, *(("--max-drop", "1", "--rows", "32") if is_base else ()))
    return {
        "bertsym": {"prefix": str(prefix)},
        "bertsym-auto": {"prefix": str(prefix)},
        "torch": {},
        "torch-compiled": {},
        "onnxruntime": {"onnx": str(made["fused.onnx"])},
        "openvino": {"xml": str(made["openvino.xml"])},
        "ctranslate2": {"ctranslate2": str(made["ctranslate2"])},
        "bertsym-int8": {"prefix": str(int8)},
        "bertsym-auto-int8": {"prefix": str(int8)},
        "onnxruntime-int8": {"onnx": str(made["int8.onnx"])},
        "openvino-int8": {"xml": str(made["openvino_int8.xml"])},
        "ctranslate2-int8": {"ctranslate2": str(made["ctranslate2"])},
    }


def text_of(length: int, vocabulary: Path) -> tuple[str, str]:
    """Return a pair with `length` tokens, including [CLS] and both [SEP], of single-token words."""
    words = [word for word in vocabulary.read_text(encoding="utf-8").split("\n") if word.isalpha() and word.isascii()]
    words = [word for word in words if len(word) > 3][:length]
    return " ".join(words[: length // 2 - 2]), " ".join(words[length // 2 : length - 1])


def table(records: Records, work: str) -> str:
    """Format medians; the ratio says how many times as fast as a peer bertsym of the same precision is."""
    lines = [
        f"| | dev accuracy | difference |{''.join(f' {head} | bertsym is |' for head in MEASURED.values())}",
        "|---|---|---|" + "---|---|" * len(MEASURED),
    ]
    for peer in PEERS:
        found = records.of(work, peer.name)
        if not found:
            continue
        ours = "bertsym-int8" if peer.name.endswith("-int8") else "bertsym"
        cells = []
        for key in MEASURED:
            theirs, compared = records.median(work, peer.name, key), records.median(work, ours, key)
            shown = f"{found[0]['rows'] / theirs:.0f}" if key == "table_seconds" else f"{1000 * theirs:.1f}"
            cells.append(f" {shown} | {theirs / compared:.2f}x |" if compared else f" {shown} | |")
        accuracy = statistics.median(record["accuracy"] for record in found)
        lines.append(f"| {peer.label} | {accuracy:.3f} | {difference(records, work, peer.name)} |{''.join(cells)}")
    return "\n".join(lines)


def difference(records: Records, work: str, peer: str) -> str:
    """Return the largest difference of a peer's probabilities from PyTorch's."""
    reference = records.of(work, "torch")
    if not reference:
        return ""
    one, other = (np.array(record["probabilities"]) for record in (records.of(work, peer)[0], reference[0]))
    return f"{np.abs(one - other).max():.1e}"


def limits(records: Records, work: str, config: dict[str, Any]) -> str:
    """Say which fraction of the machine's peaks bertsym reaches in float32."""
    seconds, alone = (records.median(work, "bertsym", key) for key in ("table_seconds", "latency_16"))
    counted = next((record["lengths"] for record in records.of(work, "torch")), None)
    if not seconds or not alone or not counted:
        return ""
    units, layers, hidden = (config[key] for key in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    weights = layers * (4 * units**2 + 2 * units * hidden)
    operations = sum(2 * weights * length + 4 * layers * units * length**2 for length in counted)
    peak = records.peaks["gflops"][str(THREADS)]
    reached, read = operations / seconds / 1e9, 4 * weights / alone / 1e9
    return (
        f"bertsym in float32, on the table: {reached:.0f} GFLOP/s of matrix products without padding, "
        f"{reached / peak:.0%} of sgemm; 1 x 16: reads the weights of the layers at {read:.0f} GB/s, "
        f"{read / records.peaks['gigabytes']:.0%} of the speed of reading memory."
    )


if __name__ == "__main__":
    main()
