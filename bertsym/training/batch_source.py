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
    def token_ids(self) -> Array | None:
        """Distinct token ids, sorted; None if the inputs are not those of a BERT."""

    @property
    def limits(self) -> BertConfig | None:
        """Limits of a BERT's inputs; None for other inputs."""

    @property
    def lengths(self) -> Array:
        """Length of each row, (rows,), for batches of similar lengths."""

    def inputs(self, rows: Array) -> dict[str, Array]:
        """Return the symbol's inputs for some rows, by name."""


@dataclass(frozen=True)
class TokenSource:
    """Token ids, padded to the bucket of the longest row, or to a fixed `length`."""

    features: Features
    classes: Array
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
        """Distinct token ids of the rows and the padding, sorted."""
        return np.unique([self.pad_id, *itertools.chain.from_iterable(row.token_ids for row in self.features.examples)])

    @functools.cached_property
    def lengths(self) -> Array:
        """Number of tokens of each row, (rows,)."""
        return self.features.lengths

    def inputs(self, rows: Array) -> dict[str, Array]:
        """Return the inputs of some rows: (N, T) and (N,)."""
        length = self.length or bucket_length(int(self.lengths[rows].max()), self.max_length)
        return self.features.batch(rows, length, self.pad_id, self.config, self.input_names)


@dataclass(frozen=True)
class EncodedSource:
    """Precomputed output of a frozen encoder: (rows, U) or (rows, T, U)."""

    encoded: Array
    classes: Array

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

    def inputs(self, rows: Array) -> dict[str, Array]:
        """Return the encodings of some rows, the input ``encoded``."""
        return {ENCODED: self.encoded[rows]}
