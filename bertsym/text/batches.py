"""Which rows go together: shuffled between and sorted within windows, padded to a bucket's length."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BUCKET_STEP = 4  #: bucket lengths are multiples of it
_WINDOW = 50  # batches that are sorted by length together
_CACHED_TOKENS = 1024
FEW_TOKENS = 256  #: of which a forward takes not much more time than repacking the weights
_SHORTEST = 16  # which takes hardly more time than a single token


def bucket_length(longest: int, max_length: int) -> int:
    """The length to which a batch is padded whose longest row has `longest` tokens."""
    return min(-(-longest // BUCKET_STEP) * BUCKET_STEP, max_length)


def inference_length(longest: int, max_length: int) -> int:
    """As `bucket_length`; with steps that grow with the length, for a few per cent of padding at most."""
    step = 4 if longest <= 64 else 8 if longest <= 128 else 16
    return min(-(-longest // step) * step, max_length)


def few_length(longest: int, max_length: int, graphs: int) -> int:
    """The length to which one text is padded, or a few: of `graphs` lengths at most up to FEW_TOKENS.

    With more of them there would be a graph to bind for nearly every text, which takes longer than the padding.
    """
    if longest > FEW_TOKENS:
        return inference_length(longest, max_length)
    doublings = math.ceil(math.log2(max(1, min(FEW_TOKENS, max_length) / _SHORTEST)))
    shortest = _SHORTEST << max(0, doublings - graphs + 1)
    steps = max(1, (graphs - 1) // max(1, doublings))  # for each doubling
    step = max(0, math.ceil(steps * math.log2(longest / shortest)))
    return bucket_length(math.ceil(shortest * 2 ** (step / steps)), max_length)


def training_batches(lengths: Array, batch_size: int, seed: int, epoch: int) -> list[Array]:
    """Row indices of each batch of an epoch; every row occurs once, only one batch may be short.

    The order depends on (seed, epoch) alone.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    window = batch_size * _WINDOW
    # Stable, so that equal lengths keep their random order.
    ordered = [
        part[np.argsort(lengths[part], kind="stable")]
        for part in (order[start : start + window] for start in range(0, len(order), window))
    ]
    rows = np.concatenate(ordered)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def cached_rows(length: int) -> int:
    """How many rows of a length a CPU computes together, so that their values stay in its cache: a power of two."""
    return 1 << max(1, _CACHED_TOKENS // length).bit_length() - 1


def inference_batches(lengths: Array, rows_of: Callable[[int], int]) -> list[Array]:
    """Row indices of each batch, sorted by length over all rows, the longest first: least padding.

    `rows_of` says how many rows go together of which the longest has so many tokens.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    while len(order):
        count = rows_of(int(lengths[order[0]]))
        batches.append(order[:count])
        order = order[count:]
    return batches
