"""Dev rows from the training table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result, Tables

from bertsym import Bundle, DataError
from bertsym.tasks.classification import Classification
from bertsym.tasks.multilabel import Multilabel
from bertsym.tasks.qa import QuestionAnswering
from bertsym.tasks.tagging import Tagging
from bertsym.tasks.task import Example, Examples, Task
from bertsym.text.questions import Question
from bertsym.text.tokenizer import Encoded
from bertsym.training.dev_split import split_examples

Cli = Callable[..., Result]
TASK = Classification()


def examples(labels: dict[str, int]) -> Examples:
    names = [label for label, count in labels.items() for _ in range(count)]
    window = Encoded([1], [0], False, 0)
    return Examples("t.tsv", [Example(i, (window,), name) for i, name in enumerate(names)], "0" * 64)


def test_each_label_has_its_fraction_and_the_seed_chooses_the_rows() -> None:
    whole = examples({"a": 40, "b": 10, "c": 1})
    train, dev = split_examples(whole, TASK, 0.2, 3)
    assert Counter(row.target for row in dev.rows) == {"a": 8, "b": 2}
    assert sorted(row.line for row in train.rows + dev.rows) == [row.line for row in whole.rows]
    assert [row.line for row in dev.rows] == sorted(row.line for row in dev.rows)
    assert dev.rows == split_examples(whole, TASK, 0.2, 3)[1].rows != split_examples(whole, TASK, 0.2, 4)[1].rows


def test_every_label_stays_in_train_and_dev_has_a_row() -> None:
    train, _ = split_examples(examples({"a": 2, "b": 1}), TASK, 0.9, 0)
    assert Counter(row.target for row in train.rows) == {"a": 1, "b": 1}
    with pytest.raises(DataError, match=r"t.tsv: 3 rows are too few for a dev_fraction of 0.1"):
        split_examples(examples({"a": 2, "b": 1}), TASK, 0.1, 0)


@pytest.mark.parametrize("task", [Multilabel(), Tagging()])
def test_every_label_of_a_row_with_several_stays_in_train(task: Task) -> None:
    """Each third row has a label of its own."""
    whole = examples({"a": 30})
    rows = [
        dataclasses.replace(row, target=("a", f"b{i // 3}") if i % 3 else ("a",)) for i, row in enumerate(whole.rows)
    ]
    train, dev = split_examples(dataclasses.replace(whole, rows=rows), task, 0.7, 0)
    assert 6 <= len(dev) <= 21
    assert {label for row in dev.rows for label in row.target} <= {label for row in train.rows for label in row.target}


def test_the_questions_about_a_context_are_on_one_side() -> None:
    rows = [
        dataclasses.replace(row, target=("x",), source=Question("here", "what", f"context {i // 4}"))
        for i, row in enumerate(examples({"a": 40}).rows)
    ]
    train, dev = split_examples(dataclasses.replace(examples({"a": 1}), rows=rows), QuestionAnswering(), 0.25, 0)
    contexts = [{row.source.context for row in part.rows} for part in (train, dev)]
    assert (len(dev), contexts[0] & contexts[1]) == (12, set())


def test_a_classifier_is_trained_from_one_table(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    arguments = ["finetune", bundles["cls"], "--train", tables.train, "--epochs", 1]
    done = cli(*arguments, tmp_path / "x", "--dev-fraction", 0.2)
    assert done.code == 0, done.err
    training = Bundle.open(tmp_path / "x").manifest["training"]
    assert [training["data"][part]["rows"] for part in ("train", "dev")] == [72, 18]
    assert (training["options"]["dev_fraction"], training["options"]["seed"]) == (0.2, 0)
    for options, message in (
        (["--dev-fraction", 0.2, "--dev", tables.dev], "give either a dev table or dev_fraction"),
        (["--dev-fraction", 1], "dev_fraction must be between 0 and 1, exclusive, not 1.0"),
    ):
        refused = cli(*arguments, tmp_path / "y", *options)
        assert refused.code == 2
        assert message in refused.error_line
