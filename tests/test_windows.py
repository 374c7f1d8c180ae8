"""Windows of long texts: how they are cut, what they are trained on, and the mean of their outputs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, tiny_tokenizer
from kinds import TABLE_KINDS, random_words
from runs import OPTIONS, Recorder

from bertsym import (
    Bundle,
    Columns,
    DataError,
    EvaluateOptions,
    TableFormat,
    TaskOptions,
    evaluate,
    finetune,
    load,
)
from bertsym.tasks import TASKS
from bertsym.tasks.task import Example, Reading

Cli = Callable[..., Result]
STRIDE = TaskOptions(stride=10)
LONG = "the cat sat on the red mat a sad dog ran in the park " * 4  # 52 tokens


@pytest.fixture(params=TABLE_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of task whose examples are the rows of a table."""
    return str(request.param)


@pytest.fixture
def model(kind: str, bundles: dict[str, Path], once: Callable[..., Path]) -> Path:
    """Prefix of a model for inputs of 24 tokens, trained on truncated texts; no test may change its files."""
    made = TABLE_KINDS[kind]

    def make(folder: Path) -> None:
        made.write(folder / "train.tsv", 48, 0)
        made.write(folder / "dev.tsv", 12, 1)
        options = dataclasses.replace(OPTIONS, task=kind, epochs=1)
        finetune(bundles[made.output], folder / "train.tsv", folder / "dev.tsv", folder / "model", options=options)

    return once(f"windows-{kind}", make) / "model"


def numbers(prediction: dict[str, Any]) -> list[float]:
    """The probabilities, or the value, of a prediction."""
    return list(prediction["probabilities"].values()) if "probabilities" in prediction else [prediction["value"]]


def test_the_outputs_of_windows_are_averaged(model: Path, cli: Cli, tmp_path: Path) -> None:
    """Windows of 22 tokens that overlap by 10 begin at the tokens 0, 12, 24 and 36."""
    opened: Any = load(model)
    words = LONG.split()
    texts = [" ".join(words[start : start + 22]) for start in (0, 12, 24, 36)]
    windows = [numbers(found.to_json()) for found in opened.predict(texts)]
    short, cut = opened.predict(["the happy cat", LONG])
    again, whole = type(opened)(model, stride=10).predict(["the happy cat", LONG])
    assert (cut.truncated, whole.truncated) == (True, False)
    assert numbers(whole.to_json()) == pytest.approx(np.mean(windows, axis=0), abs=1e-5)
    assert numbers(again.to_json()) == pytest.approx(numbers(short.to_json()), abs=1e-5)

    (tmp_path / "texts.txt").write_text(f"{LONG}\nthe happy cat\n")
    arguments = ("predict", model, tmp_path / "texts.txt", "--format", "lines", "--output-format", "jsonl")
    printed = cli(*arguments, "--stride", "10")
    assert "truncated" not in printed.err
    first = json.loads(printed.out.splitlines()[0])
    assert numbers(first) == pytest.approx(numbers(whole.to_json()), abs=1e-5)
    assert "1 of 2" in cli(*arguments).err


def test_windows_are_trained_on_the_label_of_their_text(
    kind: str, without_dropout: Path, cli: Cli, tmp_path: Path
) -> None:
    """Each window counts as a row, and the evaluation means the windows of a text."""
    for name, seed in (("train", 0), ("dev", 1)):
        TABLE_KINDS[kind].write(tmp_path / f"{name}.tsv", 20, seed)
        header, *rows = (tmp_path / f"{name}.tsv").read_text().splitlines()
        rng = np.random.default_rng(seed)
        long = [f"{row} {' '.join(random_words(rng) for _ in range(i % 3))}" for i, row in enumerate(rows)]
        (tmp_path / f"{name}.tsv").write_text("\n".join([header, *long]) + "\n")
    changes: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-12, "batch_size": 200, "max_length": 12, "dropout": 0.0}
    options = dataclasses.replace(OPTIONS, task=kind, task_options=TaskOptions(stride=4), **changes)
    recorder = Recorder()
    files = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    finetune(without_dropout, *files, tmp_path / "x", options=options, on_event=recorder)

    opened: Any = load(tmp_path / "x")
    assert Bundle.open(tmp_path / "x").signature.task_settings["stride"] == opened.task.stride == 4
    examples = opened.task.read(files[0], Reading(tiny_tokenizer(12)))
    windows = [len(row.windows) for row in examples.rows]
    assert max(windows) > 2 > min(windows)
    assert any(f"{files[0]}: 20 rows in {sum(windows)} windows" in note for note in recorder.notes)

    # The loss of the only batch is the mean over all windows.
    rows = [dataclasses.replace(row, windows=(window,)) for row in examples.rows for window in row.windows]
    by_window = dataclasses.replace(examples, rows=rows)
    outputs = opened._predictor.each(by_window.features, opened.task.keep)
    task = dataclasses.replace(opened.task, **({"thresholds": ()} if kind == "multilabel" else {}))
    ((_, loss),) = recorder.steps
    assert loss == pytest.approx(task.evaluate(outputs, by_window)["loss"], rel=1e-4)

    found = cli("evaluate", tmp_path / "x", files[1], "--json")
    assert json.loads(found.out)["loss"] == pytest.approx(recorder.evaluations[0].metrics["loss"], rel=1e-5)
    other = evaluate(tmp_path / "x", files[1], EvaluateOptions(task_options=TaskOptions(stride=0)))
    assert other.truncated == 0
    assert other.metrics["loss"] != pytest.approx(recorder.evaluations[0].metrics["loss"], abs=1e-7)


def windows_of(text: str, pair: str, kind: str, stride: int = 4) -> Example | DataError:
    reading = Reading(tiny_tokenizer(16))
    ((example,),) = TASKS[kind](stride=stride).encode_texts([text], [pair], reading)  # type: ignore[call-arg]
    return example


def test_the_second_text_of_a_pair_is_cut(kind: str) -> None:
    """Each window has [CLS], the three tokens of the first text, [SEP], up to 10 tokens of the second, and [SEP]."""
    words = LONG.split()[:21]
    example = windows_of("the happy bird", " ".join(words), kind)
    assert isinstance(example, Example)
    expected = [
        tiny_tokenizer(16).encode(["the happy bird"], [" ".join(words[start : start + 10])])[0] for start in (0, 6, 12)
    ]
    assert [window.token_ids for window in example.windows] == [each.token_ids for each in expected]
    assert [window.token_types for window in example.windows] == [each.token_types for each in expected]


def test_windows_without_room_are_an_error_of_their_row(kind: str, tmp_path: Path) -> None:
    error = windows_of("the cat sat on the red mat a sad dog", LONG, kind)
    assert str(error) == (
        "the texts, line 1: the first text of 10 tokens leaves room for 3 tokens in a window of 16: "
        "the stride of 4 must be lower"
    )
    path = tmp_path / "long.tsv"
    path.write_text(f"text\nthe cat\n{LONG}\n")
    reading = Reading(tiny_tokenizer(16), TableFormat(columns=Columns(text="text")))
    with pytest.raises(
        DataError, match=r"long.tsv, line 3: 14 tokens in a window of 16: the stride of 14 must be lower"
    ):
        TASKS[kind](stride=14).read(path, reading, labelled=False)  # type: ignore[call-arg]
