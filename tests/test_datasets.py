"""Data sets: the known ones, files in the same format, their columns in tables, and `bertsym tasks`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from refusals import refusal

from bertsym import Columns, DataError, UsageError, find_dataset
from bertsym.datasets.dataset import TASK_KINDS
from bertsym.datasets.registry import GLUE, KNOWN, known_datasets
from bertsym.tasks import TASKS, kind_of
from bertsym.text.header import has_usual_names
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Row, Table

Cli = Callable[..., Result]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


# Known data sets


def test_each_known_data_set_has_labels_metrics_and_the_names_of_its_files() -> None:
    assert [dataset.name for dataset in known_datasets()] == list(KNOWN)
    for dataset in known_datasets():
        assert dataset.description
        assert dataset.metrics
        assert dataset.kind not in TASKS or kind_of(dataset).name == dataset.kind
        assert (dataset.labels == ()) == (dataset.kind == "regression")
        assert dataset.columns.text
        assert set(dataset.files) == ({"test"} if dataset.name == "ax" else {"train", "dev", "test"})
        assert (dataset.submission is not None) == (dataset.name in GLUE)


def test_the_columns_of_known_data_sets_are_names_of_headers() -> None:
    """By them a header is recognised that would be read as a row, and the reverse."""
    for dataset in known_datasets():
        names = [name for layout in (dataset.layout, dataset.test_layout) for name in vars(layout.columns).values()]
        for name in names:
            assert name is None or name.isdigit() or has_usual_names([name]), (dataset.name, name)


def test_the_file_of_a_split_is_found_in_the_folder_or_in_that_of_the_whole_benchmark(tmp_path: Path) -> None:
    (tmp_path / "MNLI").mkdir()
    nested = written(tmp_path / "MNLI", "dev_mismatched.tsv", "")
    assert find_dataset("mnli-mm").find_file(tmp_path, "dev") == nested
    assert find_dataset("mnli-mm").find_file(tmp_path / "MNLI", "dev") == nested
    with pytest.raises(DataError, match=r": no dev file of mnli; looked for dev_matched\.tsv, MNLI/dev_matched\.tsv$"):
        find_dataset("mnli").find_file(tmp_path, "dev")
    with pytest.raises(DataError, match="nowhere: not a folder"):
        find_dataset("mnli").find_file(tmp_path / "nowhere", "dev")
    with pytest.raises(UsageError, match="ax has no train file; its splits: test"):
        find_dataset("ax").find_file(tmp_path, "train")


# Files of one's own

OWN = """\
kind = "classification"
description = "Reviews of a shop"
labels = ["bad", "good"]
drop_labels = ["?"]
metrics = ["f1", "accuracy"]
positive_label = "good"
format = "csv"

[label_aliases]
poor = "bad"

[columns]
text = "review"
label = 3

[files]
train = "all.csv"

[test]
header = false
columns = { text = 2, index = 1 }

