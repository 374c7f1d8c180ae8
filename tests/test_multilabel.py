"""Multi-label classification: how labels are read, thresholds, and the whole way of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_runner import Run
from conftest import WORDS, Result
from headed import write_headed

from bertsym import Bundle, Classifier, DataError, FinetuneOptions, ModelError, MultilabelClassifier, export, finetune
from bertsym.mxnet_runtime import mx
from bertsym.tasks.multilabel import LabelsPrediction, Multilabel
from bertsym.text.label_sets import marked_labels, split_labels
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Table

Cli = Callable[..., Result]
Forked = Callable[..., Run]

ANIMALS = ("bird", "cat", "dog")
FAST = FinetuneOptions(task="multilabel", epochs=12, batch_size=16, learning_rate=1e-2, max_length=24)


def write_animals(path: Path, rows: int, seed: int) -> Path:
    """Texts with the animals that are in them as labels, of some rows none."""
    rng = np.random.default_rng(seed)
    others = [word for word in WORDS if word.isalpha() and word not in ANIMALS]
    lines = ["labels\ttext"]
    for _ in range(rows):
        found = [animal for animal in ANIMALS if rng.random() < 0.4]
        lines.append(f"{','.join(found)}\t{' '.join(rng.permutation([*rng.choice(others, 5), *found]))}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def animals(once: Callable[..., Path]) -> Path:
    """A folder with train.tsv and dev.tsv."""

    def make(folder: Path) -> None:
        write_animals(folder / "train.tsv", 96, 0)
        write_animals(folder / "dev.tsv", 30, 1)

    return once("animals", make)


@pytest.fixture(scope="session")
def tagger(once: Callable[..., Path], bundles: dict[str, Path], animals: Path) -> Path:
    """Prefix of a trained multi-label classifier; no test may change its files."""

    def make(folder: Path) -> None:
        finetune(bundles["cls"], animals / "train.tsv", animals / "dev.tsv", folder / "model", options=FAST)

    return once("multilabel", make) / "model"


# Reading


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("a,b", ("a", "b")),
        (" b , a ", ("b", "a")),
        ("", ()),
        ("  ", ()),
        ("a;b", ("a;b",)),
        (["x,y", 3, True], ("x,y", "3", "true")),
        ([], ()),
    ],
)
def test_labels_of_a_cell_and_of_a_list(value: Any, labels: tuple[str, ...]) -> None:
    assert split_labels(value, ",") == labels


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a,,b", "'a,,b' holds an empty label"),
        ("a,", "'a,' holds an empty label"),
        ("a,b,a", "the label 'a' is repeated"),
        (["a", None], "the list of labels holds None, which is not a string or a number"),
        ([["a"]], "which is not a string or a number"),
        ([" "], "the list holds an empty label"),
    ],
)
def test_labels_that_cannot_be_read(value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        split_labels(value, ",")


def test_marks_are_0_and_1() -> None:
    assert marked_labels({"a": "1", "b": "0", "c": True, "d": 0, "e": " 1 ", "f": 1.0}) == ("a", "c", "e", "f")
    for value in ("2", "", "yes", None, 0.5, "-1"):
        with pytest.raises(ValueError, match=r"the label column 'a' holds .*, which is not 0 or 1"):
            marked_labels({"a": value})


def test_three_layouts_of_the_same_labels(tmp_path: Path) -> None:
    (tmp_path / "cell.tsv").write_text("text\tlabels\nthe cat\tx;y\na dog\t\nthe mat\ty\n")
    (tmp_path / "columns.csv").write_text("x,text,y\n1,the cat,1\n0,a dog,0\n0,the mat,1\n")
    rows = [("the cat", ["x", "y"]), ("a dog", []), ("the mat", ["y"])]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"text": t, "labels": ls}) + "\n" for t, ls in rows))
    columns = [json.dumps({"text": t, "x": int("x" in ls), "y": "y" in ls}) + "\n" for t, ls in rows]
    (tmp_path / "columns.jsonl").write_text("".join(columns))
    in_cells, in_columns = TableFormat(label_delimiter=";"), TableFormat(label_delimiter=";", label_columns=("x", "y"))
    for name, table_format in (
        ("cell.tsv", in_cells),
        ("list.jsonl", in_cells),
        ("columns.csv", in_columns),
        ("columns.jsonl", in_columns),
    ):
        found = [(row.text, list(row.labels)) for row in Table(tmp_path / name, table_format)]
        assert found == rows, name


def test_bad_rows_are_reported_by_line(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "train.tsv"
    base = ("finetune", bundles["cls"], tmp_path / "x", "--train", table, "--dev", table, "--task", "multilabel")
    for text, options, why in (
        ("text\tlabels\nthe cat\ta\na dog\ta,a\n", (), ", line 3: the label 'a' is repeated"),
        ("text\ta\tb\nthe cat\t1\t3\n", ("--label-columns", "a,b"), ", line 2: the label column 'b' holds '3'"),
        (
            "text\ta\tb\nthe cat\t1\t3\n",
            ("--label-columns", "a,c"),
            ": no column 'c' (the columns are",
        ),
        ("text\tlabels\nthe cat\t\na dog\t\n", (), ": no row has a label"),
    ):
        table.write_text(text)
        result = cli(*base, *options)
        assert result.code == 1, result.err
        assert result.error_line.startswith(f"Error: {table}{why}")
    table.write_text("text\tlabels\nthe cat\ta\na dog\tb\n")
    (dev := tmp_path / "dev.tsv").write_text("text\tlabels\nthe cat\ta,c\n")
    result = cli("finetune", bundles["cls"], tmp_path / "x", "--train", table, "--dev", dev, "--task", "multilabel")
    assert f"Error: {dev}, line 2: label 'c' is not one of the labels a, b" in result.err
    for options, why in (
        (("--label-columns", "a,a"), "--label-columns a,a: a is repeated"),
        (("--label-delimiter", ""), "--label-delimiter must not be empty"),
        (("--positive-label", "a"), "--positive-label a has no effect for the task multilabel: omit it"),
    ):
        result = cli(*base, *options)
        assert (result.code, why in result.error_line) == (2, True), result.err


# The loss


def test_the_gradient_is_that_of_the_mean_binary_cross_entropy() -> None:
    """MXNet's LogisticRegressionOutput divides by the number of labels, as PyTorch's BCEWithLogitsLoss does."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 2, (5, 3)).astype(np.float32), (rng.random((5, 3)) < 0.4).astype(np.float32)
    data = mx.nd.array(logits)
    data.attach_grad()
    with mx.autograd.record():
        outputs = mx.nd.LogisticRegressionOutput(data, mx.nd.array(labels))
    outputs.backward()
    exact = logits.astype(np.float64)
    # Of the loss summed over rows; the trainer divides by their number.
    np.testing.assert_allclose(data.grad.asnumpy(), (1 / (1 + np.exp(-exact)) - labels) / 3, atol=1e-7)
    terms = np.maximum(exact, 0) - exact * labels + np.log1p(np.exp(-np.abs(exact)))
    found = Multilabel(class_names=ANIMALS).loss([outputs.asnumpy()], {"sigmoid_label": labels})
    assert found == pytest.approx(terms.mean() * 5, rel=1e-6)


