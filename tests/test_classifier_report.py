"""What the classifier reads: one token, however it is taken; every claim is compared with what the graph computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from classifier_cases import ALL_NETS, LENGTH, NETS, UNITS, Net, ask, check, classified
from conftest import in_turn

from bertsym.mxnet_runtime import mx

Head = Callable[[Net], Any]


def first(net: Net) -> Any:
    """The first token, (N, 1, U)."""
    return mx.sym.slice_axis(net.sequence, axis=1, begin=0, end=1, name="first")


def zeros(shape: tuple[int, ...]) -> Any:
    return mx.sym.zeros(shape)


def index_like_a_token(net: Net) -> Any:
    """Zeros of the shape (N, U)."""
    return mx.sym.zeros_like(mx.sym.mean(net.sequence, axis=1))


# [CLS]

CLS: dict[str, Head] = {
    "slice": lambda net: mx.sym.slice(net.sequence, begin=(None, 0, None), end=(None, 1, None)),
    "slice from zeros": lambda net: mx.sym.slice(net.sequence, begin=(0, 0, 0), end=(None, 1, UNITS)),
    "slice of two axes": lambda net: mx.sym.slice(net.sequence, begin=(None, 0), end=(None, 1)),
    "slice with steps": lambda net: mx.sym.slice(
        net.sequence, begin=(None, 0, None), end=(None, 1, None), step=(1, 1, 1)
    ),
    "slice_axis": first,
    "slice_axis with negative axis": lambda net: mx.sym.slice_axis(net.sequence, axis=-2, begin=0, end=1),
    "squeeze of its axis": lambda net: mx.sym.squeeze(first(net), axis=1),
    "squeeze of its axis with negative axis": lambda net: mx.sym.squeeze(first(net), axis=-2),
    "squeeze of every axis": lambda net: mx.sym.squeeze(first(net)),
    "reshape to rows": lambda net: mx.sym.reshape(first(net), shape=(-1, UNITS)),
    "reshape keeping the batch": lambda net: mx.sym.reshape(first(net), shape=(0, -1)),
    "reshape joining": lambda net: mx.sym.reshape(first(net), shape=(-3, 0)),
    "reshape joining, the rest": lambda net: mx.sym.reshape(first(net), shape=(-3, -2)),
    "reshape joining the last": lambda net: mx.sym.reshape(first(net), shape=(0, -3)),
    "flatten": lambda net: mx.sym.Flatten(first(net)),
    "take at _zeros": lambda net: mx.sym.take(net.sequence, zeros((1,)), axis=1),
    "take at zeros_like": lambda net: mx.sym.take(net.sequence, mx.sym.zeros_like(zeros((1,)) + 4), axis=1),
    "take at zeros of a slice": lambda net: mx.sym.take(
        net.sequence, mx.sym.slice_axis(mx.sym.zeros_like(net.valid_length), axis=0, begin=0, end=1), axis=1
    ),
    "take at 0 times something": lambda net: mx.sym.take(
        net.sequence, mx.sym.slice_axis(net.valid_length * 0, axis=0, begin=0, end=1), axis=1
    ),
    "take at arange(1)": lambda net: mx.sym.take(net.sequence, mx.sym.arange(1), axis=1),
    "take at arange(0, 1)": lambda net: mx.sym.take(net.sequence, mx.sym.arange(0, 1), axis=1),
    "take at a clipped -1": lambda net: mx.sym.take(net.sequence, zeros((1,)) - 1, axis=1, mode="clip"),
    "take, then squeeze": lambda net: mx.sym.squeeze(mx.sym.take(net.sequence, zeros((1,)), axis=1), axis=1),
    "pick": lambda net: mx.sym.pick(net.sequence, index_like_a_token(net), axis=1),
    "pick keeping its axis": lambda net: mx.sym.pick(
        net.sequence, mx.sym.expand_dims(index_like_a_token(net), axis=1), axis=1, keepdims=True
    ),
    "SequenceMask, then pick": lambda net: mx.sym.pick(
        mx.sym.SequenceMask(net.sequence, net.valid_length, use_sequence_length=True, axis=1),
        index_like_a_token(net),
        axis=1,
    ),
    "SwapAxis, then slice_axis": lambda net: mx.sym.reshape(
        mx.sym.slice_axis(mx.sym.SwapAxis(net.sequence, dim1=0, dim2=1), axis=0, begin=0, end=1), shape=(-1, UNITS)
    ),
    "SwapAxis with negative axis": lambda net: mx.sym.reshape(
        mx.sym.slice_axis(mx.sym.SwapAxis(net.sequence, dim1=-3, dim2=-2), axis=0, begin=0, end=1), shape=(-1, UNITS)
    ),
    "transpose, then take": lambda net: mx.sym.squeeze(
        mx.sym.take(mx.sym.transpose(net.sequence, axes=(1, 0, 2)), zeros((1,)), axis=0), axis=0
    ),
    "transpose of all axes, then slice": lambda net: mx.sym.reshape(
        mx.sym.transpose(mx.sym.slice_axis(mx.sym.transpose(net.sequence), axis=1, begin=0, end=1), axes=(2, 1, 0)),
        shape=(0, -1),
    ),
    "two slices": lambda net: mx.sym.slice_axis(
        mx.sym.slice_axis(net.sequence, axis=1, begin=0, end=1), axis=2, begin=0, end=UNITS
    ),
    "expanded and joined again": lambda net: mx.sym.reshape(
        mx.sym.expand_dims(first(net), axis=0), shape=(-3, -3), name="joined"
    ),
    "a cast and a gradient that stops": lambda net: mx.sym.BlockGrad(mx.sym.cast(first(net), dtype="float32")),
    "the row of a flattened slice": lambda net: mx.sym.expand_dims(mx.sym.Flatten(first(net)), axis=1),
}


@pytest.mark.parametrize(("way", "net"), [*in_turn(CLS, ALL_NETS), *in_turn(CLS, [*[*ALL_NETS][2:], *[*ALL_NETS][:2]])])
def test_the_first_token_is_cls_however_it_is_taken(way: str, net: str) -> None:
    """Each way from two of the nets."""
    subject = ask(classified(CLS[way](ALL_NETS[net]())))
    assert (subject.kind, subject.report.position, subject.report.locked_length, subject.steps) == ("cls", 0, None, ())
    assert (subject.classifier, subject.report.num_outputs, subject.report.output.node.name) == ("fc", 3, "probs")
    assert subject.sentence.startswith(f"`fc` reads `{subject.report.reads}` = [CLS], position 0 of the sequence: (")
    check(subject, subject.report)


def test_an_index_kept_as_a_parameter_is_read_from_the_parameters() -> None:
    net = NETS["ours"]()
    head = classified(mx.sym.take(net.sequence, mx.sym.var("index", shape=(1,)), axis=1))
    for position in (0, 2):
        subject = ask(head, {"index": np.array([position], np.float32)})
        assert (subject.kind, subject.report.position) == ("cls" if position == 0 else "position", position)
        check(subject, subject.report)


def test_an_index_of_several_values_is_not_one_token() -> None:
    net = NETS["ours"]()
    head = classified(mx.sym.take(net.sequence, mx.sym.var("index", shape=(2,)), axis=1))
    assert ask(head, {"index": np.array([0, 2], np.float32)}).kind == "unknown"


def test_splitting_a_sequence_into_tokens_fixes_the_length() -> None:
    net = NETS["ours"]()
    for position in (0, 3):
        tokens = mx.sym.split(net.sequence, num_outputs=LENGTH, axis=1, squeeze_axis=True, name="tokens")
        subject = ask(classified(tokens[position]))
        assert (subject.report.position, subject.report.locked_length) == (position, LENGTH)
        assert str(subject.report.reads) == ("tokens" if position == 0 else "tokens:3")
        assert subject.sentence.endswith(f"(N, {UNITS}): length locked to {LENGTH}")
        check(subject, subject.report)


STATIC: dict[str, tuple[Head, int | None]] = {
    "a slice with negative begin": (lambda net: mx.sym.slice_axis(net.sequence, axis=1, begin=-8, end=-7), 0),
    "a part of a split": (lambda net: mx.sym.split(net.sequence, num_outputs=8, axis=1, name="tokens")[0], 0),
    "another slice with negative begin": (lambda net: mx.sym.slice_axis(net.sequence, axis=1, begin=-3, end=-2), 5),
    "all positions": (lambda net: mx.sym.slice_axis(net.sequence, axis=1, begin=0, end=8), None),
    "a flat row": (lambda net: mx.sym.reshape(net.sequence, shape=(-1, 8 * UNITS)), None),
    "a flat row with its batch": (lambda net: mx.sym.reshape(net.sequence, shape=(0, 8 * UNITS)), None),
}


@pytest.mark.parametrize("way", STATIC)
def test_a_known_length_is_reported_as_a_number(way: str) -> None:
    head, position = STATIC[way]
    subject = ask(classified(head(ALL_NETS["static"]())))
    kind = {0: "cls", None: "whole_sequence"}.get(position, "position")
    assert (subject.kind, subject.report.position) == (kind, position)
    if position is None:
        assert subject.sentence.endswith(f"(N, 8, {UNITS}), flattened to {8 * UNITS}: length locked to 8")
    check(subject, subject.report)


# Other tokens

POSITIONS: dict[str, tuple[Head, int]] = {
    "slice": (lambda net: mx.sym.slice(net.sequence, begin=(None, 3, None), end=(None, 4, None)), 3),
    "slice_axis": (lambda net: mx.sym.slice_axis(net.sequence, axis=1, begin=3, end=4), 3),
    "take": (lambda net: mx.sym.take(net.sequence, zeros((1,)) + 3, axis=1), 3),
    "take at arange": (lambda net: mx.sym.take(net.sequence, mx.sym.arange(2, 3), axis=1), 2),
    "pick": (lambda net: mx.sym.pick(net.sequence, index_like_a_token(net) + 1, axis=1), 1),
    "last position": (lambda net: mx.sym.slice_axis(net.sequence, axis=1, begin=-1, end=None), -1),
    "last position by slice": (
        lambda net: mx.sym.slice(net.sequence, begin=(None, -1, None), end=(None, None, None)),
        -1,
    ),
    "last but two": (lambda net: mx.sym.slice_axis(net.sequence, axis=1, begin=-3, end=-2), -3),
    "wrapped take": (lambda net: mx.sym.take(net.sequence, zeros((1,)) - 1, axis=1, mode="wrap"), -1),
    "SequenceLast of all": (lambda net: mx.sym.SequenceLast(mx.sym.swapaxes(net.sequence, dim1=0, dim2=1)), -1),
}


@pytest.mark.parametrize("way", POSITIONS)
def test_another_position_is_reported_by_its_number(way: str) -> None:
    head, position = POSITIONS[way]
    subject = ask(classified(head(NETS["ours"]())))
    assert (subject.kind, subject.report.position) == ("position", position)
    place = f"position {position} of the sequence" if position >= 0 else f"position {position}, counted from the end"
    assert f" = {place}" in subject.sentence
    check(subject, subject.report)


@pytest.mark.parametrize("net", ALL_NETS)
def test_sequence_last_is_the_last_valid_token(net: str) -> None:
    base = ALL_NETS[net]()
    swapped = mx.sym.swapaxes(base.sequence, dim1=0, dim2=1)
    for data, axis in ((swapped, 0), (base.sequence, 1)):
        last = mx.sym.SequenceLast(data, base.valid_length, use_sequence_length=True, axis=axis)
        subject = ask(classified(last))
        assert (subject.kind, subject.report.position) == ("last", None)
        assert "the last valid token" in subject.sentence
        check(subject, subject.report)


def test_several_tokens_are_reported_as_a_subset_of_the_tokens() -> None:
    for begin, end in ((0, 3), (1, None), (0, -1), (0, 1 - LENGTH)):
        subject = ask(classified(mx.sym.slice_axis(NETS["ours"]().sequence, axis=1, begin=begin, end=end)))
        assert subject.kind == "some"
        assert "some of the tokens" in subject.sentence
        check(subject, subject.report)


# Layers between

BETWEEN: dict[str, tuple[Head, str, tuple[str, ...]]] = {
    "pooler": (
        lambda net: mx.sym.tanh(mx.sym.FullyConnected(first(net), num_hidden=UNITS, name="p")),
        "pooled",
        (f"Dense({UNITS})", "tanh"),
    ),
    "pooler of two dimensions": (
        lambda net: mx.sym.Activation(
            mx.sym.FullyConnected(mx.sym.Flatten(first(net)), num_hidden=UNITS, flatten=False, name="p"),
            act_type="tanh",
        ),
        "pooled",
        (f"Dense({UNITS})", "tanh"),
    ),
    "two layers": (
        lambda net: mx.sym.Activation(mx.sym.FullyConnected(first(net), num_hidden=7, name="p"), act_type="relu"),
        "cls",
        ("Dense(7)", "relu"),
    ),
    "two layers, gelu": (
        lambda net: mx.sym.LeakyReLU(mx.sym.FullyConnected(first(net), num_hidden=7, name="p"), act_type="gelu"),
        "cls",
        ("Dense(7)", "gelu"),
    ),
    "normalised": (lambda net: mx.sym.LayerNorm(first(net), name="norm"), "cls", ("LayerNorm",)),
    "a dense layer of each token, then the first": (
        lambda net: mx.sym.slice_axis(
            mx.sym.FullyConnected(net.sequence, num_hidden=5, flatten=False, name="p"), axis=1, begin=0, end=1
        ),
        "cls",
        ("Dense(5)",),
    ),
    "a part of its units": (
        lambda net: mx.sym.slice_axis(first(net), axis=2, begin=0, end=4),
        "cls",
        ("some of the units",),
    ),
    "half of its units": (
        lambda net: mx.sym.split(first(net), num_outputs=2, axis=2, name="halves")[1],
        "cls",
        ("some of the units",),
    ),
}


@pytest.mark.parametrize("net", ALL_NETS)
@pytest.mark.parametrize("way", BETWEEN)
def test_layers_before_the_classifier_are_reported(net: str, way: str) -> None:
    head, kind, steps = BETWEEN[way]
    subject = ask(classified(head(ALL_NETS[net]())))
    assert (subject.kind, subject.report.position, subject.steps) == (kind, 0, steps)
    sentence = "= the pooler, tanh(Dense) of [CLS]" if kind == "pooled" else f"{steps[0]} of [CLS], position 0"
    assert sentence in subject.sentence
    check(subject, subject.report)
