"""Each word is represented by its first piece, in the window in which that piece has the most context."""

from __future__ import annotations

import numpy as np
import pytest

from bertsym.text.word_pieces import find_first_pieces, words_at


def find(pieces: list[int], room: int | None = None, stride: int = 0) -> list[tuple[int, int]]:
    """Find the first pieces of words with these numbers of pieces, in windows between two special tokens."""
    word_of = np.repeat(np.arange(len(pieces)), pieces)
    room = room or max(1, len(word_of))
    parts, start = [], 0
    while start + room < len(word_of):
        parts.append(word_of[start : start + room])
        start += room - stride
    parts.append(word_of[start:])
    windows = [np.concatenate([[-1], part, [-1]]) for part in parts]
    texts = [np.concatenate([[False], np.ones(len(part), bool), [False]]) for part in parts]
    found = find_first_pieces(windows, texts, len(pieces), stride)
    assert found.missing == pieces.count(0)
    for window in range(len(windows)):
        words, tokens = found.in_window(window)
        assert (windows[window][tokens] == words).all()
    return [*zip(found.windows.tolist(), found.tokens.tolist())]


def test_a_word_is_represented_by_its_first_piece() -> None:
    assert find([1, 3, 2]) == [(0, 1), (0, 2), (0, 5)]


def test_a_word_without_pieces_has_no_token() -> None:
    assert find([1, 0, 2]) == [(0, 1), (-1, -1), (0, 2)]


def test_a_word_is_read_where_it_has_the_most_context() -> None:
    # Windows of tokens 0-5, 3-8, 6-9: token 3 has 2 tokens after it in the first, and none before it in the second.
    expected = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5), (2, 3), (2, 4)]
    assert find([1] * 10, room=6, stride=3) == expected


def test_a_window_may_begin_within_a_word() -> None:
    # Windows of tokens 0-3, 2-5, 4-6; the second word has tokens 1-4.
    assert find([1, 4, 2], room=4, stride=2) == [(0, 1), (0, 2), (2, 2)]
    assert find([1, 4, 2], room=4, stride=0) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("seed", range(20))
def test_every_word_with_pieces_is_found_once_in_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pieces = rng.integers(0, 5, 30).tolist()
    room = int(rng.integers(2, 20))
    stride = int(rng.integers(0, room))
    starts = np.cumsum([0, *pieces])
    for (window, token), start, count in zip(find(pieces, room, stride), starts, pieces):
        assert (window, token) == (-1, -1) or token - 1 + window * (room - stride) == start
        assert (window < 0) == (count == 0)


def test_tokens_are_assigned_to_words_by_their_offsets() -> None:
    words = ((0, 3), (4, 9), (9, 10))
    tokens = np.array([(0, 0), (0, 2), (2, 3), (3, 7), (7, 9), (9, 10), (10, 10), (3, 4)])
    assert words_at(tokens, words).tolist() == [-1, 0, 0, 1, 1, 2, -1, -1]
