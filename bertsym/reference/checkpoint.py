"""A model as its source stores it, the inputs that it is run on, and what can be read of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsym.array import Array

HUGGING_FACE = "Hugging Face"  #: library whose names and keys depend on the family

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Module:
    """A module of sentence-transformers: the name of its class, its config.json and its weights."""

    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, Array]


@dataclass(frozen=True)
class Checkpoint:
    """Weights under the names of a library and a config with its keys.

    One weight at a time is read from ``weights``.
    """

    library: str  #: HUGGING_FACE, ``GluonNLP export`` or ``GluonNLP save_parameters``
    weights: Mapping[str, Array]
    config: Mapping[str, Any]
    head: str | None = None  #: class of Hugging Face whose head is among the weights
    modules: tuple[Module, ...] = ()  #: of sentence-transformers, after the transformer


@dataclass(frozen=True)
class Inputs:
    """A batch: token ids (N, T), token types (N, T), and the number of tokens before the padding (N,); any dtype."""

    token_ids: Array
    token_types: Array
    valid_length: Array


@dataclass(frozen=True)
class Encodings:
    """What can be read of an encoder, float64: ``cls``, ``pooled`` and ``mean`` (N, U), ``sequence`` (N, T, U).

    ``sequence`` is zero at padding, ``mean`` leaves padding out, ``pooled`` is None without a pooler.
    """

    sequence: Float
    cls: Float
    pooled: Float | None
    mean: Float

    def __getitem__(self, output: str) -> Float:
        value: Float | None = getattr(self, output)
        if value is None:
            raise KeyError(output)
        return value
