"""The inputs of a BERT symbol, and the checks that libmxnet omits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from bertsym.array import Array
from bertsym.errors import DataError

#: name -> meaning, in the order of every GluonNLP export
INPUTS = {
    "data0": "token ids, padded with pad_id",
    "data1": "token types: 0 in the first text, 1 in the second, 0 at padding",
    "data2": "valid_length: number of tokens that are not padding, from 1 to the length",
}
INPUT_NAMES = tuple(INPUTS)
_ONE_TYPE = "token types: 0 for every token; the model has no other type, and ignores this input"
TOKEN_IDS, TOKEN_TYPES, VALID_LENGTH = INPUT_NAMES


def input_meanings(segments: int) -> dict[str, str]:
    """Return the meanings of the inputs of a model with so many token types, by name."""
    return INPUTS if segments > 1 else {**INPUTS, TOKEN_TYPES: _ONE_TYPE}


def input_shapes(batch_size: int, length: int, names: Sequence[str] = INPUT_NAMES) -> list[tuple[str, tuple[int, ...]]]:
    """Return (name, shape) of the inputs that a symbol takes, as Module.bind takes them."""
    shapes = zip(INPUT_NAMES, [(batch_size, length), (batch_size, length), (batch_size,)])
    return [(name, shape) for name, shape in shapes if name in names]


def named_inputs(
    token_ids: Any, token_types: Any, valid_length: Any, names: Sequence[str] = INPUT_NAMES
) -> dict[str, Any]:
    """Return those of the inputs that a symbol takes, by name."""
    values = zip(INPUT_NAMES, (token_ids, token_types, valid_length))
    return {name: value for name, value in values if name in names}


class Limits(Protocol):
    """Upper bounds of the inputs: a BertConfig, or an encoder that was detected in a graph."""

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""

    @property
    def segments(self) -> int:
        """Token types, from 1 on."""

    @property
    def max_length(self) -> int:
        """Tokens of the longest text."""


def check_inputs(
    token_ids: Array,
    token_types: Array | None,
    valid_length: Array,
    config: Limits,
    rows: Sequence[int] | Array | None = None,
) -> None:
    """Raise DataError unless a forward with these arrays is safe: (N, T), (N, T) or None, and (N,).

    mxnet 1.9.1 clips ids silently, and reads and writes out of bounds on a wrong valid_length. The error names the
    first wrong value, its position in the row, from 0, and the row: its number in `rows`, or else counted from 0.
    """
    types_shape = token_ids.shape if token_types is None else token_types.shape
    if token_ids.ndim != 2 or types_shape != token_ids.shape or valid_length.shape != token_ids.shape[:1]:
        raise DataError(
            "inputs need the shapes (N, T), (N, T) and (N,), "
            f"not {token_ids.shape}, {types_shape} and {valid_length.shape}"
        )
    length = token_ids.shape[1]
    if not 1 <= length <= config.max_length:
        raise DataError(f"length {length} is outside the {config.max_length} positions of the model")
    check_whole("token ids", token_ids, 0, config.vocab_size - 1, rows)
    if token_types is not None:
        check_whole("token types", token_types, 0, config.segments - 1, rows)
    check_whole("valid_length", valid_length, 1, length, rows)


def check_whole(what: str, values: Array, low: int, high: int, rows: Sequence[int] | Array | None = None) -> None:
    """Raise DataError, naming the first wrong value, unless all values are integers from `low` to `high`."""
    good = (values >= low) & (values <= high) & (values == np.floor(values))  # false for NaN
    if good.all():
        return
    place = np.unravel_index(int(good.argmin()), values.shape)
    row, *position = map(int, place)
    where = f"row {row if rows is None else rows[row]}" + "".join(f", position {number}" for number in position)
    raise DataError(f"{what} must be integers from {low} to {high}: {where} holds {values[place]:g}")
