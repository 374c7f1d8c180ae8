"""Symbols of other programs as bundles: with a tokenizer and class names, predict prints what mxnet computes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import computed
from conftest import VOCABULARY, Result
from refusals import refusal
from symbol_values import SYMBOLS
from test_lower_third_party import exactly
from third_party import CONFIG, random_weight, save, some_graph

from bertsym import (
    Bundle,
    BundleOptions,
    Edits,
    NewHead,
    ParamsFile,
    SymbolGraph,
    edit,
    extract,
    graft_head,
    load,
    lower,
)
from bertsym.array import Array
from bertsym.encoders.parameters import parameter_shapes
from bertsym.mxnet_runtime import mx

Cli = Callable[..., Result]
Head = Callable[[Any], Any]
TEXT, PAIR = "the cat sat on the old mat .", "a bird flew"
SMALL = dataclasses.replace(CONFIG, vocab_size=len(VOCABULARY))
LABELS = ("no", "yes", "never")


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


@pytest.fixture
def vocab50(tmp_path: Path) -> Path:
    """For the symbols of GluonNLP in tests/symbols."""
    path = tmp_path / "vocab50.txt"
    path.write_text("\n".join(VOCABULARY[:50]) + "\n")
    return path


def save_head(folder: Path, output: str, head: Head, form: str = "portable") -> Path:
    """PREFIX of an encoder that ends in `output`, with a head of mxnet's operators, as Module saves them."""
    symbol = head(mx.sym.load_json(some_graph(output, form, SMALL).to_json()))
    shapes, _, _ = symbol.infer_shape(data0=(2, 8), data1=(2, 8), data2=(2,))
    params = {
        name: mx.nd.array(random_weight(name, shape))
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name in parameter_shapes(SMALL) or name.startswith("last") or name.startswith("first")
    }
    folder.mkdir(parents=True, exist_ok=True)
    mx.model.save_checkpoint(str(folder / "old"), 0, symbol, params, {})
    return folder / "old"


def dense(data: Any, outputs: int = 3, **settings: Any) -> Any:
    return mx.sym.FullyConnected(data, num_hidden=outputs, name="last", **settings)


def inputs_for(bundle: Path, text: str, pair: str | None = None, pad_to: int | None = None) -> dict[str, Array]:
    """The inputs of a text, by the role of GluonNLP's names."""
    signature = Bundle.open(bundle).signature
    (encoded,) = (
        Bundle.open(bundle)
        .tokenizer(signature.tokenizer, signature.max_length)
        .encode([text], None if pair is None else [pair])
    )
    padding = [0] * ((pad_to or len(encoded.token_ids)) - len(encoded.token_ids))
    arrays = ([encoded.token_ids + padding], [encoded.token_types + padding], [len(encoded.token_ids)])
    return {f"data{i}": np.array(array, np.float32) for i, array in enumerate(arrays)}


def opened(prefix: Path) -> Any:
    return load(prefix)


def softmax(values: Array) -> Array:
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


# --- what GluonNLP exported ---


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("gluonnlp-0.6.0/classifier", 8),
        ("gluonnlp-0.8.3/classifier", None),
        ("gluonnlp-0.8.3/classifier_no_length", None),
        ("gluonnlp-0.9.2/classifier", None),
        ("gluonnlp-0.10.0/classifier", None),
    ],
)
def test_an_exported_classifier_predicts_what_mxnet_computes(
    path: str, length: int | None, vocab50: Path, tmp_path: Path
) -> None:
    old, new = exactly(SYMBOLS / f"{path}-symbol.json", tmp_path / "of"), tmp_path / "new"
    written = lower(old, new, options=BundleOptions(vocab=vocab50, labels=LABELS))
    assert written.verified
    assert Bundle.open(new).signature.max_length == length or 24
    classifier = opened(new)
    for text, pair in ((TEXT[:20], None), ("the cat", PAIR)):
        inputs = inputs_for(new, text, pair, length)
        if "no_length" in path:
            del inputs["data2"]
        (answer,) = classifier.predict_texts([text], None if pair is None else [pair])
        (expected,) = softmax(computed(old, inputs)[0])
        assert list(answer.probabilities) == ["no", "yes", "never"]
        assert [*answer.probabilities.values()] == pytest.approx(expected.tolist(), abs=1e-6)


