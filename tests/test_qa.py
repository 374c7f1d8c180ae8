"""Question answering: windows, targets, answers, and a model from training to prediction."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WORDS, Result, tiny_tokenizer
from kinds import write_questions

from bertsym import (
    Bundle,
    DataError,
    EvaluateOptions,
    FinetuneOptions,
    ModelError,
    QuestionAnswerer,
    evaluate,
    finetune,
)
from bertsym.tasks.answer_spans import find_spans
from bertsym.tasks.qa import QuestionAnswering
from bertsym.tasks.task import Example, Examples, Reading

Cli = Callable[..., Result]
OPTIONS = FinetuneOptions(task="qa", epochs=8, batch_size=16, learning_rate=3e-3, max_length=24)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("questions")
    train, dev = folder / "train.jsonl", folder / "dev.jsonl"
    write_questions(train, 160, 11)
    write_questions(dev, 48, 9)
    return train, dev


@pytest.fixture(scope="session")
def answerer(bundles: dict[str, Path], data: Any, once: Callable[..., Path]) -> Path:
    """Prefix of a model that was trained on `data`; no test may change its files."""
    train, dev = data

    def make(folder: Path) -> object:
        return finetune(bundles["sequence"], train, dev, folder / "x", options=OPTIONS)

    return once("answerer", make) / "x"


def read(path: Path, **settings: Any) -> Examples:
    return QuestionAnswering(**settings).read(path, Reading(tiny_tokenizer()))


# Windows and answers


def windows_of(context: str, question: str = "the cat", stride: int = 4, max_length: int = 16) -> Example:
    reading = Reading(tiny_tokenizer(max_length))
    ((example,),) = QuestionAnswering(stride=stride).encode_texts([question], [context], reading)
    assert isinstance(example, Example)
    return example


def products(logits: Any, example: Example, longest: int) -> dict[tuple[int, int], float]:
    """The probability of each span, as transformers' pipeline defines it."""
    found: dict[tuple[int, int], float] = {}
    for values, window in zip(logits, example.windows):
        assert window.alignment is not None
        allowed = [i for i, text in enumerate(window.alignment.texts) if text == 1 or i == 0]
        chances = np.zeros((2, len(values)))
        for end in (0, 1):
            powers = np.exp(values[allowed, end])
            chances[end, allowed] = powers / powers.sum()
        for i in allowed[1:]:
            for j in allowed[1:]:
                if i <= j < i + longest:
                    place = int(window.alignment.offsets[i, 0]), int(window.alignment.offsets[j, 1])
                    found[place] = max(found.get(place, 0.0), chances[0, i] * chances[1, j])
    return found


def test_the_best_spans_are_those_of_the_product_of_both_probabilities() -> None:
    rng = np.random.default_rng(0)
    example = windows_of(" ".join(rng.choice(WORDS, 40)))
    assert len(example.windows) > 3
    for longest in (1, 3, 30):
        logits = [rng.normal(0, 2, (len(window.token_ids), 2)) for window in example.windows]
        expected = sorted(products(logits, example, longest).items(), key=lambda item: -item[1])[:7]
        spans = find_spans(logits, example.windows, 7, longest)
        assert [(span.start, span.end) for span in spans.best] == [place for place, _ in expected]
        assert [span.score for span in spans.best] == pytest.approx([score for _, score in expected], rel=1e-9)


def test_no_answer_has_the_lowest_probability_of_the_first_token() -> None:
    example = windows_of("the red cat sat on the mat in the old house under the tree")
    logits = [np.zeros((len(window.token_ids), 2)) for window in example.windows]
    logits[0][0] = 50
    spans = find_spans(logits, example.windows, 1, 30)
    assert window_chance(example, 1) == pytest.approx(math.exp(spans.no_answer))
    assert spans.no_answer_margin == pytest.approx(0.0)


def window_chance(example: Example, index: int) -> float:
    alignment = example.windows[index].alignment
    assert alignment is not None
    return float(1 / (1 + (alignment.texts == 1).sum()) ** 2)


def test_targets_are_the_tokens_of_the_answer_in_each_window_that_has_it(tmp_path: Path) -> None:
    context = "the old dog slept in the park. the small birds flew under the tree on the red mat"
    place = context.index("small birds")
    line = {"question": "what flew", "context": context, "answers": [{"text": "small birds", "answer_start": place}]}
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps(line))
    task = QuestionAnswering(stride=3)
    examples = task.read(path, Reading(tiny_tokenizer(14)))
    (example,) = examples.rows
    tokens = task.targets(examples).tokens
    covered = 0
    for window, (start, end) in zip(example.windows, tokens):
        assert window.alignment is not None
        offsets, texts = window.alignment.offsets, window.alignment.texts
        inside = [i for i in range(len(texts)) if texts[i] == 1 and place <= offsets[i, 0] < place + len("small birds")]
        if (start, end) == (0, 0):
            assert len(inside) < 3
        else:
            assert context[offsets[start, 0] : offsets[end, 1]] == "small birds"
            covered += 1
    assert 0 < covered < len(tokens)
    labels = task.targets(examples).labels(np.array([0, 1]), 14)
    assert sorted(labels) == ["end_label", "start_label"]


