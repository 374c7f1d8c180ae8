"""Prediction with Hugging Face's BertForSequenceClassification on PyTorch: sdpa, inference mode, little padding."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from job import read_job, read_rows, write_result
from padding import Batched
from timing import measure
from transformers import BertForSequenceClassification


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    model = BertForSequenceClassification.from_pretrained(
        job["folder"], attn_implementation="sdpa", dtype=torch.float32
    )
    model.eval()

    @torch.inference_mode()
    def logits(batch: Any) -> Any:
        return model(**batch).logits.numpy()

    result = measure(job, read_rows(job["table"]), Batched(job["folder"], job["max_length"], "pt", logits))
    settings = f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads"
    write_result(**result, settings=settings)


if __name__ == "__main__":
    main()
