"""The first line of a table: a header that is read as a row, or a row that is read as the header, is found.

A table with labels is never refused if header and row can't be distinguished: there is at most a warning. A table
without labels and without any known column name is refused: its first row would be missing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Result, tiny_tokenizer

from bertsym import BundleTokenizer, Columns, DataError, TableFormat
from bertsym.tasks.classification import Classification
from bertsym.tasks.task import Examples, Reading
from bertsym.text.table_format import Layout

Cli = Callable[..., Result]

SWALLOWED = (
    "Error: train.tsv, line 1: read as the header, but its label '1' is a class and its text is "
    '"Our friends won\'t buy this ana..."; give --no-header if it is a row, --header if it is not'
)
STOPPED = (
    "Error: test.tsv, line 1: 'index', 'sentence' is a header, and the training tables had none; "
    "give --header, or --no-header to read it as a row"
)
TEXT = "the happy cat sat on the mat ."
TOKENIZER = tiny_tokenizer()


@dataclass(frozen=True)
class Read:
    """A table that was read, and the warnings."""

    rows: Examples
    layout: Layout
    warnings: list[str]


def read(
    path: Path, lines: list[str], table_format: TableFormat, classes: list[str] | None = None, labelled: bool = True
) -> Read:
    """Write a TSV table and read it: without `classes` as a training table."""
    path.write_text("\n".join(lines) + "\n")
    warnings: list[str] = []
    task = Classification(class_names=tuple(classes or ()))
    rows = task.read(path, Reading(TOKENIZER, table_format, warn=warnings.append), labelled)
    return Read(rows, rows.layout, [warning.removeprefix(f"warning: {path}") for warning in warnings])


def refusal(path: Path, *arguments: object, **more: object) -> str:
    """The message about a table that is stopped, without its path."""
    with pytest.raises(DataError) as caught:
        read(path, *arguments, **more)  # type: ignore[arg-type]
    return str(caught.value).removeprefix(str(path))


def numbered(text: int, label: int | None = None, header: bool | None = None, pair: int | None = None) -> TableFormat:
    columns = [None if number is None else str(number) for number in (text, pair, label)]
    return TableFormat(header=header, columns=Columns(*columns))


# The tables of GLUE, and of SNLI, as they are published

MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2"
)
STS = "index genre filename year old_index source1 source2 sentence1 sentence2"
SNLI = (
    "gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse sentence1 sentence2 "
    "captionID pairID label1 label2 label3 label4 label5"
)
#: name -> header of train and dev, header of test, text, pair, label, classes
GLUE: dict[str, tuple[str, str, str, str | None, str, list[str]]] = {
    "SST-2": ("sentence label", "index sentence", "sentence", None, "label", ["0", "1"]),
    "MRPC": (
        *("Quality,#1 ID,#2 ID,#1 String,#2 String", "index,#1 ID,#2 ID,#1 String,#2 String"),
        *("#1 String", "#2 String", "Quality", ["0", "1"]),
    ),
    "QQP": (
        *("id qid1 qid2 question1 question2 is_duplicate", "id question1 question2"),
        *("question1", "question2", "is_duplicate", ["0", "1"]),
    ),
    "STS-B": (f"{STS} score", STS, "sentence1", "sentence2", "score", ["0.000", "3.750", "5.000"]),
    "MNLI": (
        *(f"{MNLI} label1 gold_label", MNLI, "sentence1", "sentence2", "gold_label"),
        ["neutral", "entailment", "contradiction"],
    ),
    "QNLI": (
        *("index question sentence label", "index question sentence", "question", "sentence", "label"),
        ["entailment", "not_entailment"],
    ),
    "RTE": (
        *("index sentence1 sentence2 label", "index sentence1 sentence2", "sentence1", "sentence2", "label"),
        ["entailment", "not_entailment"],
    ),
    "WNLI": (
        *("index sentence1 sentence2 label", "index sentence1 sentence2", "sentence1", "sentence2", "label"),
        ["0", "1"],
    ),
    "SNLI": (SNLI, SNLI, "sentence1", "sentence2", "gold_label", ["neutral", "entailment", "contradiction"]),
}
COLA_TEXT = "Our friends won't buy this analysis, let alone the next one we propose."
COLA_TRAIN = [f"gj04\t{i % 2}\t{'*' * (i % 2)}\t{TEXT}" for i in range(8)]
COLA_TEST = ["index\tsentence", *(f"{i}\t{TEXT}" for i in range(4))]
COLA = numbered(4, 2, header=False)
TRAINED_ON_COLA = TableFormat(trained=Layout(COLA.columns, header=False))


def glue_table(header: str, texts: list[str | None], label: str, classes: list[str]) -> list[str]:
    names = header.split("," if "," in header else " ")
    rows = [
        [TEXT if name in texts else classes[i % len(classes)] if name == label else f"{i}" for name in names]
        for i in range(12)
    ]
    return ["\t".join(row) for row in [names, *rows]]


@pytest.mark.parametrize("by", ["name", "number"])
@pytest.mark.parametrize("task", GLUE)
def test_the_tables_of_glue_are_read_without_a_warning(tmp_path: Path, task: str, by: str) -> None:
    header, test_header, text, pair, label, classes = GLUE[task]
    lines = glue_table(header, [text, pair], label, classes)
    names = lines[0].split("\t")
    chosen = [name and (name if by == "name" else str(names.index(name) + 1)) for name in (text, pair, label)]
    train = read(tmp_path / "train.tsv", lines, TableFormat(columns=Columns(*chosen)))
    as_trained = TableFormat(trained=train.layout)
    dev = read(tmp_path / "dev.tsv", lines, as_trained, sorted(classes))
    for table in (train, dev):
        assert (len(table.rows), {row.target for row in table.rows.rows}, table.warnings) == (12, {*classes}, [])

    test_lines = glue_table(test_header, [text, pair], "", [])
    moved = by == "number" and test_lines[0].split("\t").index(text) != names.index(text)
    if moved:
        message = refusal(tmp_path / "test.tsv", test_lines, as_trained, classes, labelled=False)
        assert f"and was {text!r} in training" in message or "no column" in message
        as_trained = TableFormat(columns=Columns(text, pair), trained=train.layout)
    test = read(tmp_path / "test.tsv", test_lines, as_trained, classes, labelled=False)
    assert (len(test.rows), test.warnings) == (12, [])


def test_cola_is_read_without_a_header_in_training_and_with_one_in_the_test_table(tmp_path: Path) -> None:
    train = read(tmp_path / "train.tsv", COLA_TRAIN, COLA)
    assert (len(train.rows), train.layout, train.warnings) == (8, TRAINED_ON_COLA.trained, [])
    dev = read(tmp_path / "dev.tsv", COLA_TRAIN, TRAINED_ON_COLA, ["0", "1"])
    assert (len(dev.rows), dev.warnings) == (8, [])
    given = TableFormat(header=True, columns=Columns("sentence"), trained=train.layout)
    test = read(tmp_path / "test.tsv", COLA_TEST, given, ["0", "1"], labelled=False)
    assert (len(test.rows), test.warnings) == (4, [])


# A header that would be read as a row


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            Columns(),
            ": no column 4, there are 2; the first line is 'index', 'sentence': give --header and --text-column",
        ),
        (
            Columns("2"),
            ", line 1: 'index', 'sentence' is a header, and the training tables had none; give --header, or "
            "--no-header to read it as a row",
        ),
        (
            Columns("sentence"),
            ": no column 'sentence' (the columns are 2, without a header); the first line is 'index', 'sentence': give "
            "--header",
        ),
    ],
    ids=["remembered columns", "another number", "a name"],
)
def test_a_header_is_not_predicted_where_training_had_none(tmp_path: Path, columns: Columns, message: str) -> None:
    table_format = TableFormat(columns=columns, trained=TRAINED_ON_COLA.trained)
    assert refusal(tmp_path / "test.tsv", COLA_TEST, table_format, ["0", "1"], labelled=False) == message


def test_no_header_reads_it_as_a_row_with_a_warning(tmp_path: Path) -> None:
    table_format = TableFormat(header=False, columns=Columns("2"), trained=TRAINED_ON_COLA.trained)
    found = read(tmp_path / "test.tsv", COLA_TEST, table_format, ["0", "1"], labelled=False)
    assert len(found.rows) == 5
    assert found.warnings == [", line 1: 'index', 'sentence' is a header, and --no-header reads it as a row"]


@pytest.mark.parametrize(
    "header", ["sentence\tlabel", "Text\tClass", "review\tgold_label", "#1 String\tacceptability"], ids=repr
)
def test_a_header_does_not_become_an_example_and_a_class(tmp_path: Path, header: str) -> None:
    lines = [header, *(f"{TEXT}\t{i % 2}" for i in range(6))]
    message = refusal(tmp_path / "t.tsv", lines, numbered(1, 2, header=False))
    shown = ", ".join(map(repr, header.split("\t")))
    assert message == (
        f", line 1: {shown} is a header, but --no-header reads it as a row; omit --no-header or remove the line"
    )
    # Nor is it a bad row of a dev table, to be skipped.
    trained = Layout(Columns("1", None, "2"), header=False)
    assert " is a header" in refusal(tmp_path / "t.tsv", lines, TableFormat(trained=trained), ["0", "1"])


def test_an_unknown_label_in_the_first_line_may_be_that_of_a_header(tmp_path: Path) -> None:
    trained = TableFormat(trained=Layout(Columns("1", None, "2"), header=False))
    message = refusal(tmp_path / "t.tsv", ["remark\tjudgement", f"{TEXT}\t0"], trained, ["0", "1"])
    assert message == (
        ", line 1: label 'judgement' is not one of the labels 0, 1; if the line is a header, give --header"
    )


def test_a_label_that_only_the_first_line_has_is_reported(tmp_path: Path) -> None:
    lines = ["remark\tjudgement", *(f"{TEXT}\t{'good' if i % 2 else 'bad'}" for i in range(6))]
    found = read(tmp_path / "t.tsv", lines, numbered(1, 2, header=False))
    assert found.warnings == [", line 1: no other row has the label 'judgement'; give --header if the line is a header"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # A table of words, one of which is the usual name of a column: its label is a class.
        (["question\tnoun", "sat\tverb", "text\tnoun"], []),
        # Labels that occur once are nothing special where others do too.
        ([f"{TEXT}\ta", f"{TEXT}\tb", f"{TEXT}\tb", f"{TEXT}\tc"], []),
        # One word decides nothing.
        (
            ["question\tnoun", "sat\tverb", "ran\tverb"],
            [", line 1: 'question', 'noun' is read as a row; give --header"],
        ),
        # A label that is not a word is not the name of a column.
        (["question\t?", "sat\t0", "ran\t1"], [", line 1: 'question', '?' is read as a row; give --header"]),
    ],
    ids=["a known class", "rare classes", "a word", "no word as label"],
)
def test_a_row_that_only_resembles_a_header_is_read(tmp_path: Path, lines: list[str], expected: list[str]) -> None:
    found = read(tmp_path / "t.tsv", lines, numbered(1, 2, header=False))
    assert len(found.rows) == len(lines)
    assert [warning.removesuffix(" if it is a header") for warning in found.warnings] == expected


@pytest.mark.parametrize(
    ("line", "certain"),
    [("sentence1\tsentence2", True), ("text_a\ttext_b", True), ("premise\thypothesis", False), ("text\tcat", None)],
)
def test_a_pair_of_words_may_be_a_pair_of_texts(tmp_path: Path, line: str, certain: bool | None) -> None:
    lines, trained = [line, "cat\tdog"], TableFormat(trained=Layout(Columns("1", "2"), header=False))
    if certain:
        assert " is a header" in refusal(tmp_path / "t.tsv", lines, trained, ["0", "1"], labelled=False)
    else:
        found = read(tmp_path / "t.tsv", lines, trained, ["0", "1"], labelled=False)
        assert (len(found.rows), len(found.warnings)) == (2, 0 if certain is None else 1)


# A row that would be read as the header


@pytest.mark.parametrize("classes", [None, ["0", "1"]], ids=["train", "dev"])
def test_a_first_row_is_not_taken_as_the_header(tmp_path: Path, classes: list[str] | None) -> None:
    message = refusal(tmp_path / "t.tsv", COLA_TRAIN, numbered(4, 2), classes)
    assert message == (
        ", line 1: read as the header, but its label '0' is a class and its text is 'the happy cat sat on the mat .'; "
        "give --no-header if it is a row, --header if it is not"
    )


def test_a_first_row_is_not_taken_as_the_header_where_labels_are_not_read(tmp_path: Path) -> None:
    as_trained = TableFormat(columns=Columns("4"), trained=Layout(Columns("1", None, "2")))
    assert "its label '0' is a class" in refusal(tmp_path / "t.tsv", COLA_TRAIN, as_trained, ["0", "1"], labelled=False)


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_csv_is_checked_as_tsv_and_json_lines_have_no_header(tmp_path: Path, kind: str) -> None:
    separator = {"tsv": "\t", "csv": ","}[kind]
    lines = [separator.join((TEXT, str(i % 2))) for i in range(4)]
    assert "read as the header" in refusal(tmp_path / f"t.{kind}", lines, numbered(1, 2))
    records = ['{"1": "sentence", "2": "label"}', '{"1": "the cat", "2": "0"}', '{"1": "the dog", "2": "1"}']
    found = read(tmp_path / "t.jsonl", records, numbered(1, 2, header=False))
    assert (len(found.rows), found.warnings) == (3, [])


def test_a_first_row_with_a_dropped_label_is_not_taken_as_the_header(tmp_path: Path) -> None:
    lines = [f"{TEXT}\t-", *(f"{TEXT}\t{i % 2}" for i in range(6))]
    table_format = TableFormat(columns=Columns("1", None, "2"), drop_labels=("-",))
    assert "its label '-' is a class" in refusal(tmp_path / "t.tsv", lines, table_format)


@pytest.mark.parametrize("name", ["sentence", "4"])
def test_a_missing_column_may_be_due_to_a_missing_header(tmp_path: Path, name: str) -> None:
    lines = [f"{TEXT}\t0", f"{TEXT}\t1"]
    trained = TableFormat(trained=Layout(Columns(name, None, "label")))
    message = refusal(tmp_path / "t.tsv", lines, trained, ["0", "1"])
    assert message.endswith("; if the first line is a row, give --no-header and column numbers")
    assert len(message) < 200


def test_a_class_name_in_a_short_header_proves_nothing(tmp_path: Path) -> None:
    lines = ["remark\ttoxic", *(f"{TEXT}\t{'toxic' if i % 2 else 'harmless'}" for i in range(6))]
    found = read(tmp_path / "t.tsv", lines, numbered(1, 2))
    assert len(found.rows) == 6
    assert found.warnings == [
        ", line 1: read as the header, but its label 'toxic' is a class; give --no-header if it is a row"
    ]


@pytest.mark.parametrize(
    ("header", "given", "warned"),
    [
        ("0\t1", None, False),  # as pandas numbers columns
        ("\t0\t1", None, False),  # with an index
        ("1\t2", None, False),
        ("text\t1", None, False),  # a usual name
        ("What do you think of the film?\tAnswer", None, True),
        ("What do you think of the film?\tAnswer", True, False),
    ],
    ids=repr,
)
def test_a_header_that_resembles_a_row_is_a_header(
    tmp_path: Path, header: str, given: bool | None, warned: bool
) -> None:
    index = header.startswith("\t")
    lines = [header, *("7\t" * index + f"{TEXT}\t{i % 3}" for i in range(6))]
    found = read(tmp_path / "t.tsv", lines, numbered(1 + index, 2 + index, header=given))
    assert (len(found.rows), len(found.warnings)) == (6, warned)


@pytest.mark.parametrize("row", [TEXT, "the cat", f"{TEXT}\t17", "the cat\t17"], ids=repr)
def test_a_first_row_without_a_label_is_not_taken_as_the_header(tmp_path: Path, row: str) -> None:
    lines, trained = [row, row, row], Layout(Columns("1", None, "2"), names=Columns("remark", None, "toxic"))
    message = refusal(tmp_path / "t.tsv", lines, TableFormat(trained=trained), ["0", "1"], labelled=False)
    assert message.startswith(", line 1: read as the header, but ")
    assert message.endswith("; give --no-header if it is a row, --header if it is not")
    for header, rows in ((True, 2), (False, 3)):
        given = TableFormat(header=header, trained=trained)
        assert len(read(tmp_path / "t.tsv", lines, given, ["0", "1"], labelled=False).rows) == rows


@pytest.mark.parametrize("header", ["remark", "remark\tid", "What do you think?\tid", "0", "sentence"])
def test_a_header_without_a_label_is_one_if_it_has_a_known_name(tmp_path: Path, header: str) -> None:
    trained = TableFormat(trained=Layout(Columns("1", None, "3"), names=Columns("remark", None, "toxic")))
    row = "\t".join([TEXT, "17"][: header.count("\t") + 1])
    assert len(read(tmp_path / "t.tsv", [header, row, row], trained, ["0", "1"], labelled=False).rows) == 2


def test_header_takes_any_first_line_as_the_header(tmp_path: Path) -> None:
    found = read(tmp_path / "t.tsv", COLA_TRAIN, numbered(4, 2, header=True))
    assert len(found.rows) == 7
    assert [re.sub(r" but .*;", "", warning) for warning in found.warnings] == [
        ", line 1: read as the header, give --no-header if it is a row"
    ]


def test_a_numbered_column_with_another_name_is_read_with_a_warning(tmp_path: Path) -> None:
    trained = TableFormat(trained=Layout(Columns("1", None, "2"), names=Columns("sentence", None, "label")))
    found = read(tmp_path / "t.tsv", ["Phrase\tlabel", f"{TEXT}\t0"], trained, ["0", "1"])
    assert found.warnings == [
        ": column 1 is 'Phrase' here, and was 'sentence' in training; give --text-column if it is not the text"
    ]


# The commands


@pytest.mark.parametrize("command", ["predict", "tokenize"])
def test_no_row_of_a_table_without_labels_and_header_is_lost(
    cli: Cli, classifier: Path, tmp_path: Path, command: str
) -> None:
    table = tmp_path / "t.tsv"
    table.write_text(f"{TEXT}\nthe cat\n")
    arguments = (command, classifier, table, "--text-column", 1)
    stopped = cli(*arguments)
    assert (stopped.code, stopped.out) == (1, "")
    assert "read as the header" in stopped.error_line
    counts = [len(cli(*arguments, given).out.splitlines()) for given in ("--header", "--no-header")]
    assert counts == ([2, 3] if command == "predict" else [1, 2])


def test_predict_stops_at_a_header_that_the_training_tables_did_not_have(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path
) -> None:
    train, test, model = tmp_path / "train.tsv", tmp_path / "test.tsv", tmp_path / "model"
    train.write_text("\n".join([f"gj04\t1\t\t{COLA_TEXT}", *COLA_TRAIN]))
    test.write_text("\n".join(COLA_TEST))
    columns = ("--text-column", 4, "--label-column", 2)
    arguments = ("finetune", bundles["cls"], "--train", train, "--dev", train, model, "--epochs", 1, *columns)
    swallowed = cli(*arguments)
    assert (swallowed.code, swallowed.error_line.replace(f"{tmp_path}/", "")) == (1, SWALLOWED)
    assert cli(*arguments, "--no-header").code == 0

    for command in ("predict", "tokenize"):
        stopped = cli(command, model, test, "--text-column", 2)
        assert (stopped.code, stopped.out) == (1, "")
        assert stopped.error_line.replace(f"{tmp_path}/", "") == STOPPED
    predicted = cli("predict", model, test, "--header", "--text-column", "sentence")
    assert (predicted.code, len(predicted.out.splitlines()), predicted.err) == (0, 5, "")

    test.write_text("\n".join(["sentence\tlabel", *(f"{TEXT}\t{i % 2}" for i in range(4))]))
    stopped = cli("evaluate", model, test, "--text-column", 1, "--on-error", "skip")
    assert "'sentence', 'label' is a header" in stopped.error_line


def test_a_stream_with_a_header_is_reported(classifier: Path) -> None:
    warnings: list[str] = []
    stream = io.BytesIO(f"index\tsentence\n1\t{TEXT}\n".encode())
    assert len(list(BundleTokenizer.open(classifier).encode_table(stream, warn=warnings.append))) == 1
    assert warnings == [
        "warning: standard input, line 1: 'index', 'sentence' is read as a text; give --format tsv if it is a header"
    ]
