"""A trained task head is never replaced with an untrained one unless that was asked for, and never called exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, VOCABULARY, Result, hugging_face_weights, write_hugging_face
from gluonnlp_models import bert_model
from refusals import refusal

from bertsym import Bundle
from bertsym.mxnet_runtime import mx, nlp

Cli = Callable[..., Result]


def write_fine_tuned(folder: Path, *names: str, **config: object) -> Path:
    """A folder of the tiny BERT with further weights `names`, as BertForSequenceClassification and others save it."""
    weights = {f"bert.{name}": array for name, array in hugging_face_weights().items()}
    weights.update({name: np.ones((3, 32) if name.endswith("weight") else 3, np.float32) for name in names})
    return write_hugging_face(folder, weights, **config)


@pytest.mark.parametrize("head", ["classifier", "qa_outputs", "score"])
@pytest.mark.parametrize("task", ["classification", "qa"])
def test_a_task_on_a_trained_head_is_refused_with_both_ways_out(cli: Cli, tmp_path: Path, head: str, task: str) -> None:
    folder = write_fine_tuned(tmp_path / "hf", f"{head}.weight", f"{head}.bias")
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out" / "x", "--task", task), tmp_path / "out", code=2)
    assert f"has a trained task head, {head}.bias, {head}.weight, " in line
    assert f"--task {task} would replace with an untrained one" in line
    assert "--new-head" in line
    assert "without --task" in line


def test_a_new_head_replaces_a_trained_one_on_request_and_is_untrained(cli: Cli, tmp_path: Path) -> None:
    folder = write_fine_tuned(tmp_path / "hf", "classifier.weight", "classifier.bias")
    options = ("--task", "classification", "--new-head")
    result = cli("export", f"hf:{folder}", tmp_path / "x", *options)
    assert result.code == 0, result.err
    assert "not exported: task head classifier.bias, classifier.weight; the new head is untrained\n" in result.out
    bundle = Bundle.open(tmp_path / "x")
    assert bundle.signature.trained is False
    assert bundle.manifest["source"]["not_exported"] == {"task head": ["classifier.bias", "classifier.weight"]}


def test_a_head_that_is_ignored_by_a_pattern_is_still_a_trained_one(cli: Cli, tmp_path: Path) -> None:
    folder = write_fine_tuned(tmp_path / "hf", "classifier.weight", "crf.weight")
    arguments = ("--task", "classification", "--ignore-weights", "c*.weight")
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out" / "x", *arguments), tmp_path / "out", code=2)
    assert "has a trained task head, classifier.weight, " in line


@pytest.mark.parametrize("options", [(), ("--new-head",)])
def test_pretraining_heads_are_not_task_heads(cli: Cli, tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = write_fine_tuned(tmp_path / "hf", "cls.predictions.bias", "cls.seq_relationship.weight")
    result = cli("export", f"hf:{folder}", tmp_path / "x", "--task", "classification", "--no-verify", *options)
    assert result.code == 0, result.err
    assert "not exported: pretraining heads cls.predictions.bias, cls.seq_relationship.weight\n" in result.out
    assert Bundle.open(tmp_path / "x").signature.trained is False


def test_a_new_head_needs_a_task(cli: Cli, tiny_hf: Path, tmp_path: Path) -> None:
    line = refusal(cli("export", f"hf:{tiny_hf}", tmp_path / "out" / "x", "--new-head"), tmp_path / "out", code=2)
    assert "--new-head needs --task" in line


def test_the_settings_of_a_head_are_listed_with_it(cli: Cli, tmp_path: Path) -> None:
    settings = {"id2label": {"0": "neg\x1b", "1": "pos"}, "problem_type": "single_label_classification"}
    folder = write_fine_tuned(tmp_path / "hf", "classifier.weight", **settings)
    result = cli("export", f"hf:{folder}", tmp_path / "x", "--headless", "--no-verify")
    assert result.code == 0, result.err
    listed = "id2label 0 'neg\\x1b', 1 'pos'; problem_type single_label_classification"
    assert f"not exported: task head classifier.weight (with {listed}); this bundle is the encoder alone" in result.out


def test_class_names_without_a_head_are_not_noted(cli: Cli, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", id2label={"0": "neg", "1": "pos"})
    result = cli("export", f"hf:{folder}", tmp_path / "x", "--no-verify")
    assert "id2label" not in result.out


# Parameters of GluonNLP


def gluonnlp_classifier() -> Any:
    net = nlp.model.BERTClassifier(bert_model(CONFIG, hugging_face_weights()), num_classes=3, dropout=0.1)
    net.classifier.initialize()
    ones = mx.nd.ones((1, 4))
    net(ones, ones * 0, mx.nd.array([4]))
    return net


def wrapped() -> Any:
    """A network as people write it: a BERTModel as ``bert`` and a Dense as ``classifier``."""
    net = mx.gluon.nn.HybridBlock()
    net.bert = bert_model(CONFIG, hugging_face_weights(), heads=True)
    net.classifier = mx.gluon.nn.Dense(3, in_units=32)
    net.classifier.initialize()
    return net


@pytest.mark.parametrize(
    ("make", "head"),
    [(gluonnlp_classifier, "classifier.1.weight, classifier.1.bias"), (wrapped, "classifier.weight, classifier.bias")],
)
def test_the_head_beside_a_bert_in_a_params_file_is_a_trained_one(
    cli: Cli, tmp_path: Path, make: Callable[[], Any], head: str
) -> None:
    params, vocab = tmp_path / "net.params", tmp_path / "vocab.txt"
    make().save_parameters(str(params))
    vocab.write_text("\n".join(VOCABULARY) + "\n")
    arguments = ("--vocab", vocab, "--num-heads", 4, "--task", "classification")
    line = refusal(cli("export", f"params:{params}", tmp_path / "out" / "x", *arguments), tmp_path / "out", code=2)
    assert f"has a trained task head, {head}, which --task classification would replace" in line
    assert cli("export", f"params:{params}", tmp_path / "x", *arguments, "--new-head", "--no-verify").code == 0


def test_the_head_that_finetune_makes_is_a_trained_one(cli: Cli, tmp_path: Path) -> None:
    arrays = {name: array.data() for name, array in bert_model(CONFIG, hugging_face_weights()).collect_params().items()}
    params, vocab = tmp_path / "net-0003.params", tmp_path / "vocab.txt"
    mx.nd.save(str(params), {**arrays, "fc-finetune_weight": mx.nd.ones((3, 32)), "fc-finetune_bias": mx.nd.ones(3)})
    vocab.write_text("\n".join(VOCABULARY) + "\n")
    arguments = ("--vocab", vocab, "--num-heads", 4)
    line = refusal(cli("export", f"params:{params}", tmp_path / "out" / "x", *arguments, "--task", "qa"), code=2)
    assert "has a trained task head, fc-finetune_weight, fc-finetune_bias, " in line
    line = refusal(cli("export", f"params:{params}", tmp_path / "out" / "x", *arguments), tmp_path / "out")
    assert "the head (fc-finetune_weight, fc-finetune_bias) is not that of BERTClassifier, BERTRegression, " in line
    assert "; --headless exports the encoder alone, and bertsym lower takes the head from a symbol" in line
    result = cli("export", f"params:{params}", tmp_path / "x", *arguments, "--no-verify", "--headless")
    assert "not exported: task head fc-finetune_weight, fc-finetune_bias; this bundle is the encoder" in result.out


def test_next_sentence_heads_of_gluonnlp_are_not_task_heads(cli: Cli, tmp_path: Path) -> None:
    params, vocab = tmp_path / "net.params", tmp_path / "vocab.txt"
    bert_model(CONFIG, hugging_face_weights(), heads=True).save_parameters(str(params))
    vocab.write_text("\n".join(VOCABULARY) + "\n")
    arguments = ("--vocab", vocab, "--num-heads", 4, "--task", "classification", "--no-verify")
    result = cli("export", f"params:{params}", tmp_path / "x", *arguments)
    assert result.code == 0, result.err
    assert "not exported: next sentence head classifier.weight, classifier.bias" in result.out


def test_weights_of_a_params_file_are_ignored_by_pattern(cli: Cli, tmp_path: Path) -> None:
    net = bert_model(CONFIG, hugging_face_weights())
    arrays = {name: array.data() for name, array in net._collect_params_with_prefix().items()}
    params, vocab = tmp_path / "net.params", tmp_path / "vocab.txt"
    mx.nd.save(str(params), {**arrays, "crf.transitions": mx.nd.ones((3, 3))})
    vocab.write_text("\n".join(VOCABULARY) + "\n")
    arguments = ("--vocab", vocab, "--num-heads", 4, "--no-verify")
    line = refusal(cli("export", f"params:{params}", tmp_path / "out" / "x", *arguments), tmp_path / "out")
    assert "1 unknown (crf.transitions); leave weights that are not the encoder's out with --ignore-weights" in line
    result = cli("export", f"params:{params}", tmp_path / "x", *arguments, "--ignore-weights", "crf.*")
    assert result.code == 0, result.err
    assert "not exported: ignored weights crf.transitions\n" in result.out


# What was never trained


def test_random_weights_are_not_called_trained(cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "random:bert_1_16_2", tmp_path / "x", "--no-verify").code == 0
    assert Bundle.open(tmp_path / "x").signature.trained is False


def test_pretrained_weights_are_called_trained(bundles: dict[str, Path]) -> None:
    assert all(Bundle.open(prefix).signature.trained for prefix in bundles.values())
