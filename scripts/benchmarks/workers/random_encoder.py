"""Write a Hugging Face folder of a BERT with random weights and a given vocabulary."""

from __future__ import annotations

import torch
from job import read_job, write_result
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast


def main() -> None:
    job = read_job()
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**job["config"])).bert.save_pretrained(job["out"])
    BertTokenizerFast.from_pretrained(job["tokenizer"]).save_pretrained(job["out"])
    write_result(out=job["out"])


if __name__ == "__main__":
    main()