def test_two_lines_of_shell_make_an_old_classifier_predict(cli: Cli, vocab50: Path, tmp_path: Path) -> None:
    old, new = exactly(SYMBOLS / "gluonnlp-0.10.0/classifier-symbol.json", tmp_path / "of"), tmp_path / "new"
    assert cli("lower", old, new, "--vocab", vocab50, "--labels", "no,yes,never").code == 0
    line = cli("predict", new, "--text", TEXT)
    assert line.code == 0, line.err
    expected = softmax(computed(old, inputs_for(new, TEXT))[0])[0]
    header, row = line.out.splitlines()
    assert header == "label\tp(no)\tp(yes)\tp(never)"
    label = ("no", "yes", "never")[int(expected.argmax())]
    assert row.split("\t") == [label, *(f"{probability:.6f}" for probability in expected)]
    assert cli("verify", new).code == 0


@pytest.mark.parametrize("version", ["0.6.0", "0.10.0"])
def test_an_exported_regression_predicts_what_mxnet_computes(version: str, vocab50: Path, tmp_path: Path) -> None:
    old, new = exactly(SYMBOLS / f"gluonnlp-{version}/regression-symbol.json", tmp_path / "of"), tmp_path / "new"
    lower(old, new, options=BundleOptions(vocab=vocab50))
    (answer,) = opened(new).predict_texts(["the cat"])
    expected = computed(old, inputs_for(new, "the cat", pad_to=8))[0]
    assert answer.value == pytest.approx(expected.item(), rel=1e-5)


def test_an_exported_qa_model_answers_with_the_logits_of_mxnet(vocab50: Path, tmp_path: Path) -> None:
    old, new = exactly(SYMBOLS / "gluonnlp-0.9.2/qa-symbol.json", tmp_path / "of"), tmp_path / "new"
    lower(old, new, options=BundleOptions(vocab=vocab50))
    inputs = inputs_for(new, "is the cat", TEXT)
    assert np.allclose(computed(new, inputs)[0], computed(old, inputs)[0], atol=1e-5)
    assert opened(new).predict_texts(["is the cat"], [TEXT])[0].text in TEXT


@pytest.mark.parametrize("version", ["0.8.3", "0.9.2", "0.10.0"])
def test_a_pretraining_symbol_becomes_a_masked_language_model(
    cli: Cli, version: str, vocab50: Path, tmp_path: Path
) -> None:
    """Its decoder reads the tokens at masked positions, an input; the bundle gives the logits of every token."""
    old, new = exactly(SYMBOLS / f"gluonnlp-{version}/pretraining-symbol.json", tmp_path / "of"), tmp_path / "new"
    assert "select it with bertsym extract --output" in refusal(cli("lower", old, new, "--vocab", vocab50))
    result = cli("extract", old, new, "--output", "bertmodel0_dense1_fwd", "--vocab", vocab50)
    assert "data3, the masked positions, is left out" in result.err
    signature = Bundle.open(new).signature
    assert (signature.task, signature.output_shape) == ("masked_lm", ("batch", "length", 50))
    # What the version that wrote the symbol computed at the masked positions.
    recorded = json.loads((SYMBOLS / f"gluonnlp-{version}/expected.json").read_text())["pretraining"]
    inputs = {name: np.array(recorded["inputs"][name], np.float32) for name in ("data0", "data1", "data2")}
    (logits,) = computed(new, inputs)
    rows, positions = np.arange(2)[:, np.newaxis], np.array(recorded["inputs"]["data3"])
    assert np.allclose(logits[rows, positions], recorded["outputs"][3], atol=1e-4)
    assert "BertForMaskedLM, verified" in cli("hf", new, tmp_path / "hf").out
    assert cli("predict", new, "--text", "the [MASK] sat").code == 0


