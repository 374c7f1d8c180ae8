"""Hugging Face AutoModelForSequenceClassification fine-tuned with PyTorch on the CPU: one job in, one result out.

sdpa attention, fused AdamW, batches of like length in random order, padded to their longest row. With `compiled`,
torch.compile compiles the model for any length before the clock starts.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
import transformers
from job import read_job, read_rows, write_result
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

_WINDOW = 50  # number of batches that are sorted by length together, as in Hugging Face's LengthGroupedSampler
#: in configs of BERT and RoBERTa, or of DistilBERT
_DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
    *("dropout", "attention_dropout", "seq_classif_dropout"),
)
_NO_DECAY = ("bias", "LayerNorm.weight")


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    config = AutoConfig.from_pretrained(job["model"])
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.1)
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], config=config, attn_implementation="sdpa", dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    has_types = getattr(model.config, "type_vocab_size", 1) > 1
    train, dev = (encoded(tokenizer, read_rows(job[name]), job["max_length"], has_types) for name in ("train", "dev"))
    if job["frozen"]:
        model.base_model.requires_grad_(False)
    compute = torch.compile(model, dynamic=True) if job["compiled"] else model
    if job["compiled"]:
        compile_all(compute, tokenizer, train, job["batch_size"])
    optimizer, schedule = make_optimizer(model, job, len(batches(train, job["batch_size"])) * job["epochs"])
    result: dict[str, Any] = {"epoch_seconds": [], "step_seconds": [], "dev_seconds": [], "accuracy": []}
    for _ in range(job["epochs"]):
        start = time.perf_counter()
        result["step_seconds"] += train_epoch(compute, tokenizer, train, job, optimizer, schedule)
        end = time.perf_counter()
        result["epoch_seconds"].append(end - start)
        result["accuracy"].append(accuracy(compute, tokenizer, dev, job["batch_size"]))
        result["dev_seconds"].append(time.perf_counter() - end)
    settings = f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads"
    write_result(**result, rows=len(train), settings=settings)


def encoded(tokenizer: Any, rows: list[dict[str, str]], max_length: int, has_types: bool) -> list[dict[str, Any]]:
    pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    texts = [row["text"] for row in rows]
    found = tokenizer(texts, pairs, truncation=True, max_length=max_length, return_token_type_ids=has_types)
    return [{**{name: found[name][i] for name in found}, "labels": int(row["label"])} for i, row in enumerate(rows)]


def compile_all(model: Any, tokenizer: Any, rows: list[dict[str, Any]], batch_size: int) -> None:
    """Compile the forward and backward passes for batches of two lengths and sizes; the parameters stay as they are."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    for batch in (ordered[:batch_size], ordered[-batch_size:], ordered[: batch_size // 2]):
        model.train()
        model(**tokenizer.pad(batch, return_tensors="pt")).loss.backward()
        model.eval()
        with torch.inference_mode():
            model(
                **{name: value for name, value in tokenizer.pad(batch, return_tensors="pt").items() if name != "labels"}
            )
    model.zero_grad(set_to_none=True)


def make_optimizer(model: Any, job: dict[str, Any], steps: int) -> tuple[Any, Any]:
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups = [
        {"params": [value for name, value in trained if not name.endswith(_NO_DECAY)], "weight_decay": 0.01},
        {"params": [value for name, value in trained if name.endswith(_NO_DECAY)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=job["learning_rate"], fused=True)
    return optimizer, transformers.get_linear_schedule_with_warmup(optimizer, int(0.1 * steps), steps)


def batches(rows: list[dict[str, Any]], batch_size: int) -> list[list[dict[str, Any]]]:
    order = torch.randperm(len(rows)).tolist()
    window = batch_size * _WINDOW
    grouped = [
        row
        for start in range(0, len(order), window)
        for row in sorted(order[start : start + window], key=lambda i: len(rows[i]["input_ids"]))
    ]
    found = [[rows[i] for i in grouped[start : start + batch_size]] for start in range(0, len(grouped), batch_size)]
    return [found[i] for i in torch.randperm(len(found)).tolist()]


def train_epoch(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], job: dict[str, Any], optimizer: Any, schedule: Any
) -> list[float]:
    """Train on all rows; returns the seconds of each step."""
    model.train()
    if job["frozen"]:
        model.base_model.eval()  # nothing upstream of the head is trained, so dropout there only costs time
    trained = [value for value in model.parameters() if value.requires_grad]
    seconds = []
    for batch in batches(rows, job["batch_size"]):
        start = time.perf_counter()
        model(**tokenizer.pad(batch, return_tensors="pt")).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    return seconds


@torch.inference_mode()
def accuracy(model: Any, tokenizer: Any, rows: list[dict[str, Any]], batch_size: int) -> float:
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    right = 0
    for start in range(0, len(ordered), batch_size):
        batch = tokenizer.pad(ordered[start : start + batch_size], return_tensors="pt")
        labels = batch.pop("labels")
        right += int((model(**batch).logits.argmax(-1) == labels).sum())
    return right / len(rows)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
