"""Encode rows as token ids, and pad them to batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.encoders.config import BertConfig
from bertsym.encoders.inputs import INPUT_NAMES, check_inputs, named_inputs
from bertsym.errors import DataError
from bertsym.text.lines import is_unicode
from bertsym.text.tables import Row
from bertsym.text.tokenizer import Encoded, Tokenizer

_ALIGNED = 256  # rows whose alignments are in memory at the same time


@dataclass(frozen=True)
class Features:
    """Encoded examples."""

    examples: list[Encoded]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> Array:
        """Number of tokens of each example, with special tokens: (rows,) int64."""
        return np.array([len(example.token_ids) for example in self.examples], np.int64)

    @property
    def truncated(self) -> int:
        """Number of examples that did not fit into the maximum length."""
        return sum(example.truncated for example in self.examples)

    @property
    def unknown_fraction(self) -> float:
        """Fraction of [UNK] tokens; a high fraction means that the vocabulary or the lower-casing doesn't fit."""
        return sum(example.unknown for example in self.examples) / max(1, int(self.lengths.sum()))

    def inputs(self, names: Sequence[str] = INPUT_NAMES) -> Iterator[dict[str, list[int] | int]]:
        """Yield the unpadded inputs of each example that a symbol takes, by `names`."""
        for example in self.examples:
            yield named_inputs(example.token_ids, example.token_types, len(example.token_ids), names)

    def batch(
        self, rows: Array, length: int, pad_id: int, config: BertConfig, names: Sequence[str] = INPUT_NAMES
    ) -> dict[str, Array]:
        """Return the inputs that a symbol takes, by `names`: (N, length) and (N,) float32, of the given rows.

        Raises DataError, which names the row and the value, for an input outside of its range.
        """
        token_ids = np.full((len(rows), length), pad_id, np.float32)
        token_types = np.zeros((len(rows), length), np.float32)
        valid_length = np.zeros(len(rows), np.float32)
        for position, row in enumerate(rows):
            example = self.examples[row]
            size = len(example.token_ids)
            if not len(example.token_types) == size <= length:
                types = len(example.token_types)
                raise DataError(f"row {row} has {size} token ids and {types} token types, at most {length} fit")
            try:
                token_ids[position, :size] = example.token_ids
                token_types[position, :size] = example.token_types
            except (OverflowError, TypeError, ValueError) as error:
                raise DataError(f"row {row} holds a value that is not a token id or token type: {error}") from None
            valid_length[position] = size
        check_inputs(token_ids, token_types, valid_length, config, rows)
        return named_inputs(token_ids, token_types, valid_length, names)


def encode_each(rows: Iterable[Row | DataError], tokenizer: Tokenizer, where: str) -> list[Encoded | DataError]:
    """Tokenise rows; a row that can't be tokenised is replaced with its error, and errors are kept."""
    windows = _encode(rows, tokenizer.encode_each, where)
    return [each if isinstance(each, DataError) else each[0] for each in windows]


def encode_windows(
    rows: Sequence[Row | DataError], tokenizer: Tokenizer, where: str, stride: int
) -> list[tuple[Encoded, ...] | DataError]:
    """Tokenise rows as `encode_each` does, each into windows that overlap by `stride` tokens, without alignments."""

    def encode(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[list[Encoded] | DataError]:
        for windows in tokenizer.encode_windows(texts, pairs, stride):
            if isinstance(windows, DataError):
                yield windows
            else:
                yield [dataclasses.replace(window, alignment=None) for window in windows]

    found: list[tuple[Encoded, ...] | DataError] = []
    for start in range(0, len(rows), _ALIGNED):
        found += _encode(rows[start : start + _ALIGNED], encode, where)
    return found


def _encode(
    rows: Iterable[Row | DataError],
    encode: Callable[[Sequence[str], Sequence[str] | None], Iterable[Encoded | list[Encoded] | DataError]],
    where: str,
) -> list[tuple[Encoded, ...] | DataError]:
    """Tokenise rows, each into one window or several; a row that can't be tokenised is replaced with its error."""
    found = [_unicode_row(row, where) for row in rows]
    good = [row for row in found if isinstance(row, Row)]
    pairs = [row.pair or "" for row in good] if good and good[0].pair is not None else None
    encoded = iter(encode([row.text for row in good], pairs))
    return [_checked(next(encoded), row, where) if isinstance(row, Row) else row for row in found]


def _unicode_row(row: Row | DataError, where: str) -> Row | DataError:
    if isinstance(row, Row) and not (is_unicode(row.text) and is_unicode(row.pair or "")):
        return DataError(f"{where}, line {row.line}: not valid Unicode text")
    return row


def _checked(encoded: Encoded | list[Encoded] | DataError, row: Row, where: str) -> tuple[Encoded, ...] | DataError:
    if isinstance(encoded, DataError):
        return DataError(f"{where}, line {row.line}: {encoded}")
    windows = (encoded,) if isinstance(encoded, Encoded) else tuple(encoded)
    if any(window.empty for window in windows):
        return DataError(f"{where}, line {row.line}: a text without tokens (only control characters?)")
    return windows