@pytest.mark.parametrize("completes", [False, True])
def test_parameters_in_float16_become_those_of_a_float32_bundle(
    cli: Cli, vocab50: Path, tmp_path: Path, completes: bool
) -> None:
    """MXNet computes no FullyConnected in float16 on a CPU: the result must be that of the same numbers in float32."""
    single = exactly(SYMBOLS / "gluonnlp-0.10.0/classifier-symbol.json", tmp_path / "of")
    rounded = {name: array.astype(np.float16) for name, array in ParamsFile(f"{single}-0000.params").items()}
    half = save(tmp_path / "half", SymbolGraph.load(f"{single}-symbol.json"), rounded)
    symbol = Path(f"{half}-symbol.json")
    symbol.write_text(symbol.read_text().replace('"__dtype__": "0"', '"__dtype__": "2"'))
    save(single, SymbolGraph.load(f"{single}-symbol.json"), {k: v.astype(np.float32) for k, v in rounded.items()})
    options = ("--vocab", vocab50, "--labels", "no,yes,never") if completes else ()
    results = [cli("lower", old, tmp_path / f"{old.name}-new", *options) for old in (half, single)]
    assert [result.code for result in results] == [0, 0], results[0].err
    assert "float16 parameters were converted to float32" in results[0].err
    for file in ("symbol.json", "0000.params"):
        made = [Path(f"{tmp_path / old.name}-new-{file}").read_bytes() for old in (half, single)]
        assert made[0] == made[1]
    edit_half = ("edit", half, tmp_path / "edited" / "x", "--dropout", "off", *options)
    assert "bertsym lower converts a BERT to float32" in refusal(cli(*edit_half), tmp_path / "edited")
    if completes:
        line = refusal(cli(*edit_half, "--no-verify"), tmp_path / "edited")
        assert "bertsym lower MODEL OUT, with these options, converts it" in line


def test_inputs_are_found_by_what_reads_them_and_not_by_their_names(vocab: Path, tmp_path: Path) -> None:
    old = save_head(tmp_path / "of", "pooled", lambda data: mx.sym.softmax(dense(data)))
    renamed = Edits(renames=(("data0", "valid"), ("data1", "words"), ("data2", "data0")))
    edit(old, tmp_path / "renamed", renamed)
    lower(tmp_path / "renamed", tmp_path / "new", options=BundleOptions(vocab=vocab, labels=LABELS))
    assert Bundle.open(tmp_path / "new").signature.input_names == ("data0", "data1", "data2")
    inputs = inputs_for(tmp_path / "new", TEXT)
    assert np.allclose(computed(tmp_path / "new", inputs)[0], computed(old, inputs)[0], atol=1e-6)


# --- heads of anybody ---


def two_layers(function: str) -> Head:
    def head(data: Any) -> Any:
        hidden = mx.sym.FullyConnected(data, num_hidden=SMALL.units, name="first")
        return mx.sym.SoftmaxOutput(dense(mx.sym.Dropout(mx.sym.Activation(hidden, act_type=function))), name="softmax")

    return head


def spans(data: Any) -> Any:
    halves = mx.sym.SliceChannel(dense(data, 2, flatten=False), axis=2, num_outputs=2, squeeze_axis=True)
    return mx.sym.Group([halves[0], halves[1]])


