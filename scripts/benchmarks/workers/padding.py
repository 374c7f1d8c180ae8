"""Batches of similar lengths for peers with a Hugging Face tokenizer; labels are in the order of the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from transformers import AutoTokenizer

_BATCH = 32


class Batched:
    """Tokenizes texts, sorts them by length, pads each batch to its longest row, and classifies it with `logits`."""

    def __init__(self, folder: str, max_length: int, tensors: str, logits: Callable[[Any], Any]) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._max_length, self._tensors, self._logits = max_length, tensors, logits

    def __call__(self, texts: Sequence[str], pairs: Sequence[str]) -> list[str]:
        encoded = self._tokenizer(list(texts), list(pairs), truncation=True, max_length=self._max_length)
        order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
        labels = np.empty(len(order), int)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            part = {name: [encoded[name][i] for i in rows] for name in encoded}
            labels[rows] = np.asarray(self._logits(self._tokenizer.pad(part, return_tensors=self._tensors))).argmax(1)
        return [str(label) for label in labels]
