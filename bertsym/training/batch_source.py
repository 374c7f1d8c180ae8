"""Training windows as batches: token ids for the whole graph, or encodings for a head on a frozen encoder."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.tasks.task import Targets
from bertsym.text.batches import bucket_length
from bertsym.text.features import Features

ENCODED = "encoded"  #: input of a head that is trained on encodings


@dataclass(frozen=True)
class Batch:
    """The inputs and the label inputs of a training symbol, by name."""

    inputs: dict[str, Array]
    labels: dict[str, Array]


class BatchSource(Protocol):
    """Training windows with their labels, available as batches for a symbol."""

    @property
    def token_ids(self) -> Array | None:
        """Distinct token ids, sorted; None if the inputs are not those of a BERT."""

    @property
    def limits(self) -> BertConfig | None:
        """Limits of a BERT's inputs; None for other inputs."""

    @property
    def lengths(self) -> Array:
        """Length of each window, (windows,), for batches of similar lengths."""

    @property
    def targets(self) -> Targets:
        """The labels of all windows."""

    def batch(self, rows: Array) -> Batch:
        """Return the inputs and labels of some windows."""


@dataclass(frozen=True)
class TokenSource:
    """Token ids, padded to the bucket of the longest window, or to a fixed `length`."""

    features: Features
    targets: Targets
    config: BertConfig
    pad_id: int
    max_length: int
    length: int | None = None
    input_names: tuple[str, ...] = INPUT_NAMES

    @property
    def limits(self) -> BertConfig:
        """The configuration of the BERT."""
        return self.config

    @functools.cached_property
    def token_ids(self) -> Array:
        """Distinct token ids of the windows and the padding, sorted."""
        return np.unique([self.pad_id, *itertools.chain.from_iterable(row.token_ids for row in self.features.examples)])

    @functools.cached_property
    def lengths(self) -> Array:
        """Number of tokens of each window, (windows,)."""
        return self.features.lengths

    def batch(self, rows: Array) -> Batch:
        """Return the inputs, (N, T) and (N,), and the labels of some windows."""
        length = self.length or bucket_length(int(self.lengths[rows].max()), self.max_length)
        inputs = self.features.batch(rows, length, self.pad_id, self.config, self.input_names)
        return Batch(inputs, self.targets.labels(rows, length))


@dataclass(frozen=True)
class EncodedSource:
    """Precomputed output of a frozen encoder, (windows, U) or (windows, T, U).

    With `token_counts`, the tokens of each window, batches of (windows, T, U) are cut to the bucket of their longest
    window.
    """

    encoded: Array
    targets: Targets
    token_counts: Array | None = None

    @property
    def token_ids(self) -> None:
        """None."""

    @property
    def limits(self) -> None:
        """None."""

    @property
    def lengths(self) -> Array:
        """Length of each window; equal lengths if any windows may share a batch."""
        return np.zeros(len(self.encoded), np.int64) if self.token_counts is None else self.token_counts

    def batch(self, rows: Array) -> Batch:
        """Return the encodings of some windows, the input ``encoded``, and their labels."""
        encoded, length = self.encoded[rows], 1
        if self.token_counts is not None:
            length = bucket_length(int(self.token_counts[rows].max()), encoded.shape[1])
            encoded = np.ascontiguousarray(encoded[:, :length])
        return Batch({ENCODED: encoded}, self.targets.labels(rows, length))
