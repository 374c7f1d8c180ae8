"""Convert a Hugging Face classifier by CTranslate2's converter, which takes the encoder with its pooler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ctranslate2.converters import TransformersConverter
from job import read_job, write_result
from transformers import BertForSequenceClassification


def main() -> None:
    job = read_job()
    out = Path(job["out"])
    TransformersConverter(job["folder"]).convert(str(out), force=True)
    classifier = BertForSequenceClassification.from_pretrained(job["folder"]).classifier
    np.savez(out / "classifier.npz", **{name: value.detach().numpy() for name, value in classifier.named_parameters()})
    write_result(out=str(out))


if __name__ == "__main__":
    main()
