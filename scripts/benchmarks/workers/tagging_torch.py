"""Hugging Face AutoModelForTokenClassification fine-tuned with PyTorch on the CPU: one job in, one result out.

The first token of each word has its tag, as in transformers' own example; the loss is the mean over these tokens.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import transformers
from finetune_torch import batches, make_optimizer, train_epoch
from job import read_job, read_rows, write_result
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

_IGNORED = -100


class Padder:
    """Pads a batch with its labels, called as a tokenizer is."""

    def __init__(self, tokenizer: Any) -> None:
        self._collate = DataCollatorForTokenClassification(tokenizer, label_pad_token_id=_IGNORED)

    def pad(self, rows: list[dict[str, Any]], return_tensors: str) -> Any:
        return self._collate(rows)


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    files = {name: read_rows(job[name]) for name in ("train", "dev")}
    tags = sorted({tag for rows in files.values() for row in rows for tag in row["tags"]})
    train, dev = ([encode(tokenizer, row, tags, job["max_length"]) for row in files[name]] for name in ("train", "dev"))
    found = []
    for seed in job["seeds"]:
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(job["model"], num_labels=len(tags))
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = config.classifier_dropout = 0.1
        model = AutoModelForTokenClassification.from_pretrained(job["model"], config=config, dtype=torch.float32)
        steps = len(batches(train, job["batch_size"])) * job["epochs"]
        optimizer, schedule = make_optimizer(model, job, steps)
        for _ in range(job["epochs"]):
            train_epoch(model, Padder(tokenizer), train, job, optimizer, schedule)
        found.append(predict(model, Padder(tokenizer), dev, tags))
    write_result(tags=found, settings=f"torch {torch.__version__}, transformers {transformers.__version__}")


def encode(tokenizer: Any, row: dict[str, Any], tags: list[str], max_length: int) -> dict[str, Any]:
    """Tokenize the words of a sentence, with the tag of each word at its first token."""
    found = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
    words = found.word_ids()
    labels = [
        tags.index(row["tags"][word]) if word not in (None, before) else _IGNORED
        for before, word in zip([None, *words], words)
    ]
    return {**found, "labels": labels}


@torch.inference_mode()
def predict(model: Any, padder: Padder, rows: list[dict[str, Any]], tags: list[str]) -> list[list[str]]:
    """Return the tag of each word of each row."""
    model.eval()
    found = []
    for row in rows:
        batch = padder.pad([row], return_tensors="pt")
        labels = batch.pop("labels")[0]
        best = model(**batch).logits[0].argmax(-1)
        found.append([tags[number] for number in best[labels != _IGNORED].tolist()])
    return found


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
