"""The classifier's input if it is more than one token, or unknown; reports are compared with computed outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from classifier_cases import ALL_NETS, CONFIG, LENGTH, NETS, UNITS, Net, ask, check, classified

from bertsym.analysis.sentences import classifier_sentence
from bertsym.mxnet_runtime import mx

Head = Callable[[Net], Any]


def first(net: Net) -> Any:
    """The first token, (N, U)."""
    return mx.sym.Flatten(mx.sym.slice_axis(net.sequence, axis=1, begin=0, end=1))


def masked(net: Net) -> Any:
    return mx.sym.SequenceMask(net.sequence, net.valid_length, use_sequence_length=True, axis=1)


def mask(net: Net) -> Any:
    """1 at tokens and 0 at padding, (N, T, 1)."""
    ones = mx.sym.SequenceMask(mx.sym.ones_like(net.token_ids), net.valid_length, use_sequence_length=True, axis=1)
    return mx.sym.expand_dims(ones, axis=2)


def count(net: Net) -> Any:
    """The number of tokens, (N, 1)."""
    return mx.sym.reshape(net.valid_length, shape=(-1, 1))


# Pooling

MEAN_OF_VALID: dict[str, Head] = {
    "of a SequenceMask": lambda net: mx.sym.broadcast_div(mx.sym.sum(masked(net), axis=1), count(net)),
    "of a multiplied mask": lambda net: mx.sym.broadcast_div(
        mx.sym.sum(mx.sym.broadcast_mul(net.sequence, mask(net)), axis=1), count(net)
    ),
    "by the sum of the mask": lambda net: mx.sym.broadcast_div(
        mx.sym.sum(mx.sym.broadcast_mul(net.sequence, mask(net)), axis=1), mx.sym.sum(mask(net), axis=1)
    ),
    "keeping its axis": lambda net: mx.sym.broadcast_div(
        mx.sym.sum(masked(net), axis=1, keepdims=True), mx.sym.expand_dims(count(net), axis=1)
    ),
}


@pytest.mark.parametrize("net", ALL_NETS)
@pytest.mark.parametrize("way", MEAN_OF_VALID)
def test_a_masked_sum_over_the_count_is_the_mean_of_the_valid_tokens(net: str, way: str) -> None:
    subject = ask(classified(MEAN_OF_VALID[way](ALL_NETS[net]())))
    assert (subject.kind, subject.report.locked_length) == ("mean", None)
    assert " = the mean over the valid tokens: (N, " in subject.sentence
    check(subject, subject.report)


def test_a_mean_that_counts_padding_is_not_the_mean_of_valid_tokens() -> None:
    for net, sentence in (("ours", "the mean over the tokens:"), ("ours, masked", "the tokens, zeroed at padding:")):
        subject = ask(classified(mx.sym.mean(NETS[net]().sequence, axis=1)))
        assert subject.kind == "mean"
        assert sentence in subject.sentence
        check(subject, subject.report)


def test_a_sum_that_is_not_divided_by_the_count_is_not_a_mean() -> None:
    net = NETS["ours, masked"]()
    total = mx.sym.sum(net.sequence, axis=1)
    for scale in (mx.sym.broadcast_div(total, mx.sym.ones((1, 1)) * 3), mx.sym.broadcast_div(total, total + 1)):
        assert ask(classified(scale)).kind in ("sum", "unknown")
    without_mask = NETS["ours"]()
    total = mx.sym.sum(without_mask.sequence, axis=1)
    subject = ask(classified(mx.sym.broadcast_div(total, count(without_mask))))
    assert subject.kind == "sum"
    assert " = the scaled sum over the tokens: " in subject.sentence
    check(subject, subject.report, exact=False)


@pytest.mark.parametrize("net", ALL_NETS)
@pytest.mark.parametrize("kind", ["sum", "max", "mean"])
@pytest.mark.parametrize("axis", [1, -2, (1,)])
def test_reductions_over_the_tokens_are_reported(net: str, kind: str, axis: Any) -> None:
    subject = ask(classified(getattr(mx.sym, kind)(ALL_NETS[net]().sequence, axis=axis)))
    assert subject.kind == kind
    assert subject.report.shape == ("N", UNITS)
    check(subject, subject.report)


@pytest.mark.parametrize("kind", ["sum", "max", "mean"])
def test_layers_before_and_after_a_reduction_are_reported_in_order(kind: str) -> None:
    each = mx.sym.relu(mx.sym.FullyConnected(NETS["ours"]().sequence, num_hidden=5, flatten=False, name="each"))
    pooled = mx.sym.FullyConnected(getattr(mx.sym, kind)(each, axis=1), num_hidden=7, name="after")
    subject = ask(classified(pooled))
    name = {"max": "maximum"}.get(kind, kind)
    assert f" = Dense(7) of the {name} over the tokens of relu of Dense(5): (N, 7)" in subject.sentence
    assert subject.steps == ("Dense(5)", "relu", "Dense(7)")
    check(subject, subject.report)


def test_a_reduction_over_the_units_is_not_one_over_the_tokens() -> None:
    subject = ask(classified(mx.sym.mean(NETS["ours"]().sequence, axis=2)))
    assert subject.kind == "unknown"


# The whole sequence

WHOLE: dict[str, Head] = {
    "FullyConnected flattens": lambda net: net.sequence,
    "Flatten": lambda net: mx.sym.Flatten(net.sequence),
    "Reshape": lambda net: mx.sym.reshape(net.sequence, shape=(0, -1)),
    "Reshape joining": lambda net: mx.sym.reshape(net.sequence, shape=(0, -3)),
    "Reshape by numbers": lambda net: mx.sym.reshape(net.sequence, shape=(0, LENGTH * UNITS)),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("way", WHOLE)
def test_a_classifier_on_the_sequence_fixes_the_length(net: str, way: str) -> None:
    subject = ask(classified(WHOLE[way](NETS[net]())))
    assert (subject.kind, subject.report.position, subject.report.locked_length) == ("whole_sequence", None, LENGTH)
    assert subject.sentence == (
        f"`fc` reads `{subject.report.reads}` = the whole sequence (N, {LENGTH}, {UNITS}), "
        f"flattened to {LENGTH * UNITS}: length locked to {LENGTH}"
    )
    check(subject, subject.report)


def test_a_hidden_layer_on_the_sequence_fixes_the_length_too() -> None:
    hidden = mx.sym.FullyConnected(NETS["ours"]().sequence, num_hidden=2 * UNITS, name="hidden")
    subject = ask(classified(mx.sym.relu(hidden)))
    assert (subject.kind, subject.report.locked_length) == ("whole_sequence", LENGTH)
    assert subject.steps == (f"Dense({2 * UNITS})", "relu")
    assert f"relu of Dense({2 * UNITS}) of the whole sequence (N, {LENGTH}, {UNITS})" in subject.sentence
    check(subject, subject.report)


def test_a_narrow_layer_of_each_token_is_counted_in_the_width() -> None:
    narrow = mx.sym.FullyConnected(NETS["ours"]().sequence, num_hidden=4, flatten=False, name="narrow")
    subject = ask(classified(narrow))
    assert (subject.kind, subject.report.locked_length) == ("whole_sequence", LENGTH)
    assert f"(N, {LENGTH}, 4), flattened to {LENGTH * 4}: length locked to {LENGTH}" in subject.sentence
    check(subject, subject.report)


# Every token


@pytest.mark.parametrize("net", ALL_NETS)
def test_a_tagger_reads_every_token_by_itself(net: str) -> None:
    base = ALL_NETS[net]()
    for data, attributes in (
        (base.sequence, {"flatten": False}),
        (mx.sym.reshape(base.sequence, shape=(-1, UNITS)), {}),
        (mx.sym.reshape(base.sequence, shape=(-3, 0)), {}),
    ):
        subject = ask(classified(data, 9, **attributes))
        assert (subject.kind, subject.report.num_outputs, subject.report.locked_length) == ("tokens", 9, None)
        assert subject.sentence.endswith("each token separately: 9 values for each")
        check(subject, subject.report)


@pytest.mark.parametrize("net", ALL_NETS)
def test_question_answering_has_one_report_for_both_outputs(net: str) -> None:
    scores = mx.sym.FullyConnected(ALL_NETS[net]().sequence, num_hidden=2, flatten=False, name="span")
    start, end = mx.sym.split(scores, num_outputs=2, axis=2, squeeze_axis=True, name="spans")
    subject = ask(mx.sym.Group([mx.sym.softmax(start), mx.sym.softmax(end)]))
    assert (subject.kind, subject.classifier, subject.report.num_outputs) == ("tokens", "span", 2)
    check(subject, subject.report)


def test_scores_of_a_selected_token_are_reported_for_that_token() -> None:
    scores = mx.sym.FullyConnected(NETS["ours"]().sequence, num_hidden=3, flatten=False, name="fc")
    subject = ask(mx.sym.softmax(mx.sym.Flatten(mx.sym.slice_axis(scores, axis=1, begin=0, end=1, name="kept"))))
    assert (subject.kind, subject.report.position) == ("tokens", None)
    assert subject.sentence.endswith("3 values for each, of which those of [CLS], position 0, are kept")
    check(subject, subject.report)


def test_a_decoder_may_share_its_weight_with_the_word_embedding() -> None:
    net = NETS["ours"]()
    words = net.sequence.get_internals()["bertmodel0_word_embed_embedding0_weight"]
    scores = mx.sym.FullyConnected(
        net.sequence, weight=words, num_hidden=CONFIG.vocab_size, flatten=False, no_bias=True, name="decoder"
    )
    subject = ask(scores)
    assert (subject.kind, subject.report.num_outputs) == ("tokens", CONFIG.vocab_size)
    check(subject, subject.report)


# How a classifier may end

ENDS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda scores: scores,
    "softmax": lambda scores: mx.sym.softmax(scores, axis=-1),
    "SoftmaxOutput": lambda scores: mx.sym.SoftmaxOutput(scores, name="softmax"),
    "log_softmax": lambda scores: mx.sym.log_softmax(scores),
    "sigmoid": lambda scores: mx.sym.sigmoid(scores),
    "Activation": lambda scores: mx.sym.Activation(scores, act_type="sigmoid"),
    "tanh": lambda scores: mx.sym.Activation(scores, act_type="tanh"),
    "LinearRegressionOutput": lambda scores: mx.sym.LinearRegressionOutput(scores, name="linear"),
    "LogisticRegressionOutput": lambda scores: mx.sym.LogisticRegressionOutput(scores, name="logistic"),
    "MAERegressionOutput": lambda scores: mx.sym.MAERegressionOutput(scores, name="mae"),
    "SVMOutput": lambda scores: mx.sym.SVMOutput(scores, name="svm"),
    "a scale": lambda scores: mx.sym.cast(scores * 2 + 1, dtype="float32"),
    "a bias of its own": lambda scores: mx.sym.broadcast_add(scores, mx.sym.var("extra_bias", shape=(1, 3))),
}


@pytest.mark.parametrize("end", ENDS)
def test_losses_and_functions_after_the_classifier_are_not_the_classifier(end: str) -> None:
    scores = mx.sym.FullyConnected(mx.sym.Dropout(first(NETS["ours"]())), num_hidden=3, name="fc")
    subject = ask(ENDS[end](scores))
    assert (subject.kind, subject.classifier, subject.report.num_outputs) == ("cls", "fc", 3)
    check(subject, subject.report)


def test_each_of_several_outputs_has_its_report() -> None:
    net = NETS["ours"]()
    mean = mx.sym.mean(net.sequence, axis=1, name="mean")
    subject = ask(mx.sym.Group([classified(first(net)), net.sequence, mean]))
    assert [(report.kind.value, report.classifier and report.classifier.name) for report in subject.reports] == [
        ("cls", "fc"),
        ("sequence", None),
        ("mean", None),
    ]
    assert classifier_sentence(subject.reports[1]).startswith("no head: ends in `")
    for report in subject.reports:
        check(subject, report)


# Unsupported subgraphs must not be reported wrongly

OTHERS: dict[str, Head] = {
    "concat of [CLS] and mean": lambda net: mx.sym.concat(first(net), mx.sym.mean(net.sequence, axis=1), dim=1),
    "sum of [CLS] and mean": lambda net: first(net) + mx.sym.mean(net.sequence, axis=1),
    "the first tokens of two layers": lambda net: mx.sym.concat(
        first(net), mx.sym.Flatten(mx.sym.slice_axis(net.layers[0], axis=1, begin=0, end=1)), dim=1
    ),
    "[CLS] plus an inner layer": lambda net: mx.sym.elemwise_add(first(net), mx.sym.mean(net.layers[0], axis=1)),
    "attention": lambda net: mx.sym.sum(
        mx.sym.broadcast_mul(
            net.sequence,
            mx.sym.softmax(mx.sym.FullyConnected(net.sequence, num_hidden=1, flatten=False, name="a"), axis=1),
        ),
        axis=1,
    ),
    "softmax over the tokens, then the first": lambda net: mx.sym.slice_axis(
        mx.sym.softmax(net.sequence, axis=1), axis=1, begin=0, end=1
    ),
    "normalised over the tokens, then the first": lambda net: mx.sym.slice_axis(
        mx.sym.LayerNorm(net.sequence, mx.sym.ones((LENGTH,)), mx.sym.zeros((LENGTH,)), axis=1), axis=1, begin=0, end=1
    ),
    "L2 over the text, then the first": lambda net: mx.sym.slice_axis(
        mx.sym.L2Normalization(net.sequence, mode="instance"), axis=1, begin=0, end=1
    ),
    "a softmax over the text, then the first": lambda net: mx.sym.slice_axis(
        mx.sym.SoftmaxActivation(net.sequence), axis=1, begin=0, end=1
    ),
    "axes that are not exchanged but renamed": lambda net: mx.sym.slice_axis(
        mx.sym.reshape(net.sequence, shape=(0, UNITS, -1)), axis=2, begin=0, end=1
    ),
    "the first row of exchanged axes": lambda net: mx.sym.slice_axis(
        mx.sym.reshape(mx.sym.reshape(mx.sym.transpose(net.sequence, axes=(0, 2, 1)), shape=(0, -1)), shape=(0, -1, 4)),
        axis=1,
        begin=0,
        end=1,
    ),
    "the sum of a mask of one token": lambda net: mx.sym.sum(
        mx.sym.SequenceMask(net.sequence, mx.sym.ones_like(net.valid_length), use_sequence_length=True, axis=1), axis=1
    ),
    "the sum of one hot": lambda net: mx.sym.sum(
        mx.sym.broadcast_mul(
            net.sequence,
            mx.sym.expand_dims(mx.sym.one_hot(mx.sym.zeros_like(net.valid_length), depth=LENGTH), axis=2),
        ),
        axis=1,
    ),
    "SequenceLast at 1": lambda net: mx.sym.SequenceLast(
        mx.sym.swapaxes(net.sequence, dim1=0, dim2=1), mx.sym.ones_like(net.valid_length), use_sequence_length=True
    ),
    "reversed, then the first": lambda net: mx.sym.slice_axis(
        mx.sym.reverse(net.sequence, axis=1), axis=1, begin=0, end=1
    ),
    "every second token": lambda net: mx.sym.slice(
        net.sequence, begin=(None, 0, None), end=(None, None, None), step=(1, 2, 1)
    ),
    "the shape of the sequence": lambda net: mx.sym.broadcast_like(
        mx.sym.reshape(net.valid_length, shape=(-1, 1, 1)), net.sequence, lhs_axes=(2,), rhs_axes=(2,)
    ),
    "[CLS] plus the words themselves": lambda net: mx.sym.elemwise_add(
        first(net),
        mx.sym.mean(mx.sym.Embedding(net.token_ids, input_dim=CONFIG.vocab_size, output_dim=UNITS, name="bag"), axis=1),
    ),
    "broadcast by another tensor": lambda net: mx.sym.broadcast_add(
        mx.sym.slice_axis(net.sequence, axis=1, begin=0, end=1), mx.sym.expand_dims(net.token_ids, axis=2)
    ),
    "two tokens a row": lambda net: mx.sym.reshape(net.sequence, shape=(-1, 2 * UNITS)),
    "time first, flattened": lambda net: mx.sym.swapaxes(net.sequence, dim1=0, dim2=1),
    "take of the batch": lambda net: mx.sym.take(net.sequence, mx.sym.zeros((2,)), axis=0),
    "gather_nd": lambda net: mx.sym.gather_nd(net.sequence, mx.sym.zeros((2, 2))),
}
FOLLOWED_ALL_THE_SAME = {"the shape of the sequence": "not_the_encoder"}


@pytest.mark.parametrize("way", OTHERS)
def test_an_untraceable_output_is_reported_as_unknown(way: str) -> None:
    subject = ask(classified(OTHERS[way](NETS["ours"]())))
    assert subject.kind in ("unknown", FOLLOWED_ALL_THE_SAME.get(way))
    assert subject.kind != "unknown" or subject.report.position is None
    check(subject, subject.report, exact=False)


def test_one_token_combined_with_a_function_of_itself_is_still_that_token() -> None:
    token = first(NETS["ours"]())
    gate = mx.sym.sigmoid(mx.sym.FullyConnected(token, num_hidden=UNITS, name="gate"))
    subject = ask(classified(mx.sym.elemwise_mul(token, gate)))
    assert subject.kind == "cls"
    assert f"a combination of sigmoid of Dense({UNITS}) of [CLS], position 0" in subject.sentence
    check(subject, subject.report)


@pytest.mark.parametrize("scale", ["scale_weight", "scale"])
def test_one_token_scaled_by_a_parameter_is_still_that_token(scale: str) -> None:
    token = mx.sym.slice_axis(NETS["ours"]().sequence, axis=1, begin=0, end=1)
    wide = {scale: np.ones((1, 1, UNITS), np.float32)}
    head = classified(mx.sym.broadcast_mul(token, mx.sym.var(scale)))
    assert ask(head, wide).kind == "cls"
    # As a constant that spreads it over the length, it is none.
    assert ask(head, {scale: np.ones((1, LENGTH, 1), np.float32)}).kind == "unknown"


def test_the_sum_of_two_classifiers_is_not_reported_as_one_classifier() -> None:
    net = NETS["ours"]()
    one = mx.sym.FullyConnected(first(net), num_hidden=3, name="one")
    other = mx.sym.FullyConnected(mx.sym.mean(net.sequence, axis=1), num_hidden=3, name="other")
    assert ask(mx.sym.softmax(one + other)).kind == "unknown"


def test_an_inner_layer_is_recognised_as_part_of_the_encoder() -> None:
    net = NETS["ours"]()
    report = ask(mx.sym.Group([classified(mx.sym.mean(net.layers[0], axis=1)), net.sequence])).reports[0]
    assert report.kind.value == "unknown"
    assert classifier_sentence(report).endswith(
        "computed from the embeddings or an inner layer, not from the encoder's output"
    )


def test_a_classifier_of_something_else_reads_nothing_of_the_encoder() -> None:
    net = NETS["ours"]()
    subject = ask(mx.sym.Group([net.sequence, classified(count(net))]))
    report = subject.reports[1]
    assert report.kind.value == "not_the_encoder"
    assert classifier_sentence(report).endswith(", which does not come from the encoder")
    check(subject, report)
