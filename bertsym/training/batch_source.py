"""Training rows as input batches: token ids for the whole graph, or encodings for a head on a frozen encoder."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.symbol.params import Array
from bertsym.text.batches import bucket_length
from bertsym.text.features import Features

ENCODED = "encoded"  #: input of a head that is trained on encodings


class BatchSource(Protocol):
    """Training rows with their classes, available as inputs of a symbol."""

    @property
    def classes(self) -> Array:
        """Class of each row, (rows,) int64."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the symbol's inputs."""

    @property
    def token_ids(self) -> Array | None:
        """Distinct values of the first input, sorted; None if it does not hold token ids."""

    @property
    def limits(self) -> BertConfig | None:
        """Limits of a BERT's inputs; None for other inputs."""

    @property
    def lengths(self) -> Array:
        """Length of each row, (rows,), for batches of similar lengths."""

    def inputs(self, rows: Array) -> list[Array]:
        """Return the inputs for some rows, in the order of `input_names`."""


@dataclass(frozen=True)
class TokenSource:
    """Token ids, padded to the bucket of the longest row, or to a fixed `length`."""

    features: Features
    classes: Array
    config: BertConfig
    pad_id: int
    max_length: int
    length: int | None = None

    @property
    def input_names(self) -> tuple[str, ...]:
        """data0, data1, data2."""
        return INPUT_NAMES

    @property
    def limits(self) -> BertConfig:
        """The configuration of the BERT."""
        return self.config

    @functools.cached_property
    def token_ids(self) -> Array:
        """Distinct token ids of the rows and the padding, sorted."""
        return np.unique([self.pad_id, *itertools.chain.from_iterable(row.token_ids for row in self.features.examples)])

    @functools.cached_property
    def lengths(self) -> Array:
        """Number of tokens of each row, (rows,)."""
        return self.features.lengths

    def inputs(self, rows: Array) -> list[Array]:
        """Return data0, data1 (N, T) and data2 (N,)."""
        length = self.length or bucket_length(int(self.lengths[rows].max()), self.max_length)
        return list(self.features.batch(rows, length, self.pad_id, self.config))


@dataclass(frozen=True)
class EncodedSource:
    """Precomputed output of a frozen encoder: (rows, U) or (rows, T, U)."""

    encoded: Array
    classes: Array

    @property
    def input_names(self) -> tuple[str, ...]:
        """The one input, ``encoded``."""
        return (ENCODED,)

    @property
    def token_ids(self) -> None:
        """None."""

    @property
    def limits(self) -> None:
        """None."""

    @property
    def lengths(self) -> Array:
        """Equal lengths: any rows may share a batch."""
        return self.classes * 0

    def inputs(self, rows: Array) -> list[Array]:
        """Return the encodings of some rows."""
        return [self.encoded[rows]]
