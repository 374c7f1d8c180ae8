"""What the loop trains on: token ids for the whole graph, or encodings for the head of a frozen encoder."""

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

ENCODED = "encoded"  #: input of a head that is trained on its own


class BatchSource(Protocol):
    """Training examples with their classes, delivered as the inputs of a symbol."""

    @property
    def classes(self) -> Array:
        """Class of each row, (rows,) int64."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the symbol's inputs."""

    @property
    def token_ids(self) -> Array | None:
        """The values that the first input takes, sorted; None where they are no ids."""

    @property
    def limits(self) -> BertConfig | None:
        """What bounds the inputs of a BERT; None where they are none."""

    @property
    def lengths(self) -> Array:
        """Lengths by which rows are put together, (rows,)."""

    def inputs(self, rows: Array) -> list[Array]:
        """The inputs for some rows, in the order of `input_names`."""


@dataclass(frozen=True)
class TokenSource:
    """Token ids, padded to the bucket of the longest row (or to the fixed `length`)."""

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
        """The BERT's numbers."""
        return self.config

    @functools.cached_property
    def token_ids(self) -> Array:
        """Those of the texts and of the padding."""
        return np.unique([self.pad_id, *itertools.chain.from_iterable(row.token_ids for row in self.features.examples)])

    @functools.cached_property
    def lengths(self) -> Array:
        """Tokens of each row."""
        return self.features.lengths

    def inputs(self, rows: Array) -> list[Array]:
        """data0, data1 (N, T) and data2 (N,)."""
        length = self.length or bucket_length(int(self.lengths[rows].max()), self.max_length)
        return list(self.features.batch(rows, length, self.pad_id, self.config))


@dataclass(frozen=True)
class EncodedSource:
    """Encodings that a frozen encoder gave, computed once: (rows, U) or (rows, T, U)."""

    encoded: Array
    classes: Array

    @property
    def input_names(self) -> tuple[str, ...]:
        """The one input."""
        return (ENCODED,)

    @property
    def token_ids(self) -> None:
        """None."""

    @property
    def limits(self) -> None:
        """None."""

    @property
    def lengths(self) -> Array:
        """All alike: any rows may go together."""
        return self.classes * 0

    def inputs(self, rows: Array) -> list[Array]:
        """The rows' encodings."""
        return [self.encoded[rows]]
