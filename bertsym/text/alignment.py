"""Where the tokens of a text come from: characters, words, and windows of a long text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.text.template import Piece


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one text, without special tokens.

    ``offsets`` (T, 2) int32 are the start and the end of each token, in characters of its text or, if the text is a
    list of words, of its word. ``words`` (T,) int32 are the indexes of the words; None if the text is not a list.
    """

    ids: list[int]
    offsets: Array
    words: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Tokens:
        return Tokens(self.ids[part], self.offsets[part], None if self.words is None else self.words[part])


@dataclass(frozen=True, eq=False)
class Alignment:
    """Origin of each token of an input, special tokens included.

    ``texts`` (T,) int8 is 0 for a token of the first text, 1 for one of the second, -1 for a special token. ``offsets``
    and ``words`` are those of `Tokens`; a special token has the offsets (0, 0) and the word -1.
    """

    texts: Array
    offsets: Array
    words: Array | None = None


def join_tokens(parts: Iterable[Tokens]) -> Tokens:
    """Concatenate the tokens of parts of one text, all of which or none of which have words."""
    found = [*parts]
    words = [part.words for part in found if part.words is not None]
    return Tokens(
        [number for part in found for number in part.ids],
        np.concatenate([np.zeros((0, 2), np.int32), *(part.offsets for part in found)]),
        np.concatenate(words) if words else None,
    )


def align(layout: Sequence[Piece], texts: Sequence[Tokens]) -> Alignment:
    """Align an input, whose layout of special tokens and texts is given, with its texts."""
    numbers: list[Array] = []
    parts: list[Tokens] = []
    has_words = any(text.words is not None for text in texts)
    for piece in layout:
        if isinstance(piece.content, int):
            tokens, number = texts[piece.content], piece.content
        else:
            count, number = len(piece.content), -1
            words = np.full(count, -1, np.int32) if has_words else None
            tokens = Tokens([*piece.content], np.zeros((count, 2), np.int32), words)
        parts.append(tokens)
        numbers.append(np.full(len(tokens), number, np.int8))
    joined = join_tokens(parts)
    return Alignment(np.concatenate(numbers), joined.offsets, joined.words)


def windows(tokens: int, room: int, stride: int) -> Iterator[slice]:
    """Yield windows of at most `room` tokens that cover a text of `tokens` tokens and overlap by `stride` tokens."""
    start = 0
    while start + room < tokens:
        yield slice(start, start + room)
        start += room - stride
    yield slice(start, tokens)