[submission]
file = "answers.tsv"
labels = { good = "1", bad = "0" }
"""


def test_a_file_describes_a_data_set_of_one_s_own(tmp_path: Path) -> None:
    dataset = find_dataset(str(written(tmp_path, "shop.toml", OWN)))
    assert (dataset.name, dataset.dataset, dataset.kind) == ("shop", "shop", "classification")
    assert dataset.columns == Columns("review", None, "3")
    assert dataset.layout.header
    assert not dataset.test_layout.header
    assert (dataset.test_layout.columns, dataset.test_layout.index) == (Columns("2", None, "3"), "1")
    assert dataset.files == {"train": ("all.csv",)}
    assert dataset.submission is not None
    assert dataset.submission.labels == {"good": "1", "bad": "0"}
    assert dataset.submission.header == ("index", "prediction")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('kind = "classification"', 'kind = "sorting"'), 'kind: "sorting" is not one of "classification", '),
        (('kind = "classification"\n', ""), 'the key "kind" is missing'),
        (("positive_label", "positve_label"), "positve_label: unknown key; .*; did you mean positive_label?"),
        (('text = "review"', 'txt = "review"'), "columns.txt: unknown key; the keys are text, pair, label, index; did"),
        (('positive_label = "good"', 'positive_label = "great"'), "positive_label: 'great' is not one of labels bad, "),
        (('poor = "bad"', 'poor = "worse"'), "label_aliases.poor: 'worse' is not one of labels bad, good"),
        (('["bad", "good"]', '["bad", "bad"]'), r"labels\[1\]: the label 'bad' is repeated"),
        (('["bad", "good"]', '["bad"]'), "labels: 1 elements, expected at least 2"),
        (('["bad", "good"]', '["bad", 1]'), r"labels\[1\]: 1 is not a string"),
        (("label = 3", "label = 0"), "columns.label: 0 is not in the range 1 to "),
        (("header = false", "header = 1979-05-27"), 'test.header: "1979-05-27" is not true or false'),
        (('"all.csv"', '"../all.csv"'), "files.train: '../all.csv' is not the path of a file below the data set's "),
        (('"all.csv"', "[]"), "files.train: 0 elements, expected at least 1"),
        (("train =", "trian ="), "files.trian: unknown key; the keys are train, dev, test; did you mean train?"),
        (("header = false", 'header = "no"'), 'test.header: "no" is not true or false'),
        (
            ('kind = "classification"', 'kind = "tagging"'),
            "submission: the answers of tagging are not labels",
        ),
        (("answers.tsv", "a/b.tsv"), 'submission.file: "a/b.tsv" is not a file name'),
        (("good = ", "great = "), "submission.labels: 'great' is not one of the labels bad, good"),
        (('format = "csv"', 'format = "xls"'), 'format: "xls" is not one of "tsv", "csv", "jsonl"'),
        (('[files]\ntrain = "all.csv"', "[files"), "not valid TOML: .*line"),
    ],
    ids=lambda case: case[1].partition("\n")[0] if isinstance(case, tuple) else "",
)
def test_a_fault_of_the_file_is_named_with_its_key(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in OWN
    path = written(tmp_path, "shop.toml", OWN.replace(*change, 1))
    with pytest.raises(DataError, match=message.replace("?", r"\?")) as error:
        find_dataset(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_file_must_exist_and_have_a_name_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        find_dataset(str(tmp_path / "shop.toml"))
    for name in ("mrpc", "tagging"):
        with pytest.raises(UsageError, match=f"{name} is the name of a known task or data set; give the file another"):
            find_dataset(str(written(tmp_path, f"{name}.toml", OWN)))
    (tmp_path / "shop.toml").write_bytes(b"kind = \xff")
    with pytest.raises(DataError, match="not UTF-8 text: byte 7"):
        find_dataset(str(tmp_path / "shop.toml"))


def test_unknown_metrics_and_kinds_are_refused_with_what_is_known(tmp_path: Path) -> None:
    path = written(tmp_path, "shop.toml", OWN.replace('"accuracy"', '"acuracy"'))
    with pytest.raises(UsageError, match=r"task shop: metrics: 'acuracy' is not one of accuracy, .*; did you mean"):
        kind_of(find_dataset(str(path)))
    with pytest.raises(UsageError, match="task masked_lm: masked_lm is not supported; the supported kinds are"):
        kind_of(find_dataset("masked_lm"))


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(UsageError, match=r"task 'SST2' is not one of classification, .*, or a file NAME\.toml; did"):
        find_dataset("SST2")


# In tables


def test_columns_of_a_known_data_set_are_answered_with_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "train.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n")
    with pytest.raises(DataError, match=r"which column is the label.*; these are the columns of qqp: give --task"):
        Table(path, TableFormat())
    path = written(tmp_path, "train.tsv", "sentence1\tsentence2\tscore\na\tb\t2.5\n")
    with pytest.raises(DataError, match=r"these are the columns of sts-b: give --task"):  # not of ax, without labels
        Table(path, TableFormat())
    for record, kind in (('{"tokens": ["a"], "tags": ["O"]}', "tagging"), ('{"version": "1.1", "data": []}', "qa")):
        path = written(tmp_path, "train.jsonl", f"{record}\n")
        with pytest.raises(DataError, match=f"these are the columns of {kind}: give --task"):
            raise next(row for row in Table(path, TableFormat()).each() if isinstance(row, DataError))
    with pytest.raises(UsageError, match=r"'\.conll'; give .*; sentences in CoNLL's format need --task tagging"):
        Table(written(tmp_path, "train.conll", "a O\n"), TableFormat())
    path = written(tmp_path, "test.tsv", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\ta\tb\n")
    with pytest.raises(DataError, match=r"which column is the text.*; these are the columns of mrpc: give --task"):
        Table(path, TableFormat(), need_label=False)
    path = written(tmp_path, "own.tsv", "question1\tquestion2\tanswer\na\tb\t0\n")
    with pytest.raises(DataError, match=r"which column is the label\? Give --label-column \(the columns are [^;]*\)$"):
        Table(path, TableFormat())


def test_labels_are_read_under_their_aliases(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "text\tlabel\na\tcontradictory\nb\tcontradiction\nc\tneutral\n")
    table = Table(path, TableFormat(label_aliases={"contradictory": "contradiction"}))
    assert [row.label for row in table] == ["contradiction", "contradiction", "neutral"]


def test_short_rows_may_end_after_the_last_column_that_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "label\ttext\tlabel1\tlabel2\nx\ta\tx\nx\tb\nx\n")
    rows = list(Table(path, TableFormat(short_rows=True)).each())
    assert rows[:2] == [Row(2, "a", None, "x"), Row(3, "b", None, "x")]
    assert str(rows[2]).endswith("line 4: 1 columns, 4 expected")
    with pytest.raises(DataError, match="line 2: 3 columns, 4 expected"):
        list(Table(path, TableFormat()))


# bertsym tasks


def test_tasks_lists_kinds_and_data_sets_in_columns(cli: Cli) -> None:
    lines = cli("tasks").out.splitlines()
    assert [line.split()[0] for line in lines] == ["task", *TASKS, *KNOWN]
    described = [TASK_KINDS[name] for name in TASKS] + [dataset.description for dataset in known_datasets()]
    start = lines[0].index("description")
    assert [line[start:] for line in lines[1:]] == described
    listed = json.loads(cli("tasks", "--json").out)
    assert [entry["name"] for entry in listed] == [*TASKS, *KNOWN]
    assert json.loads(cli("tasks", "--json", "--show", "qnli").out) == listed[len(TASKS) + KNOWN.index("qnli")]


def test_what_tasks_shows_is_a_template_for_a_file(cli: Cli, tmp_path: Path) -> None:
    for name in KNOWN:
        shown = written(tmp_path, f"my-{name}.toml", cli("tasks", "--show", name).out)
        own, known = find_dataset(str(shown)), find_dataset(name)
        assert vars(own) == {**vars(known), "name": f"my-{name}"}
        assert cli("tasks", "--show", shown).out == shown.read_text()


def test_tasks_shows_data_sets_only(cli: Cli) -> None:
    assert "classification is a kind of task, which takes any table" in refusal(
        cli("tasks", "--show", "classification"), code=2
    )
    assert "; did you mean sst-2?" in refusal(cli("tasks", "--show", "SST-2"), code=2)
