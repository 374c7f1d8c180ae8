"""Find the first piece of each word in the windows of a tokenised sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array


@dataclass(frozen=True, eq=False)
class FirstPieces:
    """The token that stands for each word, its first one: (words,) int64 each, -1 for a word without a token."""

    windows: Array  #: index of the window
    tokens: Array  #: index of the token in the window

    def in_window(self, window: int) -> tuple[Array, Array]:
        """Return the words whose token is in a window, and their tokens."""
        words = np.flatnonzero(self.windows == window)
        return words, self.tokens[words]

    @property
    def missing(self) -> int:
        """Number of words without a token: they were truncated, or consist of characters that are removed."""
        return int((self.windows < 0).sum())


def words_at(offsets: Array, words: Sequence[tuple[int, int]]) -> Array:
    """Return the word of each token by their offsets in one text, (T,) int64; -1 for a token of no word.

    `offsets` are those of the tokens, (T, 2), `words` those of the words, in order. A token may begin with the space
    before its word.
    """
    starts, ends = np.array(words, np.int64).reshape(-1, 2).T
    first, last = offsets[:, 0].astype(np.int64), offsets[:, 1].astype(np.int64) - 1

    def word_at(places: Array) -> Array:
        found = np.searchsorted(starts, places, side="right") - 1
        return np.where((found >= 0) & (places < ends[found]), found, -1)

    found = word_at(first)
    found = np.where(found >= 0, found, word_at(last))
    return np.where(last >= first, found, -1)


def find_first_pieces(windows: Sequence[Array], texts: Sequence[Array], words: int, stride: int) -> FirstPieces:
    """Find the first piece of each of `words` words, in the window in which it has the most context.

    `windows` has the word of each token, (T,) of each window, -1 where there is none; `texts` whether the token is one
    of the text rather than a special token, (T,) bool. The windows overlap by `stride` tokens of the text. The context
    of a token is the number of tokens of the text before it or after it, whichever is smaller; the first of equal
    windows is used.
    """
    place = np.full(words, -1, np.int64)  # of the first piece, counted in tokens of the text
    best = np.full(words, -1, np.int64)  # its context
    found = FirstPieces(np.full(words, -1, np.int64), np.full(words, -1, np.int64))
    start = 0
    for number, (word_of, is_text) in enumerate(zip(windows, texts)):
        tokens = np.flatnonzero(is_text)
        word_of = word_of[tokens]
        places = start + np.arange(len(tokens))
        seen, first = np.unique(word_of, return_index=True)
        seen, first = seen[seen >= 0], first[seen >= 0]
        # A window may begin within a word: its first piece is in the window before.
        new = place[seen] < 0
        place[seen[new]] = places[first[new]]
        at_first = place[seen] == places[first]
        seen, first = seen[at_first], first[at_first]
        context = np.minimum(first, len(tokens) - 1 - first)
        better = context > best[seen]
        seen, first = seen[better], first[better]
        best[seen], found.windows[seen], found.tokens[seen] = context[better], number, tokens[first]
        start += len(tokens) - stride
    return found
