"""Prediction with Hugging Face's BertForSequenceClassification on PyTorch: sdpa, inference mode, little padding.

Compiled, it is frozen, which packs the weights, and compiled for any length.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from job import read_job, read_rows, write_result
from padding import Batched
from timing import measure
from torch._inductor import config as inductor_config
from transformers import BertForSequenceClassification


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    model = BertForSequenceClassification.from_pretrained(
        job["folder"], attn_implementation="sdpa", dtype=torch.float32
    )
    model.eval()
    compute: Any = model
    if job["compiled"]:
        inductor_config.freezing = True
        compute = torch.compile(model, dynamic=True)

    @torch.inference_mode()
    def eager(batch: Any) -> Any:
        return model(**batch).logits.numpy()

    @torch.no_grad()
    def compiled(batch: Any) -> Any:
        return compute(**batch).logits.numpy()

    logits = compiled if job["compiled"] else eager
    batched = Batched(job, "pt", logits)
    result = measure(job, read_rows(job["table"]), batched)
    settings = f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads"
    write_result(**result, lengths=batched.lengths, settings=settings)


if __name__ == "__main__":
    main()