# name -> encoder output, head, kind of task, and what the bundle computes from the outputs of mxnet
HEADS: dict[str, tuple[str, Head, str, Callable[[list[Array]], Array]]] = {
    "SoftmaxOutput": (
        "cls",
        lambda data: mx.sym.SoftmaxOutput(dense(data), name="softmax"),
        "classification",
        lambda x: x[0],
    ),
    "softmax without a bias": (
        "mean",
        lambda data: mx.sym.softmax(dense(data, no_bias=True)),
        "classification",
        lambda x: x[0],
    ),
    "log_softmax": ("pooled", lambda data: mx.sym.log_softmax(dense(data)), "classification", lambda x: np.exp(x[0])),
    "logits": ("pooled", dense, "classification", lambda x: softmax(x[0])),
    "two layers, relu": ("cls", two_layers("relu"), "classification", lambda x: x[0]),
    "two layers, tanh, on the pooler": ("pooled", two_layers("tanh"), "classification", lambda x: x[0]),
    "LogisticRegressionOutput": (
        "pooled",
        lambda data: mx.sym.LogisticRegressionOutput(dense(data), name="logistic"),
        "multilabel",
        lambda x: x[0],
    ),
    "sigmoid": ("cls", lambda data: mx.sym.sigmoid(dense(data)), "multilabel", lambda x: x[0]),
    "LinearRegressionOutput": (
        "pooled",
        lambda data: mx.sym.LinearRegressionOutput(dense(data, 1), name="linear"),
        "regression",
        lambda x: x[0],
    ),
    "sigmoid of one value": (
        "pooled",
        lambda data: mx.sym.Activation(dense(data, 1), act_type="sigmoid"),
        "regression",
        lambda x: np.log(x[0] / (1 - x[0])),
    ),
    "softmax of tokens": (
        "sequence",
        lambda data: mx.sym.softmax(dense(data, flatten=False), axis=-1),
        "tagging",
        lambda x: x[0],
    ),
    "logits of tokens": ("sequence", lambda data: dense(data, flatten=False), "tagging", lambda x: softmax(x[0])),
    "start and end": ("sequence", spans, "qa", lambda x: np.stack(x, axis=-1)),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_shows_the_task_and_nothing_is_normalised_twice(name: str, vocab: Path, tmp_path: Path) -> None:
    output, head, task, expected = HEADS[name]
    old, new = save_head(tmp_path / "of", output, head), tmp_path / "new"
    labels = LABELS if task in ("classification", "multilabel", "tagging") else None
    written = lower(old, new, options=BundleOptions(vocab=vocab, labels=labels))
    assert written.verified
    assert Bundle.open(new).signature.task == task
    inputs = inputs_for(new, TEXT)
    ours, theirs = computed(new, inputs)[0], expected(computed(old, inputs))
    assert np.allclose(ours, theirs, atol=2e-5)
    assert opened(new).task.name == task


def test_a_head_on_all_tokens_at_once_keeps_its_length(vocab: Path, tmp_path: Path) -> None:
    old = save_head(tmp_path / "of", "sequence", lambda data: mx.sym.SoftmaxOutput(dense(data), name="softmax"))
    lower(old, tmp_path / "new", options=BundleOptions(vocab=vocab, labels=LABELS))
    signature = Bundle.open(tmp_path / "new").signature
    assert (signature.output, signature.length, signature.max_length) == ("sequence", 8, 8)
    (answer,) = opened(tmp_path / "new").predict_texts(["the cat"])
    (expected,) = computed(old, inputs_for(tmp_path / "new", "the cat", pad_to=8))[0]
    assert [*answer.probabilities.values()] == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_kind_of_task_can_be_given_where_the_head_allows_several(vocab: Path, tmp_path: Path) -> None:
    old = save_head(tmp_path / "of", "pooled", dense)
    lower(old, tmp_path / "new", options=BundleOptions(vocab=vocab, task="multilabel", labels=LABELS))
    inputs = inputs_for(tmp_path / "new", TEXT)
    logits = computed(old, inputs)[0]
    assert np.allclose(computed(tmp_path / "new", inputs)[0], 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_the_chosen_form_is_written(vocab: Path, tmp_path: Path) -> None:
    old = save_head(tmp_path / "of", "pooled", lambda data: mx.sym.SoftmaxOutput(dense(data), name="softmax"))
    options = BundleOptions(vocab=vocab, max_length=12, labels=LABELS)
    lower(old, tmp_path / "new", form="fast", target="1.9", guard=True, options=options)
    signature = Bundle.open(tmp_path / "new").signature
    assert (signature.form, signature.target_mxnet, signature.guarded) == ("fast", "1.9", True)
    assert signature.max_length == 12
    lower(old, tmp_path / "folded", fold=True, options=options)
    assert Bundle.open(tmp_path / "folded").is_folded


# --- the other commands ---


def test_the_encoder_of_an_old_classifier_becomes_a_base_for_finetune(vocab50: Path, tmp_path: Path) -> None:
    old = exactly(SYMBOLS / "gluonnlp-0.10.0/classifier-symbol.json", tmp_path / "of")
    extract(old, tmp_path / "pooled", ["pooled"], options=BundleOptions(vocab=vocab50))
    assert Bundle.open(tmp_path / "pooled").signature.output == "pooled"
    extract(old, tmp_path / "sequence", ["layer 1"], options=BundleOptions(vocab=vocab50))  # (T, N, U) in the graph
    assert Bundle.open(tmp_path / "sequence").signature.output_shape == ("batch", "length", 16)
    graft_head(
        tmp_path / "pooled",
        tmp_path / "untrained",
        NewHead(num_classes=3),
        options=BundleOptions(labels=LABELS),
    )
    signature = Bundle.open(tmp_path / "untrained").signature
    assert (signature.class_names, signature.trained) == (LABELS, False)


def test_grafting_onto_an_old_symbol_gives_a_bundle_with_its_training_symbol(vocab50: Path, tmp_path: Path) -> None:
    old = exactly(SYMBOLS / "gluonnlp-0.10.0/sequence-symbol.json", tmp_path / "of")
    head = NewHead("tagging", 3)
    written = graft_head(old, tmp_path / "new", head, options=BundleOptions(vocab=vocab50, labels=LABELS))
    assert isinstance(written.bundle, Bundle)
    assert written.bundle.signature.task == "tagging"
    assert not written.bundle.signature.trained
    symbol = mx.sym.load(f"{tmp_path / 'new'}-train-symbol.json")
    assert "softmax_label" in symbol.list_arguments()


def test_edit_gives_a_bundle_other_labels_or_another_tokenizer(classifier: Path, vocab: Path, tmp_path: Path) -> None:
    before = Bundle.open(classifier).signature
    labels = tuple(f"is {name}" for name in before.class_names)
    edited = edit(classifier, tmp_path / "new", Edits(), options=BundleOptions(labels=labels, lower_case=False))
    assert edited.changes == [f"set labels {', '.join(labels)}", "set lower_case False"]
    after = Bundle.open(tmp_path / "new").signature
    assert after.class_names == labels
    assert (after.tokenizer.lower_case, before.tokenizer.lower_case) == (False, True)
    document = json.loads(Bundle.open(tmp_path / "new").tokenizer_json() or "")
    assert document["normalizer"]["lowercase"] is False
    edit(tmp_path / "new", tmp_path / "again", Edits(), options=BundleOptions(tokenizer=f"{classifier}-tokenizer.json"))
    assert Bundle.open(tmp_path / "again").signature.tokenizer == before.tokenizer


# --- what is missing, or does not fit ---


def _double(data: Any) -> Any:
    return mx.sym.softmax(mx.sym.softmax(dense(data)))


REFUSED: dict[str, tuple[str, Head, str, int, str]] = {
    "labels of another number": (
        *("pooled", dense, "--vocab {vocab} --labels no,yes", 2),
        "--labels: 2 names (no, yes), but the head has 3 outputs: give 3 names, in the order of the outputs",
    ),
    "no labels": (
        *("pooled", dense, "--vocab {vocab}", 2),
        "its classification head has 3 outputs without names: give --labels with 3 names, in the order of the outputs",
    ),
    "no tokenizer": (
        *("pooled", dense, "--labels a,b,c", 2),
        "it has no tokenizer: give --vocab vocab.txt or --tokenizer tokenizer.json",
    ),
    "a vocabulary that is too small": (
        *("pooled", dense, "--vocab {small} --labels a,b,c", 1),
        f"{{small}}: 50 tokens, but the token embedding has {len(VOCABULARY)} rows; if the rows were padded on "
        "purpose, --pad-vocab names the rest [unused row N]",
    ),
    "a vocabulary that is too large": (
        *("pooled", dense, "--vocab {large} --labels a,b,c", 1),
        f"{{large}}: {len(VOCABULARY) + 1} tokens, but the token embedding has {len(VOCABULARY)} rows",
    ),
    "labels of a regression": (
        *("pooled", lambda data: mx.sym.LinearRegressionOutput(dense(data, 1)), "--vocab {vocab} --labels a", 2),
        "--labels a: regression has no classes: omit --labels",
    ),
    "a task that the head can't have": (
        *("pooled", lambda data: mx.sym.softmax(dense(data)), "--vocab {vocab} --labels a,b,c --task multilabel", 2),
        "--task multilabel: the head last has 3 softmax outputs; its task is classification",
    ),
    "softmax of softmax": (
        *("pooled", _double, "--vocab {vocab} --labels a,b,c", 1),
        "softmax0 (softmax): softmax follows it, but a bundle can have only one of the two",
    ),
    "a maximum length": (
        *("pooled", dense, "--vocab {vocab} --labels a,b,c --max-length 21", 2),
        "--max-length 21: the model takes 1 to 20 tokens",
    ),
    "a repeated label": (
        *("pooled", dense, "--vocab {vocab} --labels a,b,a", 2),
        "--labels: 'a' is repeated: each class needs a name of its own",
    ),
    "two tokenizers": (
        *("pooled", dense, "--vocab {vocab} --tokenizer {vocab}", 2),
        "give --vocab or --tokenizer, not both",
    ),
    "another function": (
        *("pooled", lambda data: mx.sym.softmax(dense(data) * 2), "--vocab {vocab} --labels a,b,c", 1),
        "(_mul_scalar) follows the last layer last, which a bundle does not support",
    ),
    "the maximum over the tokens": (
        *("sequence", lambda data: dense(mx.sym.max(data, axis=1)), "--vocab {vocab} --labels a,b,c", 1),
        "a head of a bundle reads the encoding of [CLS], the pooler, the mean over the valid tokens, or each token",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_or_does_not_fit_is_one_line(
    case: str, cli: Cli, vocab: Path, vocab50: Path, tmp_path: Path
) -> None:
    output, head, options, code, message = REFUSED[case]
    (tmp_path / "large.txt").write_text("\n".join([*VOCABULARY, "zebra"]) + "\n")
    files = {"vocab": vocab, "small": vocab50, "large": tmp_path / "large.txt"}
    with mx.name.NameManager():
        old = save_head(tmp_path / "of", output, head)
    result = cli("lower", old, tmp_path / "new" / "bundle", *options.format(**files).split())
    assert message.format(**files) in refusal(result, tmp_path / "new", code)


def test_a_fixed_length_without_valid_length_is_refused(cli: Cli, vocab50: Path, tmp_path: Path) -> None:
    old = exactly(SYMBOLS / "gluonnlp-0.6.0/sequence_no_length-symbol.json", tmp_path / "of")
    line = refusal(cli("lower", old, tmp_path / "new", "--vocab", vocab50))
    assert "takes exactly 8 tokens and no valid_length: its outputs depend on the padding" in line


def test_predict_names_the_options_that_a_symbol_needs(cli: Cli, tmp_path: Path) -> None:
    old = exactly(SYMBOLS / "gluonnlp-0.10.0/classifier-symbol.json", tmp_path / "of")
    lower(old, tmp_path / "new")
    line = refusal(cli("predict", tmp_path / "new", "--text", TEXT))
    assert f"bertsym lower {tmp_path / 'new'} OUT --vocab FILE --labels NAMES" in line


def test_labels_are_read_from_a_file(cli: Cli, vocab: Path, tmp_path: Path) -> None:
    old = save_head(tmp_path / "of", "pooled", dense)
    (tmp_path / "labels.txt").write_text("no, never\nyes\nperhaps\n")
    result = cli("lower", old, tmp_path / "new", "--vocab", vocab, "--labels", f"@{tmp_path / 'labels.txt'}")
    assert result.code == 0, result.err
    assert Bundle.open(tmp_path / "new").signature.class_names == ("no, never", "yes", "perhaps")
    line = refusal(
        cli("lower", old, tmp_path / "x" / "y", "--vocab", vocab, "--labels", "@nowhere.txt"), tmp_path / "x"
    )
    assert "nowhere.txt: No such file or directory" in line
