"""Write a Hugging Face folder of an encoder with random weights and BERT's tokenizer with a given vocabulary."""

from __future__ import annotations

import torch
from job import read_job, write_result
from transformers import AutoConfig, AutoModel, BertTokenizerFast


def main() -> None:
    job = read_job()
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(job["model_type"], **job["config"])).save_pretrained(job["out"])
    BertTokenizerFast.from_pretrained(job["tokenizer"]).save_pretrained(job["out"])
    write_result(out=job["out"])


if __name__ == "__main__":
    main()
