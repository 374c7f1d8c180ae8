"""A trained head that can't be expressed is refused, with the way to export the encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from headed import headed_weights, write_headed
from refusals import refusal

from bertsym.array import Array

Cli = Callable[..., Result]


def without(*names: str) -> Callable[[dict[str, Array]], None]:
    def change(weights: dict[str, Array]) -> None:
        for name in names:
            del weights[name]

    return change


def with_weight(name: str, *shape: int) -> Callable[[dict[str, Array]], None]:
    return lambda weights: weights.update({name: np.ones(shape, np.float32)})


def unchanged(weights: dict[str, Array]) -> None:
    pass


REFUSED: list[tuple[str, Callable[[dict[str, Array]], None], dict[str, Any], str]] = [
    (
        "classification",
        unchanged,
        {"id2label": {"0": "no", "1": "yes"}},
        "model.safetensors: classifier.weight has shape (3, 32), but {config} describes 2 outputs: the head does not "
        "fit its config",
    ),
    (
        "classification",
        without("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
        {},
        "no pooler (pooler.dense.weight, pooler.dense.bias), which BertForSequenceClassification reads",
    ),
    (
        "classification",
        unchanged,
        {"problem_type": "ranking"},
        '{config}: problem_type: "ranking" is not one of "single_label_classification", "multi_label_classification", '
        '"regression"',
    ),
    (
        "tagging",
        unchanged,
        {"id2label": {"0": "O", "1": "B", "2": "O"}},
        """{config}: id2label["2"]: the class name 'O' is that of the id 0 too""",
    ),
    (
        "tagging",
        unchanged,
        {"id2label": {"0": "O", "2": "B", "3": "I"}},
        "{config}: id2label: 3 labels, but no label for the id 1",
    ),
    ("tagging", unchanged, {"id2label": {"0": "O", "1": "B", "2": "\t"}}, "the class name '\\t' is not printable"),
    (
        "regression",
        unchanged,
        {"problem_type": "single_label_classification"},
        "{config}: problem_type: 1 label, a classification needs at least 2",
    ),
    ("regression", unchanged, {"classifier_dropout": 1}, "{config}: classifier_dropout: it must be below 1"),
    (
        "classification",
        unchanged,
        {"architectures": ["BertForMultipleChoice"]},
        "{config}: architectures: BertForMultipleChoice is not one of BertForSequenceClassification, "
        "BertForTokenClassification, BertForQuestionAnswering, BertForMaskedLM, BertForPreTraining, so its head "
        "(classifier.bias, classifier.weight) can't be exported",
    ),
    (
        "masked_lm",
        with_weight("cls.seq_relationship.weight", 2, 32),
        {"architectures": ["BertForNextSentencePrediction"]},
        "{config}: architectures: BertForNextSentencePrediction is not one of ",
    ),
    (
        "classification",
        unchanged,
        {"architectures": None},
        '{config}: the key "architectures" is missing, and the head (classifier.bias, classifier.weight) may be that '
        "of BertForSequenceClassification or BertForTokenClassification",
    ),
    (
        "qa",
        without("qa_outputs.bias"),
        {},
        "model.safetensors: BertForQuestionAnswering needs qa_outputs.bias, missing in this file",
    ),
    (
        "qa",
        unchanged,
        {"architectures": ["BertForPreTraining"]},
        "model.safetensors: BertForPreTraining needs cls.predictions.transform.dense.weight, ",
    ),
    (
        "qa",
        with_weight("classifier.weight", 2, 32),
        {},
        "model.safetensors: BertForQuestionAnswering does not have the weights classifier.weight",
    ),
    (
        "masked_lm",
        with_weight("cls.predictions.decoder.weight", 53, 32),
        {},
        "cls.predictions.decoder.weight differs from bert.embeddings.word_embeddings.weight, and only a head that "
        "shares it can be exported",
    ),
    (
        "masked_lm",
        unchanged,
        {"tie_word_embeddings": False},
        "{config}: tie_word_embeddings: false, but cls.predictions.",
    ),
]


@pytest.mark.parametrize(("task", "change", "config", "message"), REFUSED)
def test_a_head_that_can_not_be_expressed_is_refused_with_the_way_to_the_encoder(
    cli: Cli,
    tmp_path: Path,
    task: str,
    change: Callable[[dict[str, Array]], None],
    config: dict[str, Any],
    message: str,
) -> None:
    weights = headed_weights(task)
    change(weights)
    folder = write_headed(tmp_path / "hf", task, weights, **config)
    line = refusal(cli("export", f"hf:{folder}", tmp_path / "out" / "x"), tmp_path / "out")
    assert message.format(config=folder / "config.json") in line
    assert line.endswith("; --headless exports the encoder alone")
    assert cli("export", f"hf:{folder}", tmp_path / "x", "--headless", "--no-verify").code == 0


def test_a_bare_name_is_answered_with_hf(cli: Cli, tmp_path: Path) -> None:
    line = refusal(cli("export", "bert-base-uncased", tmp_path / "out" / "x"), tmp_path / "out", code=2)
    assert line.endswith("; for a folder or a model of the Hugging Face hub, give hf:bert-base-uncased")
