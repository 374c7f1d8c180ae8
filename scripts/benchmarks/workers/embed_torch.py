"""Embedding with sentence-transformers on PyTorch, which sorts the texts by their lengths."""

from __future__ import annotations

import sentence_transformers
import torch
from embed_timing import measure
from job import read_job, write_result
from sentence_transformers import SentenceTransformer


def main() -> None:
    job = read_job()
    torch.set_num_threads(job["threads"])
    model = SentenceTransformer(job["model"], device="cpu")
    del model[2:]  # normalization
    model.max_seq_length = job["max_length"]
    result = measure(job, lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False))
    versions = f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}"
    write_result(**result, settings=f"{versions}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