# Files


def test_answers_that_are_not_in_their_context_are_left_out_of_training(tmp_path: Path, bundles: Any) -> None:
    path = tmp_path / "train.jsonl"
    write_questions(path, 12, 11, no_answer=False)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["answers"][0]["answer_start"] += 1
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    notes: list[str] = []
    kept = QuestionAnswering().for_training(read(path), notes.append)
    assert (len(kept), kept.left_out) == (11, 1)
    assert "1 of 12 questions are left out" in notes[0]
    assert f"{path}, line 4" in notes[0]
    # The metrics need no offset.
    assert len(read(path)) == 12


def test_an_error_of_a_question_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    qas = [{"id": "1", "question": "the " * 40, "answers": []}]
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "the cat " * 20, "qas": qas}]}]}))
    with pytest.raises(DataError, match=r"data\[0\].paragraphs\[0\].qas\[0\]: the first text of 40 tokens leaves room"):
        read(path)


def test_a_file_of_another_task_is_an_error(tmp_path: Path, tables: Any, answerer: Path, cli: Cli) -> None:
    refused = cli("evaluate", answerer, tables.dev)
    assert refused.code == 2
    assert "labelled questions must be SQuAD's JSON (.json) or JSON Lines (.jsonl)" in refused.error_line


# A model


def test_training_learns_where_the_answers_are(answerer: Path, data: Any, cli: Cli) -> None:
    bundle = Bundle.open(answerer)
    signature = bundle.signature
    assert (signature.kind, signature.task, signature.output, signature.class_names) == ("logits", "qa", "sequence", ())
    assert signature.output_shape == ("batch", "length", 2)
    assert [tensor.name for tensor in signature.label_inputs] == ["start_label", "end_label"]
    assert isinstance(signature.task_settings["no_answer_threshold"], float)
    result = evaluate(answerer, data[1])
    assert list(result.metrics)[:2] == ["f1", "exact_match"]
    assert result.metrics["f1"] > 0.6
    assert result.metrics["no_answer_f1"] > 0.6
    printed = cli("evaluate", answerer, data[1], "--json")
    assert json.loads(printed.out)["f1"] == pytest.approx(result.metrics["f1"])


def test_predict_prints_answer_offsets_score_and_the_best_spans(answerer: Path, data: Any, cli: Cli) -> None:
    lines = [json.loads(line) for line in data[1].read_text().splitlines()]
    done = cli("predict", answerer, data[1], "--output-format", "jsonl")
    assert done.code == 0
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [each["id"] for each in found] == [line["id"] for line in lines]
    python = QuestionAnswerer(answerer).predict(
        [line["question"] for line in lines], [line["context"] for line in lines]
    )
    answered = 0
    for line, each, same in zip(lines, found, python):
        assert (each["answer"], each["score"]) == (same.text or None, pytest.approx(same.to_json()["score"], rel=1e-5))
        for span in each["n_best"]:
            assert line["context"][span["start"] : span["end"]] == span["answer"]
        scores = [span["score"] for span in each["n_best"]]
        assert scores == sorted(scores, reverse=True)
        if each["answer"] is None:
            assert each["score"] == each["no_answer_score"]
        else:
            assert each["n_best"][0]["answer"] == each["answer"]
            answered += 1
    assert 0 < answered < len(lines)
    table = cli("predict", answerer, "--text", lines[1]["question"], "--text-pair", lines[1]["context"])
    header, row = table.out.splitlines()
    assert header == "answer\tstart\tend\tscore"
    assert row.split("\t")[0] == (found[1]["answer"] or "")


def test_the_threshold_is_tuned_on_the_dev_file(answerer: Path, data: Any) -> None:
    tuned = Bundle.open(answerer).signature.task_settings["no_answer_threshold"]
    model = QuestionAnswerer(answerer)
    examples = model.task.read(data[1], model._opened.reading())
    outputs = model._predictor.each(examples.features, model.task.keep)
    assert model.task.tuned(outputs, examples).settings()["no_answer_threshold"] == pytest.approx(tuned, abs=1e-4)

    task = model.task
    assert isinstance(task, QuestionAnswering)

    def f1(threshold: float | None) -> float:
        return dataclasses.replace(task, no_answer_threshold=threshold).evaluate(outputs, examples)["f1"]

    assert f1(tuned) >= max(f1(threshold) for threshold in (None, -5.0, 0.0, 5.0))


def test_another_task_s_model_is_refused(classifier: Path, answerer: Path) -> None:
    with pytest.raises(ModelError, match="does not answer questions, its task is classification"):
        QuestionAnswerer(classifier)
    with pytest.raises(Exception, match="a task of classification, but the model's is qa"):
        evaluate(answerer, "x.jsonl", EvaluateOptions(task="mrpc"))