# The whole way


def test_labels_are_learned_and_predicted(
    forked: Forked, bundles: dict[str, Path], animals: Path, tmp_path: Path
) -> None:
    model, dev = tmp_path / "model", animals / "dev.tsv"
    tables = ("--train", animals / "train.tsv", "--dev", dev)
    settings = ("--task", "multilabel", "--epochs", 12, "--batch-size", 16, "--lr", "1e-2", "--max-length", 24)
    trained = forked("finetune", bundles["cls"], model, *tables, *settings)
    assert trained.code == 0, trained.error
    printed = next(line for line in trained.out.splitlines() if line.startswith("micro_f1"))
    assert [part.split()[0] for part in printed.split("  ")] == ["micro_f1", "macro_f1", "exact_match", "loss"]
    assert float(printed.split()[1]) > 0.8
    assert f"tuned on {dev}: {printed}" in trained.error
    assert forked("evaluate", model, dev).out.strip() == printed

    signature = Bundle.open(model).signature
    assert (signature.kind, signature.class_names) == ("classifier", ANIMALS)
    thresholds = signature.task_settings["thresholds"]
    assert len(thresholds) == 3
    lines = [line.split("\t") for line in dev.read_text().splitlines()[1:]]
    header, *rows = forked("predict", model, dev).out.splitlines()
    assert header.split("\t") == ["labels", "p(bird)", "p(cat)", "p(dog)"]
    cells = [row.split("\t") for row in rows]
    for labels, *probabilities in cells:
        reached = [name for name, p, least in zip(ANIMALS, probabilities, thresholds) if float(p) >= least]
        assert labels == ",".join(reached)
    exact = np.mean([found[0] == wanted[0] for found, wanted in zip(cells, lines)])
    assert f"exact_match {exact:.4f}" in printed
    # One threshold for all.
    none = forked("predict", model, dev, "--threshold", 1, "--output-format", "jsonl").out.splitlines()
    assert {tuple(json.loads(line)["labels"]) for line in none} == {()}
    everything = forked("predict", model, "--text", "the cat", "--threshold", 0, "--output-format", "jsonl").out
    assert json.loads(everything)["labels"] == [*ANIMALS]
    run = forked("predict", model, "--text", "the cat", "--threshold", 1.5)
    assert (run.code, "threshold must be a probability from 0 to 1, not 1.5" in run.error) == (2, True)


