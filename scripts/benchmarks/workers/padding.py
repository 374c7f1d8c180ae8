"""Batches of similar lengths for peers with a Hugging Face tokenizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from transformers import AutoTokenizer

_BATCH = 32
#: a padded batch -> (N, C) logits
Logits = Callable[[Any], Any]


class Batched:
    """Tokenizes texts, sorts them by length, pads each batch to its longest row, and computes the probabilities.

    `logits` computes a batch with all threads. `shares`, if there are any, compute different batches of a table at the
    same time, each with its share of the threads. The first table is computed both ways, and the others the way that
    was quicker.
    """

    def __init__(self, job: dict[str, Any], tensors: str, logits: Logits, shares: Sequence[Logits] = ()) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(job["folder"])
        self._max_length, self._tensors, self._logits = job["max_length"], tensors, logits
        self._shares, self._pool = list(shares), ThreadPoolExecutor(max(1, len(shares)))
        self.at_once: bool | None = None if shares else False  #: whether tables are computed by the shares
        self.lengths: list[int] = []  #: numbers of tokens of the texts of the last table

    def __call__(self, texts: Sequence[str], pairs: Sequence[str]) -> Any:
        if len(texts) <= _BATCH:
            return self._compute(texts, pairs, at_once=False)
        if self.at_once is None:
            seconds = {}
            for at_once in (False, True, False, True):  # the last of each way counts
                start = time.perf_counter()
                self._compute(texts, pairs, at_once)
                seconds[at_once] = time.perf_counter() - start
            self.at_once = seconds[True] < seconds[False]
        return self._compute(texts, pairs, self.at_once)

    def _compute(self, texts: Sequence[str], pairs: Sequence[str], at_once: bool) -> Any:
        encoded = self._tokenizer(list(texts), list(pairs), truncation=True, max_length=self._max_length)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        self.lengths = lengths if len(texts) > 1 else self.lengths
        order = np.argsort([-length for length in lengths], kind="stable")
        groups = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        batches = [
            self._tokenizer.pad(
                {name: [encoded[name][i] for i in rows] for name in encoded}, return_tensors=self._tensors
            )
            for rows in groups
        ]
        if at_once:
            free = list(self._shares)  # a thread takes one and gives it back; list operations are atomic

            def compute(batch: Any) -> Any:
                share = free.pop()
                try:
                    return share(batch)
                finally:
                    free.append(share)

            found = list(self._pool.map(compute, batches))
        else:
            found = [self._logits(batch) for batch in batches]
        logits = np.concatenate([np.asarray(values) for values in found])
        result = np.empty_like(logits)
        result[order] = np.exp(logits - logits.max(1, keepdims=True))
        return result / result.sum(1, keepdims=True)
