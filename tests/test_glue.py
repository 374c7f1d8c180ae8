"""Each data set as it is published, through finetune, evaluate and predict, with --task and --data-dir alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_runner import Run
from conftest import Once, Result
from glue_files import LAYOUTS, SENTENCES
from refusals import refusal

from bertsym import Bundle, DataError, FinetuneOptions, find_dataset, finetune
from bertsym.datasets.registry import GLUE
from bertsym.tasks import TASKS
from bertsym.tasks.classification import Classification
from bertsym.tasks.submission import SubmissionLines
from bertsym.text.dataset_tables import format_of_dataset
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Row, Table

Cli = Callable[..., Result]
Forked = Callable[..., Run]

#: those that are trained here, for which GLUE's server has a place, and one that drops labels
TRAINED = [name for name in (*GLUE, "snli") if name != "ax" and find_dataset(name).kind in TASKS]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_texts_and_labels_of_each_file_are_read(tmp_path: Path, name: str) -> None:
    layout, dataset = LAYOUTS[name], find_dataset(name)
    folder = layout.write(tmp_path)
    for split in layout.files:
        has_labels = split != "test" or layout.header["test"] == layout.header["dev"]
        how = format_of_dataset(TableFormat(), dataset, split)
        read = list(Table(dataset.find_file(folder, split), how, need_label=has_labels).each())
        rows = [row for row in read if isinstance(row, Row) and row.label not in dataset.drop_labels]
        assert [row.text.strip() for row in rows] == list(SENTENCES)
        pairs: set[str | None] = {None} if dataset.columns.pair is None else {*SENTENCES}
        assert {row.pair for row in rows} == pairs
        if has_labels and dataset.labels:
            assert {row.label for row in rows} == set(dataset.labels)
        assert sum(isinstance(row, DataError) for row in read) == (len(layout.broken) if split != "test" else 0)


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


@pytest.mark.parametrize("name", TRAINED)
def test_the_files_of_a_data_set_need_its_name_and_folder_only(
    forked: Forked, bundles: dict[str, Path], tmp_path: Path, name: str
) -> None:
    layout, dataset = LAYOUTS[name], find_dataset(name)
    folder, out = layout.write(tmp_path / "data"), tmp_path / "model"
    trained = forked("finetune", bundles["cls"], out, "--task", name, "--data-dir", folder)
    assert (trained.code, trained.fault) == (0, None), trained.error
    assert f"{folder / layout.files['train']}: 6 rows" in trained.error
    signature = Bundle.open(out).signature
    assert (signature.task, signature.dataset, signature.pair) == (dataset.kind, name, dataset.columns.pair is not None)
    assert signature.class_names == dataset.labels

    judged = forked("evaluate", out, "--task", name, "--data-dir", folder, "--json")
    assert judged.code == 0, judged.error
    metrics = json.loads(judged.out)
    assert list(metrics)[: len(dataset.metrics)] == list(dataset.metrics)
    assert (metrics["rows"], metrics["left_out"]) == (6, len(layout.broken))
    assert metrics["dropped_labels"] == ({"-": 1} if layout.dropped else {})
    # What evaluate prints is what finetune printed for the epoch that it kept.
    printed = line_of(trained.out, dataset.metrics[0])
    assert all(f"{key} {metrics[key]:.4f}" in printed for key in (*dataset.metrics, "loss"))

    answered = forked("predict", out, "--task", name, "--data-dir", folder)
    assert answered.code == 0, answered.error
    lines = answered.out.splitlines()
    assert len(lines) == 1 + len(SENTENCES)
    answers = [line.split("\t")[0] for line in lines[1:]]
    if dataset.labels:
        assert set(answers) <= set(dataset.labels)
    else:
        assert all(math.isfinite(float(answer)) for answer in answers)


@pytest.fixture(scope="module")
def nli(bundles: dict[str, Path], once: Once) -> Path:
    """Prefix of a model of mnli."""

    def make(folder: Path) -> None:
        data = LAYOUTS["mnli"].write(folder / "data")
        options = FinetuneOptions("mnli", epochs=1, max_length=24)
        finetune(bundles["cls"], data / "train.tsv", data / "dev_matched.tsv", folder / "nli", options=options)

    return once("nli", make) / "nli"


def test_a_submission_has_the_index_and_the_answer_of_each_row(cli: Cli, nli: Path, tmp_path: Path) -> None:
    glue = tmp_path / "glue"
    LAYOUTS["mnli"].write(glue / "MNLI")
    LAYOUTS["ax"].write(glue / "AX")
    for options, file in (((), "MNLI-m.tsv"), (("--task", "ax"), "AX.tsv")):
        result = cli("predict", nli, "--data-dir", glue, *options, "--submission", tmp_path)
        assert (result.code, result.out) == (0, ""), result.err
        header, *rows = (tmp_path / file).read_text().splitlines()
        answers = [line.split("\t")[0] for line in cli("predict", nli, "--data-dir", glue, *options).out.splitlines()]
        assert header == "index\tprediction"
        assert rows == [f"{i}\t{answer}" for i, answer in enumerate(answers[1:])]
    again = cli("predict", nli, "--data-dir", glue, "--submission", tmp_path / "MNLI-m.tsv")
    assert "exists" in refusal(again, code=2)


def test_a_submission_repeats_the_index_of_the_file(cli: Cli, nli: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "test.tsv", tmp_path / "mine.tsv"
    table.write_text("index\tsentence1\tsentence2\n7\tthe cat\tthe dog\n5\t\tthe dog\n3\tthe cat\tthe dog\n")
    assert "line 3: the text is empty" in refusal(cli("predict", nli, table, "--submission", out), out)
    result = cli("predict", nli, table, "--submission", out, "--on-error", "blank")
    assert "the server expects the name MNLI-m.tsv" in result.err
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    assert [row[0] for row in rows] == ["index", "7", "1", "3"]
    assert rows[2][1] == "entailment"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "sst-2", "--data-dir", "."), "--task sst-2: its labels are 0, 1, the model's entailment, neutral"),
        (("--task", "mnli-mm"), "--submission needs FILE or --data-dir"),
        (("FILE", "--data-dir", "."), "give either a file or --data-dir, not both"),
        (("FILE", "--task", "classification"), "the task classification describes no submission"),
        (("FILE", "--out", "x"), "--submission writes its own format: omit --out"),
        (("FILE", "--on-error", "skip"), "--submission writes its own format: omit --on-error"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, tuple) else "",
)
def test_a_submission_without_its_data_is_refused(
    cli: Cli, nli: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "t.tsv").write_text("sentence1\tsentence2\na cat\ta dog\n")
    given = [str(tmp_path / "t.tsv") if option == "FILE" else option for option in options]
    out = tmp_path / "out.tsv"
    assert message in refusal(cli("predict", nli, *given, "--submission", out), out, code=2)


def test_numbers_of_a_submission_are_in_its_range_with_its_decimals() -> None:
    submission = find_dataset("sts-b").submission
    assert submission is not None
    lines = SubmissionLines(submission, Classification())
    written = [lines.line(((), Number(value))) for value in (2.34567, 5.2, -0.1)]
    assert written == ["0\t2.346", "1\t5.000", "2\t0.000"]
    assert lines.line(DataError("")) == "3\t0.000"


@dataclass(frozen=True)
class Number:
    """A prediction of a number."""

    value: float
    truncated: bool = False

    def agrees(self, other: Number) -> bool:
        return self == other

    def to_json(self) -> dict[str, float]:
        return {"value": self.value}

    def cells(self) -> list[str]:
        return [f"{self.value:.6f}"]


# Files of other tasks, and descriptions of one's own


def test_a_file_of_another_data_set_is_refused_with_its_name(cli: Cli, nli: Path, tmp_path: Path) -> None:
    folder = LAYOUTS["qqp"].write(tmp_path)
    line = refusal(cli("evaluate", nli, folder / "dev.tsv", "--task", "mnli"))
    assert "no column 'sentence1'" in line
    assert "these are the columns of qqp" in line
    assert "no dev file of mnli; looked for dev_matched.tsv" in refusal(cli("evaluate", nli, "--data-dir", folder))
    assert "Missing option '--train', or '--data-dir'" in refusal(cli("finetune", nli, tmp_path / "o"), code=2)
    assert "classification is a kind of task, but --data-dir needs a data set" in refusal(
        cli("finetune", nli, tmp_path / "o", "--data-dir", folder), code=2
    )


def test_a_model_of_a_data_set_of_one_s_own_keeps_its_labels_and_metrics(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    data, out = LAYOUTS["xnli"].write(tmp_path), tmp_path / "model"
    task = tmp_path / "chinese.toml"
    task.write_text(cli("tasks", "--show", "xnli").out.replace('["accuracy"]', '["matthews", "f1"]'))
    trained = cli("finetune", bundles["cls"], out, "--task", task, "--data-dir", data, "--epochs", 1)
    assert trained.code == 0, trained.err
    signature = Bundle.open(out).signature
    assert (signature.dataset, signature.class_names) == ("chinese", ("entailment", "neutral", "contradiction"))
    assert cli("evaluate", out, "--task", task, "--data-dir", data).out.startswith("matthews ")
    # Without its description a label of the file is unknown, and the folder is of no known data set.
    assert "label 'contradictory' is not one of" in refusal(cli("evaluate", out, data / "dev.tsv"))
    assert "trained on chinese: give its description as --task chinese.toml" in refusal(
        cli("evaluate", out, "--data-dir", data), code=2
    )