def test_a_trained_model_is_quantized_lowered_and_converted(
    forked: Forked, tagger: Path, animals: Path, tmp_path: Path
) -> None:
    calibrate = ("--calibrate", animals / "dev.tsv", "--max-drop", 0.2)
    quantized = forked("quantize", tagger, tmp_path / "int8", *calibrate)
    assert quantized.code == 0, quantized.error
    assert Bundle.open(tmp_path / "int8").signature.task_settings == Bundle.open(tagger).signature.task_settings
    assert forked("lower", tagger, tmp_path / "lowered", "--target-mxnet", "1.5").code == 0
    text = "the cat sat in the park"
    expected = MultilabelClassifier(tagger).predict([text])[0].probabilities
    found = MultilabelClassifier(tmp_path / "lowered").predict([text])[0].probabilities
    assert found == pytest.approx(expected, abs=1e-4)
    assert forked("onnx", tagger, tmp_path / "model.onnx").code == 0
    by_onnx = forked("predict", tagger, "--text", text, "--engine", "onnxruntime", "--output-format", "jsonl").out
    assert json.loads(by_onnx)["probabilities"] == pytest.approx(expected, abs=1e-4)


def test_label_columns_are_the_classes_in_their_order(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "train.csv"
    rows = [("the dog", 1, 0, 0), ("a cat", 0, 0, 1), ("a cat and a dog", 1, 0, 1), ("the mat", 0, 0, 0)] * 6
    table.write_text("text,dog,bird,cat\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    arguments = ("--train", table, "--dev", table, "--task", "multilabel", "--epochs", 1)
    result = cli("finetune", bundles["cls"], tmp_path / "x", *arguments, "--label-columns", "dog, bird ,cat")
    assert result.code == 0, result.err
    assert f"warning: {table}: no row has the label 'bird'" in result.err
    signature = Bundle.open(tmp_path / "x").signature
    assert signature.class_names == ("dog", "bird", "cat")
    assert signature.task_settings["thresholds"][1] == 0.5
    assert cli("evaluate", tmp_path / "x", table).code == 0
    assert len(cli("predict", tmp_path / "x", table).out.splitlines()) == 25


def test_a_head_from_hugging_face_has_the_threshold_of_one_half_and_is_continued(cli: Cli, tmp_path: Path) -> None:
    export(f"hf:{write_headed(tmp_path / 'hf', 'multilabel')}", tmp_path / "x")
    texts = ["the cat sat", "a very sad story", "the old house was red"]
    for found in MultilabelClassifier(tmp_path / "x").predict(texts):
        assert found.labels == tuple(name for name, p in found.probabilities.items() if p >= 0.5)
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabels\n" + "the cat\tneutral,contradiction\na dog\tentailment\nthe mat\t\n" * 5)
    arguments = ("--train", table, "--dev", table, "--task", "multilabel", "--epochs", 1)
    result = cli("finetune", tmp_path / "x", tmp_path / "more", *arguments)
    assert result.code == 0, result.err
    assert Bundle.open(tmp_path / "more").signature.class_names == ("neutral", "entailment", "contradiction")
    with pytest.raises(ModelError, match="is not a classifier, its task is multilabel"):
        Classifier(tmp_path / "x")


def test_predictions_agree_where_their_labels_do() -> None:
    one = LabelsPrediction(("a",), {"a": 0.9, "b": 0.1})
    assert one.agrees(LabelsPrediction(("a",), {"a": 0.6, "b": 0.4}))
    assert not one.agrees(LabelsPrediction(("a", "b"), {"a": 0.9, "b": 0.5}))


def test_a_label_with_the_delimiter_in_it_is_an_error(bundles: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"text": "the cat", "labels": ["a,b"]}\n{"text": "a dog", "labels": ["c"]}\n')
    with pytest.raises(DataError, match=r"the label 'a,b' contains the delimiter ',' of predicted labels"):
        finetune(bundles["cls"], table, table, tmp_path / "x", options=FAST)
