"""Which rows go together, how far they are padded, and what may reach libmxnet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bertsym import BertConfig, DataError
from bertsym.array import Array
from bertsym.encoders.inputs import check_inputs, input_shapes
from bertsym.text.batches import FEW_TOKENS, bucket_length, cached_rows, few_length, inference_batches, training_batches
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded

MAX_LENGTH = 128
CONFIG = BertConfig(num_layers=1, units=8, hidden_size=16, num_heads=2, vocab_size=50, max_length=12)


def lengths_of(rows: int, seed: int = 0) -> Array:
    """Lengths as texts have them: many short ones, a few long ones."""
    return np.clip(np.random.default_rng(seed).lognormal(3.2, 0.6, rows).astype(np.int64), 3, MAX_LENGTH)


def padded_tokens(batches: Sequence[Array], lengths: Array) -> int:
    """What a forward over all batches computes."""
    return sum(len(rows) * bucket_length(int(lengths[rows].max()), MAX_LENGTH) for rows in batches)


def in_order(batches: Sequence[Array]) -> list[list[int]]:
    return [rows.tolist() for rows in batches]


# Training


@pytest.mark.parametrize(
    ("rows", "batch_size"), [(1, 32), (5, 1), (31, 32), (32, 32), (33, 32), (90, 16), (1000, 7), (3668, 32), (5000, 8)]
)
@pytest.mark.parametrize("epoch", [1, 2])
def test_each_row_is_in_one_training_batch(rows: int, batch_size: int, epoch: int) -> None:
    batches = training_batches(lengths_of(rows), batch_size, seed=3, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))


@pytest.mark.parametrize(("rows", "batch_size"), [(31, 32), (33, 32), (90, 16), (64, 16), (3668, 32), (5003, 8)])
def test_only_one_training_batch_is_short(rows: int, batch_size: int) -> None:
    sizes = sorted(len(batch) for batch in training_batches(lengths_of(rows), batch_size, seed=0, epoch=1))
    rest = rows % batch_size
    assert sizes == ([rest] if rest else []) + [batch_size] * (rows // batch_size)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = lengths_of(500)
    first = in_order(training_batches(lengths, 16, seed=1, epoch=1))
    np.random.default_rng().random(10)
    np.random.seed(7)
    assert in_order(training_batches(lengths.copy(), 16, seed=1, epoch=1)) == first
    assert in_order(training_batches(lengths, 16, seed=1, epoch=2)) != first
    assert in_order(training_batches(lengths, 16, seed=2, epoch=1)) != first


def test_batches_differ_between_epochs() -> None:
    lengths = lengths_of(2000)
    one, two = ({frozenset(rows.tolist()) for rows in training_batches(lengths, 8, 0, epoch)} for epoch in (1, 2))
    assert len(one & two) < 5


def test_rows_of_one_length_are_shuffled_too() -> None:
    batches = training_batches(np.full(200, 9), 10, seed=0, epoch=1)
    assert np.concatenate(batches).tolist() != list(range(200))
    # Not in runs of neighbours: the rows of a batch come from all over the table.
    assert min(int(rows.max() - rows.min()) for rows in batches) > 50


def test_short_and_long_batches_alternate() -> None:
    """Sorted batches would show the model its short texts first."""
    lengths = lengths_of(1600)
    means = np.array([lengths[rows].mean() for rows in training_batches(lengths, 32, seed=0, epoch=1)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5
    assert means.max() > 2 * means.min()


# Inference


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 32), (21, 7), (33, 32), (1000, 32)])
def test_inference_batches_hold_each_row_once_by_falling_length(rows: int, batch_size: int) -> None:
    lengths = lengths_of(rows)
    batches = inference_batches(lengths, lambda longest: batch_size)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(rows))
    assert (np.diff(lengths[order]) <= 0).all()
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


@pytest.mark.parametrize("max_length", [12, 20, 40, 128, 512])
@pytest.mark.parametrize("graphs", [1, 2, 3, 4, 5, 9, 24])
def test_a_few_texts_have_at_most_as_many_lengths_as_there_are_graphs(graphs: int, max_length: int) -> None:
    lengths = [few_length(longest, max_length, graphs) for longest in range(1, min(max_length, FEW_TOKENS) + 1)]
    assert len(set(lengths)) <= graphs
    assert all(longest <= length <= max_length for longest, length in enumerate(lengths, 1))
    assert lengths == sorted(lengths)
    assert few_length(max_length, max_length, graphs) == max_length


def test_the_more_graphs_there_are_the_less_a_few_texts_are_padded() -> None:
    padded = [sum(few_length(longest, 512, graphs) for longest in range(1, 257)) for graphs in (2, 3, 5, 9, 13, 24)]
    assert padded == sorted(padded, reverse=True)
    assert padded[-1] < 1.1 * sum(range(1, 257))


def test_batches_of_longer_rows_have_fewer_rows() -> None:
    lengths = lengths_of(1000)
    batches = inference_batches(lengths, cached_rows)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    sizes = [len(batch) for batch in batches[:-1]]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("rows", [16, 33, 64, 100, 408, 1000])
@pytest.mark.parametrize("at_once", [2, 3])
def test_batches_that_are_computed_at_a_time_end_together(rows: int, at_once: int) -> None:
    lengths = lengths_of(rows)
    batches = inference_batches(lengths, lambda longest: min(32, cached_rows(longest)), at_once)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(rows))
    assert lengths[batches[0][0]] == lengths.max()
    assert max(map(len, batches)) <= 32
    work = [sum(len(batch) * lengths[batch[0]] for batch in batches[i::at_once]) for i in range(at_once)]
    assert max(work) <= 1.3 * np.mean(work)


def test_short_rows_at_the_end_fill_no_more_than_a_batch() -> None:
    lengths = np.array([30] * 6 + [1] * 26)
    batches = inference_batches(lengths, lambda longest: 16, 2)
    assert list(map(len, batches)) == [3, 16, 13]


@pytest.mark.parametrize(("length", "rows"), [(4, 256), (16, 64), (56, 16), (64, 16), (65, 8), (512, 2), (2000, 1)])
def test_a_batch_has_some_thousand_tokens(length: int, rows: int) -> None:
    assert cached_rows(length) == rows


# Padding


@pytest.mark.parametrize(
    ("longest", "max_length", "expected"),
    [
        (1, 128, 4),
        (8, 128, 8),
        (9, 128, 12),
        (53, 128, 56),
        (120, 128, 120),
        (125, 128, 128),
        (22, 22, 22),
        (21, 22, 22),
    ],
)
def test_a_bucket_is_the_next_multiple_of_four_within_the_maximum(longest: int, max_length: int, expected: int) -> None:
    assert bucket_length(longest, max_length) == expected


def test_there_are_few_buckets_and_each_holds_its_row() -> None:
    buckets = [bucket_length(longest, MAX_LENGTH) for longest in range(1, MAX_LENGTH + 1)]
    assert len(set(buckets)) == MAX_LENGTH // 4
    assert all(longest <= bucket < longest + 4 for longest, bucket in enumerate(buckets, 1))


def test_batches_of_like_lengths_need_less_padding_than_batches_in_file_order() -> None:
    lengths = lengths_of(3000)
    unsorted = [np.arange(start, min(start + 32, 3000)) for start in range(0, 3000, 32)]
    training = padded_tokens(training_batches(lengths, 32, seed=0, epoch=1), lengths)
    inference = padded_tokens(inference_batches(lengths, lambda longest: 32), lengths)
    assert lengths.sum() <= inference <= training < 0.6 * padded_tokens(unsorted, lengths)
    assert training < 1.3 * lengths.sum()


def test_a_batch_is_padded_with_the_id_of_pad_and_type_zero() -> None:
    examples = [Encoded([3, 9, 4, 8, 4], [0, 0, 0, 1, 1], False, 0), Encoded([3, 7, 4], [0, 0, 0], False, 0)]
    batch = Features(examples).batch(np.array([1, 0, 1]), 6, 49, CONFIG)
    token_ids, token_types, valid_length = batch.values()
    assert token_ids.tolist() == [[3, 7, 4, 49, 49, 49], [3, 9, 4, 8, 4, 49], [3, 7, 4, 49, 49, 49]]
    assert token_types.tolist() == [[0] * 6, [0, 0, 0, 1, 1, 0], [0] * 6]
    assert valid_length.tolist() == [3, 5, 3]
    assert {array.dtype for array in (token_ids, token_types, valid_length)} == {np.dtype(np.float32)}
    assert input_shapes(3, 6) == [("data0", (3, 6)), ("data1", (3, 6)), ("data2", (3,))]


# Ranges of inputs: a wrong valid_length makes libmxnet access memory out of bounds


def checked(
    token_ids: Any = None, token_types: Any = None, valid_length: Any = None, batch_size: int = 2, length: int = 6
) -> None:
    """check_inputs on good inputs but for those that are given."""
    check_inputs(
        np.asarray(np.ones((batch_size, length)) if token_ids is None else token_ids),
        np.asarray(np.zeros((batch_size, length)) if token_types is None else token_types),
        np.asarray(np.full(batch_size, length) if valid_length is None else valid_length),
        CONFIG,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_inputs_within_their_ranges_pass(dtype: Any) -> None:
    token_ids = np.array([[0, 49, 1], [2, 3, 4]], dtype)
    token_types = np.array([[0, 1, 1], [0, 0, 0]], dtype)
    checked(token_ids, token_types, np.array([1, 3], dtype))
    checked(length=CONFIG.max_length)
    checked(length=1)


@pytest.mark.parametrize(
    "wrong", [0, -1, -2, 7, 12, 100, 1e30, 2.5, 0.999, 6.0001, float("nan"), float("inf"), float("-inf")]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_valid_length_that_mxnet_would_misread_is_refused(wrong: float, place: int) -> None:
    valid_length = np.array([3.0, 3.0])
    checked(valid_length=valid_length)
    valid_length[place] = wrong
    with pytest.raises(DataError, match=rf"^valid_length must be integers from 1 to 6: row {place} holds "):
        checked(valid_length=valid_length)
    with pytest.raises(DataError, match="valid_length"):
        checked(valid_length=valid_length.astype(np.float32))


@pytest.mark.parametrize("wrong", [50, -1, 1e9, 3.5, float("nan"), float("inf")])
def test_a_token_id_outside_of_the_vocabulary_is_refused(wrong: float) -> None:
    """mxnet silently takes another row of the embedding."""
    token_ids = np.ones((2, 6))
    token_ids[1, 5] = wrong
    with pytest.raises(DataError, match=r"^token ids must be integers from 0 to 49: row 1, position 5 holds "):
        checked(token_ids)


@pytest.mark.parametrize("wrong", [2, -1, 0.5, float("nan")])
def test_an_unknown_token_type_is_refused(wrong: float) -> None:
    token_types = np.zeros((2, 6))
    token_types[0, 3] = wrong
    with pytest.raises(DataError, match=r"^token types must be integers from 0 to 1: row 0, position 3 holds "):
        checked(None, token_types)


def test_a_length_beyond_the_position_table_is_refused() -> None:
    with pytest.raises(DataError, match=r"^length 13 is outside the 12 positions of the model$"):
        checked(length=13)
    with pytest.raises(DataError, match=r"^length 0 is outside"):
        checked(length=0)


@pytest.mark.parametrize(
    ("ids", "types", "message"),
    [
        ([], [], r"^valid_length must be integers from 1 to 6: row 7 holds 0$"),
        ([3, 99, 4], [0, 0, 0], r"^token ids must be integers from 0 to 49: row 7, position 1 holds 99$"),
        ([3, 10**400, 4], [0, 0, 0], r"^row 7 holds a value that is not a token id or token type: int too large"),
        ([3, "cat", 4], [0, 0, 0], r"^row 7 holds a value that is not a token id or token type: "),
        ([3, None, 4], [0, 0, 0], r"^token ids must be integers from 0 to 49: row 7, position 1 holds nan$"),
        ([3, 9, 4], [0, 0], r"^row 7 has 3 token ids and 2 token types, at most 6 fit$"),
        ([3] * 7, [0] * 7, r"^row 7 has 7 token ids and 7 token types, at most 6 fit$"),
    ],
)
def test_an_invalid_example_is_named_by_its_row(ids: Any, types: list[int], message: str) -> None:
    examples = [Encoded([3, 7, 4], [0, 0, 0], False, 0)] * 7 + [Encoded(ids, types, False, 0)]
    with pytest.raises(DataError, match=message):
        Features(examples).batch(np.array([2, 7]), 6, 0, CONFIG)


@pytest.mark.parametrize(
    ("token_ids", "token_types", "valid_length"),
    [
        ((6,), (6,), ()),
        ((2, 6, 1), (2, 6, 1), (2,)),
        ((2, 6), (2, 5), (2,)),
        ((2, 6), (1, 6), (2,)),
        ((2, 6), (6, 2), (2,)),
        ((2, 6), (2, 6), (3,)),
        ((2, 6), (2, 6), (2, 1)),
        ((2, 6), (2, 6), ()),
        ((2, 6), (2, 6), (6,)),
    ],
)
def test_other_shapes_are_refused(
    token_ids: tuple[int, ...], token_types: tuple[int, ...], valid_length: tuple[int, ...]
) -> None:
    with pytest.raises(DataError, match=r"^inputs need the shapes \(N, T\), \(N, T\) and \(N,\), not "):
        checked(np.ones(token_ids), np.zeros(token_types), np.ones(valid_length))
