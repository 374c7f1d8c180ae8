"""Group rows into batches by length: shuffled in windows for training, sorted for inference, padded to buckets."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bertsym.array import Array

BUCKET_STEP = 4  #: bucket lengths are multiples of this number
_WINDOW = 50  # number of batches whose rows are sorted by length together
_CACHED_TOKENS = 1024  # tokens of a batch whose activations stay in the CPU's cache
FEW_TOKENS = 256  #: a forward of so few tokens takes hardly more time than repacking the weights
_SHORTEST = 16  # padded length that takes hardly more time than a single token


def bucket_length(longest: int, max_length: int) -> int:
    """Return the padded length of a training batch whose longest row has `longest` tokens."""
    return min(-(-longest // BUCKET_STEP) * BUCKET_STEP, max_length)


def inference_length(longest: int, max_length: int) -> int:
    """Return the padded length of an inference batch; buckets grow with the length, so that padding stays small."""
    step = 4 if longest <= 64 else 8 if longest <= 128 else 16
    return min(-(-longest // step) * step, max_length)


def few_length(longest: int, max_length: int, graphs: int) -> int:
    """Return the padded length of a batch of one or few texts; up to FEW_TOKENS there are at most `graphs` lengths.

    With more lengths, nearly every text would need another graph to be bound, which takes longer than the padding.
    """
    if longest > FEW_TOKENS:
        return inference_length(longest, max_length)
    doublings = math.ceil(math.log2(max(1, min(FEW_TOKENS, max_length) / _SHORTEST)))
    shortest = _SHORTEST << max(0, doublings - graphs + 1)
    steps = max(1, (graphs - 1) // max(1, doublings))  # per doubling of the length
    step = max(0, math.ceil(steps * math.log2(longest / shortest)))
    return bucket_length(math.ceil(shortest * 2 ** (step / steps)), max_length)


def training_batches(lengths: Array, batch_size: int, seed: int, epoch: int) -> list[Array]:
    """Return the row indices of each batch of an epoch; every row occurs once, at most one batch is short.

    The order depends only on (seed, epoch).
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
    """Return the batch size, a power of two, at which activations of rows of a length stay in the CPU's cache."""
    return 1 << max(1, _CACHED_TOKENS // length).bit_length() - 1


def inference_batches(lengths: Array, rows_of: Callable[[int], int], at_once: int = 1) -> list[Array]:
    """Return the row indices of each batch, sorted by length, longest first, for the least padding.

    `rows_of` returns the batch size for a batch whose longest row has the given number of tokens. Where `at_once`
    batches are computed at a time, each by the executor that computed the one `at_once` before, the last batches are
    smaller, and every other group of them is reversed, so that all executors end at the same time.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[Array] = []
    while len(order):
        count = rows_of(int(lengths[order[0]]))
        if at_once > 1 and len(order) <= 2 * at_once * count:
            needed = sum(1 / rows_of(longest) for longest in lengths[order].tolist())
            batches += _split_evenly(order, lengths, at_once * math.ceil(needed / at_once), rows_of(1))
            break
        batches += [order[start : start + count] for start in range(0, min(len(order), at_once * count), count)]
        order = order[at_once * count :]
    groups = [batches[start : start + at_once] for start in range(0, len(batches), at_once)]
    return [batch for i, group in enumerate(groups) for batch in (group[::-1] if i % 2 else group)]


def _split_evenly(order: Array, lengths: Array, count: int, most: int) -> list[Array]:
    """Split rows into `count` batches of as many tokens each, or more where a batch has `most` rows."""
    ends = np.cumsum(lengths[order])
    middles = ends - lengths[order] / 2
    batches: list[Array] = []
    start = done = 0
    while start < len(order):
        left = max(1, count - len(batches))
        end = int(np.searchsorted(middles, done + (ends[-1] - done) / left))
        end = min(max(end, start + 1), start + most)
        batches.append(order[start:end])
        start, done = end, int(ends[end - 1])
    return batches
