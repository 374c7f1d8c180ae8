"""Tagging from labels to answers: fine-tune, evaluate, predict, resume, and what can't be read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Once, Result, Tables
from headed import write_headed
from runs import Recorder
from seqeval.metrics import f1_score
from tagged import OPTIONS, conll, sentences, write_tagger

import bertsym
from bertsym import (
    EvaluateOptions,
    ModelError,
    Tagger,
    TaskOptions,
    UsageError,
    evaluate,
    export,
    finetune,
    load,
)
from bertsym.bundle import TRAIN_SYMBOL, Bundle
from bertsym.mxnet_runtime import mx

Cli = Callable[..., Result]
QUICK = dataclasses.replace(OPTIONS, epochs=1, learning_rate=2e-3, dropout=0.0)


@pytest.fixture(scope="module")
def tagger(bundles: dict[str, Path], once: Once) -> Path:
    """Prefix of a tagger that has learned the toy task, beside its files."""
    return once("tagger", lambda folder: write_tagger(bundles["sequence"], folder)) / "tagger"


@pytest.fixture(scope="module")
def tagged(tagger: Path) -> Tables:
    return Tables(tagger.parent / "train.conll", tagger.parent / "dev.conll")


def test_the_tagger_learns_the_training_file(tagger: Path, tagged: Tables) -> None:
    result = evaluate(tagger, tagged.dev)
    assert list(result.metrics) == ["f1", "precision", "recall", "accuracy", "loss"]
    assert result.metrics["f1"] > 0.8
    assert result.rows == 30


def test_metrics_are_those_of_the_predictions(tagger: Path, tagged: Tables) -> None:
    made = sentences(30, 1)
    predictions = Tagger(tagger).predict([words for words, _ in made])
    predicted = [[tag or "O" for tag in prediction.tags] for prediction in predictions]
    assert evaluate(tagger, tagged.dev).metrics["f1"] == pytest.approx(f1_score([tags for _, tags in made], predicted))
    losses = [
        -np.log(probability)
        for prediction, (_, tags) in zip(predictions, made)
        for tag, right, probability in zip(prediction.tags, tags, prediction.probabilities)
        if tag == right and probability is not None
    ]
    assert np.sum(losses) <= evaluate(tagger, tagged.dev).metrics["loss"] * sum(len(tags) for _, tags in made)


def test_words_have_tags_and_entities_have_places(tagger: Path) -> None:
    text = "the cats sat in  the red park."
    (prediction,) = Tagger(tagger).predict([text])
    assert prediction.tokens == ["the", "cats", "sat", "in", "the", "red", "park", "."]
    assert [text[start:end] for start, end in prediction.offsets] == prediction.tokens
    assert prediction.tags == ["O", "B-ANIMAL", "O", "O", "O", "B-PLACE", "I-PLACE", "O"]
    animal, place = prediction.entities
    assert (animal.type, animal.start, animal.end, animal.text) == ("ANIMAL", 4, 8, "cats")
    assert (place.type, place.text) == ("PLACE", "red park")
    assert place.score == pytest.approx(np.mean([p for p in prediction.probabilities[5:7] if p is not None]))
    assert prediction.cells() == ["O B-ANIMAL O O O B-PLACE I-PLACE O", "ANIMAL:4-8 PLACE:21-29"]
    assert isinstance(load(tagger), Tagger)


def test_a_list_of_words_has_a_tag_for_each(tagger: Path) -> None:
    words = ["the", "cats", "sat", "in", "the", "red", "park", "."]
    (split,), (text,) = Tagger(tagger).predict([words]), Tagger(tagger).predict([" ".join(words)])
    assert split == text
    with pytest.raises(bertsym.DataError, match="text 1 of 1 is empty, or has an empty word"):
        Tagger(tagger).predict([["a", " "]])


@pytest.mark.parametrize("kind", ["conll", "jsonl", "lines"])
def test_predict_prints_tags_for_files_of_each_format(cli: Cli, tagger: Path, tmp_path: Path, kind: str) -> None:
    made = sentences(5, 1)
    path = tmp_path / f"texts.{kind}"
    records = [json.dumps({"tokens": words, "tags": tags}) for words, tags in made]
    texts = {
        "conll": conll(made),
        "jsonl": "\n".join(records),
        "lines": "\n".join(" ".join(words) for words, _ in made),
    }
    path.write_text(texts[kind])
    printed = cli(
        "predict", tagger, path, *(["--format", "lines"] if kind == "lines" else []), "--output-format", "jsonl"
    )
    assert printed.code == 0, printed.err
    expected = [prediction.to_json() for prediction in Tagger(tagger).predict([words for words, _ in made])]
    assert [json.loads(line)["tags"] for line in printed.out.splitlines()] == [each["tags"] for each in expected]
    tsv = cli("predict", tagger, path, *(["--format", "lines"] if kind == "lines" else []))
    assert tsv.out.splitlines()[0] == "tags\tentities"
    assert [line.split("\t")[0].split() for line in tsv.out.splitlines()[1:]] == [each["tags"] for each in expected]


def test_predicted_json_lines_can_be_evaluated(cli: Cli, tagger: Path, tmp_path: Path) -> None:
    path = tmp_path / "dev.conll"
    path.write_text(conll(sentences(5, 1)))
    out = cli("predict", tagger, path, "--output-format", "jsonl").out
    (tmp_path / "predicted.jsonl").write_text(out)
    assert evaluate(tagger, tmp_path / "predicted.jsonl").metrics["accuracy"] == 1


# Windows


def test_words_beyond_the_length_have_no_tag_without_a_stride(cli: Cli, tagger: Path, tmp_path: Path) -> None:
    words = ["the", "cat", "sat"] * 20
    path = tmp_path / "long.conll"
    path.write_text("".join(f"{word}\t{'B-ANIMAL' if word == 'cat' else 'O'}\n" for word in words))
    (short,) = Tagger(tagger).predict([words])
    assert short.truncated
    assert short.tags[22:] == [None] * 38
    assert short.cells()[0].endswith(" _" * 38)
    result = cli("evaluate", tagger, path)
    assert f"warning: {path}: 38 words have no token and no tag; --stride reads long sentences in windows" in result.err
    (long,) = Tagger(tagger, stride=8).predict([words])
    assert not long.truncated
    assert None not in long.tags
    assert long.tags[:16] == short.tags[:16]
    assert evaluate(tagger, path).metrics["recall"] < 0.5
    options = EvaluateOptions(task_options=TaskOptions(stride=8))
    assert evaluate(tagger, path, options).metrics["recall"] > 0.8


def test_a_window_has_the_tags_of_its_tokens(tagger: Path) -> None:
    """Windows of 22 tokens that overlap by 10 begin at the tokens 0, 12, 24 and 36."""
    rng = np.random.default_rng(3)
    words = [str(word) for word in rng.choice(["the", "cat", "red", "park", "dog"], 50)]
    (found,) = Tagger(tagger, stride=10).predict([words])
    windows = Tagger(tagger).predict([words[start : start + 22] for start in (0, 12, 24, 36)])
    # Token 16 is 16 from the start of the first window and 5 from its end, and 4 from the start of the second.
    for place, window, start in ((0, 0, 0), (16, 0, 0), (17, 1, 12), (28, 1, 12), (29, 2, 24), (49, 3, 36)):
        assert found.tags[place] == windows[window].tags[place - start]
        assert found.probabilities[place] == pytest.approx(windows[window].probabilities[place - start], abs=1e-5)


def test_a_stride_and_a_scheme_are_kept_in_the_signature(
    bundles: dict[str, Path], tagged: Tables, tmp_path: Path
) -> None:
    task_options = TaskOptions(scheme="IOB2", stride=4)
    options = dataclasses.replace(QUICK, task_options=task_options, max_length=12)
    finetune(bundles["sequence"], tagged.train, tagged.dev, tmp_path / "x", options=options)
    signature = Bundle.open(tmp_path / "x").signature
    assert signature.task_settings["scheme"] == "IOB2"
    assert signature.task_settings["stride"] == 4
    assert signature.class_names == ("O", "B-ANIMAL", "B-PLACE", "I-PLACE")
    assert signature.output_shape == ("batch", "length", 4)
    (prediction,) = Tagger(tmp_path / "x").predict([["the", "cat"] * 30])
    assert None not in prediction.tags


# Training


def trained(prefix: Path) -> dict[str, Any]:
    return dict(Bundle.open(prefix).params())


def test_the_loss_is_the_mean_over_the_labelled_words_of_a_batch(
    without_dropout: Path, tagged: Tables, tmp_path: Path
) -> None:
    recorder = Recorder()
    options = dataclasses.replace(QUICK, batch_size=160, learning_rate=1e-12)
    finetune(without_dropout, tagged.train, tagged.dev, tmp_path / "x", options=options, on_event=recorder)
    ((_, loss),) = recorder.steps
    assert loss == pytest.approx(evaluate(tmp_path / "x", tagged.train).metrics["loss"], rel=1e-5)


def test_a_frozen_encoder_keeps_its_parameters(bundles: dict[str, Path], tagged: Tables, tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, freeze_encoder=True, learning_rate=1e-2)
    result = finetune(bundles["sequence"], tagged.train, tagged.dev, tmp_path / "x", options=options)
    found, base = trained(tmp_path / "x"), trained(bundles["sequence"])
    assert all(np.array_equal(found[name], base[name]) for name in base)
    assert evaluate(tmp_path / "x", tagged.dev).metrics == pytest.approx(result.kept.metrics, abs=1e-5)


def test_the_training_symbol_ignores_tokens_without_a_label(tagger: Path) -> None:
    bundle = Bundle.open(tagger)
    symbol = mx.sym.load_json(bundle.graph(TRAIN_SYMBOL).to_json())
    shapes = {"data0": (1, 6), "data1": (1, 6), "data2": (1,), "softmax_label": (1, 6)}
    wanted = {name: "write" if name.startswith("fc-") else "null" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(mx.cpu(), grad_req=wanted, **shapes)
    executor.copy_params_from({name: mx.nd.array(array) for name, array in bundle.params().items()})
    inputs = {"data0": [[3, 6, 8, 9, 10, 4]], "data1": [[0] * 6], "data2": [6]}
    gradients = []
    for labels in ([-1] * 6, [-1, 1, -1, -1, -1, -1], [-1, 1, 2, -1, -1, -1]):
        executor.forward(
            is_train=False, softmax_label=mx.nd.array([labels]), **{k: mx.nd.array(v) for k, v in inputs.items()}
        )
        executor.backward()
        gradients.append(executor.grad_dict["fc-finetune_bias"].asnumpy())
    assert not gradients[0].any()
    assert np.abs(gradients[1].sum()) < 1e-5
    assert np.abs(gradients[1]).sum() > 1e-4
    assert not np.array_equal(gradients[1], gradients[2])


# Tags that are not those of entities


def test_parts_of_speech_have_an_accuracy_alone(bundles: dict[str, Path], tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("dev", 1)):
        made = [(words, ["NOUN" if tag != "O" else "X" for tag in tags]) for words, tags in sentences(30, seed)]
        (tmp_path / f"{name}.conll").write_text(conll(made))
    result = finetune(
        bundles["sequence"], tmp_path / "train.conll", tmp_path / "dev.conll", tmp_path / "x", options=QUICK
    )
    assert list(result.kept.metrics) == ["accuracy", "loss"]
    (prediction,) = Tagger(tmp_path / "x").predict(["the cat sat"])
    assert prediction.entities == []


# What can't be read


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("cat\tB-FISH\n", [], "line 1: tag 'B-FISH' is not one of the tags O, B-ANIMAL, B-PLACE, I-PLACE"),
        ("the\tO\ncat\n", [], "line 2: 1 column, expected 2"),
        ("the\tO\npark\tI-PLACE\n", ["--scheme", "IOB2"], "line 2: the tag 'I-PLACE' after 'O' is invalid"),
        ("red\tB-PLACE\npark\tI-PLACE\n", ["--scheme", "IOBES"], "line 2: the last tag 'I-PLACE' leaves"),
        ("the\tO\n", ["--label-column", "2"], "tagging reads sentences, not tables"),
        ("the\tO\n", ["--format", "csv"], "tagging reads conll, jsonl, lines"),
        ("\n\n", [], "no sentences"),
        ("\u200d\tO\n", [], "line 1: a sentence without tokens"),
    ],
)  # fmt: skip
def test_a_file_that_can_t_be_evaluated(
    cli: Cli, tagger: Path, tmp_path: Path, text: str, options: list[str], message: str
) -> None:
    path = tmp_path / "t.conll"
    path.write_text(text)
    result = cli("evaluate", tagger, path, *options)
    assert result.code in (1, 2)
    assert message in result.error_line


def test_a_bad_sentence_is_left_out_on_request(cli: Cli, tagger: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.conll"
    path.write_text("cat\tB-FISH\n\ncat\tB-ANIMAL\n\nthe\n")
    result = cli("evaluate", tagger, path, "--on-error", "skip", "--json")
    assert json.loads(result.out)["rows"] == 1
    assert json.loads(result.out)["left_out"] == 2


def test_files_and_options_of_other_tasks_are_refused(
    cli: Cli, tagger: Path, classifier: Path, tables: Tables, tagged: Tables, tmp_path: Path
) -> None:
    assert "line 2: the tag 'tree" in cli("evaluate", tagger, tables.dev).error_line
    assert "not the format of a table" in cli("evaluate", classifier, tables.dev, "--format", "conll").error_line
    found = cli("evaluate", classifier, tables.dev, "--scheme", "IOB2").error_line
    assert "--scheme IOB2 has no effect for the task classification: omit it" in found
    with pytest.raises(ModelError, match="is not a tagger, its task is classification"):
        Tagger(classifier)
    with pytest.raises(UsageError, match="tagging takes single texts: omit the second text"):
        Tagger(tagger).predict_texts(["a"], ["b"])
    with pytest.raises(UsageError, match="stride must be 0 or more, not -1"):
        Tagger(tagger, stride=-1)


# Heads that were trained elsewhere


def test_an_exported_tagger_predicts(tmp_path: Path) -> None:
    labels = {"0": "O", "1": "B-PER", "2": "I-PER"}
    folder = write_headed(tmp_path / "hf", "tagging", id2label=labels)
    export(f"hf:{folder}", tmp_path / "x")
    (prediction,) = Tagger(tmp_path / "x").predict(["the cats sat."])
    assert len(prediction.tags) == 4
    assert set(prediction.tags) <= set(labels.values())
