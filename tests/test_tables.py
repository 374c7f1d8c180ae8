"""Tables: TSV as GLUE publishes it, CSV, JSON Lines, and what is said about a damaged one."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import tiny_tokenizer

from bertsym import Columns, DataError, TableFormat, UsageError
from bertsym.datasets.registry import find_dataset
from bertsym.tasks.classification import Classification
from bertsym.tasks.task import Reading
from bertsym.text.tables import Row, Table

MRPC = Path(__file__).resolve().parents[2] / "shared" / "data" / "mrpc" / "dev.tsv"
BOM = "\ufeff"
BY_SUFFIX = TableFormat()
TOKENIZER = tiny_tokenizer()


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path, table_format: TableFormat = BY_SUFFIX, need_label: bool = True) -> list[Row]:
    return list(Table(path, table_format, need_label))


def error_of(path: Path, table_format: TableFormat = BY_SUFFIX) -> str:
    """What is said about a table that can't be read: one line that begins with the file."""
    with pytest.raises(DataError) as caught:
        Classification().read(path, Reading(TOKENIZER, table_format))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def columns(text: str | None = None, pair: str | None = None, label: str | None = None) -> TableFormat:
    return TableFormat(columns=Columns(text, pair, label))


# TSV


def test_a_tsv_row_has_its_line_text_pair_and_label(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "label\ttext\ttext_pair\nyes\tthe cat\ta dog\nno\tb\tc")
    assert rows_of(path) == [Row(2, "the cat", "a dog", "yes"), Row(3, "b", "c", "no")]


def test_a_byte_order_mark_does_not_belong_to_the_first_header_name(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", BOM + "label\ttext\nyes\tthe cat\n")
    assert rows_of(path) == [Row(2, "the cat", None, "yes")]


def test_a_byte_order_mark_does_not_belong_to_the_first_text_without_a_header(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", BOM + "the cat\tyes\n")
    assert rows_of(path, TableFormat(header=False, columns=Columns("1", None, "2")))[0].text == "the cat"


def test_quotation_marks_in_tsv_are_plain_text(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", 'label\ttext\nyes\t" he said\nno\t"" she " said ""\n')
    assert [row.text for row in rows_of(path)] == ['" he said', '"" she " said ""']


def test_tsv_lines_may_end_in_carriage_return_and_line_feed(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "text\tlabel\r\nthe cat\tyes\r\n\r\na dog\tno\r\n")
    assert rows_of(path) == [Row(2, "the cat", None, "yes"), Row(4, "a dog", None, "no")]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\r"])
@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, kind: str, separator: str) -> None:
    text = f"one{separator}two"
    content = {
        "tsv": f"label\ttext\nyes\t{text}\nno\tx\n",
        "csv": f'label,text\nyes,"{text}"\nno,x\n',
        "jsonl": "".join(
            json.dumps({"label": label, "text": value}, ensure_ascii=False) + "\n"
            for label, value in (("yes", text), ("no", "x"))
        ),
    }[kind]
    rows = rows_of(written(tmp_path, f"t.{kind}", content))
    assert [row.text for row in rows] == [text, "x"]
    assert rows[1].line == rows[0].line + 1


def test_blank_tsv_lines_are_left_out_but_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "\nlabel\ttext\n\nyes\ta\n\n\nno\tb\n\n")
    assert [row.line for row in rows_of(path)] == [4, 7]


@pytest.mark.parametrize(("line", "found"), [("yes", 1), ("yes\tb\tc", 3)])
def test_a_tsv_line_of_another_width_is_named(tmp_path: Path, line: str, found: int) -> None:
    path = written(tmp_path, "t.tsv", f"label\ttext\nyes\ta\n\n{line}\n")
    assert error_of(path) == f", line 4: {found} columns, 2 expected"


# Columns


def test_columns_are_found_by_header_name(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "id\tgold\tbody\tother\n7\tyes\tthe cat\ta dog\n")
    assert rows_of(path, columns("body", "other", "gold")) == [Row(2, "the cat", "a dog", "yes")]


def test_columns_are_found_by_number_from_one(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "id\tgold\tbody\n7\tyes\tthe cat\n")
    assert rows_of(path, columns("3", None, "2")) == [Row(2, "the cat", None, "yes")]


def test_a_header_name_that_is_a_number_is_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "2\t1\nthe cat\tyes\n")
    assert rows_of(path, columns("2", None, "1")) == [Row(2, "the cat", None, "yes")]


def test_without_a_header_the_first_line_is_a_row(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "yes\tthe cat\nno\ta dog\n")
    table_format = TableFormat(header=False, columns=Columns("2", None, "1"))
    assert rows_of(path, table_format) == [Row(1, "the cat", None, "yes"), Row(2, "a dog", None, "no")]


@pytest.mark.parametrize("number", ["0", "3", "99999999999999999999"])
def test_a_column_number_beyond_the_table_is_an_error(tmp_path: Path, number: str) -> None:
    path = written(tmp_path, "t.tsv", "text\tlabel\na\tyes\n")
    assert error_of(path, columns(number)) == f": no column {number}, there are 2: 'text', 'label'"


def test_a_missing_column_is_reported_with_the_existing_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "id\tlabel\na\tyes\n")
    assert error_of(path, columns("body")) == ": no column 'body' (the columns are 'id', 'label')"


def test_a_column_name_without_a_header_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "a\tyes\n")
    message = error_of(path, TableFormat(header=False, columns=Columns("text", None, "2")))
    assert message == ": no column 'text' (the columns are 2, without a header)"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("label\ttext", Columns("text", None, "label")),
        ("sentence1\tsentence2\tlabel", Columns("sentence1", "sentence2", "label")),
        ("idx\tquestion1\tquestion2\ttarget", Columns("question1", "question2", "target")),
        ("premise\thypothesis\tgold_label", Columns("premise", "hypothesis", "gold_label")),
        ("text_a\ttext_b\tclass", Columns("text_a", "text_b", "class")),
        ("sentence\tlabel", Columns("sentence", None, "label")),
    ],
)
@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_usual_header_names_are_found(tmp_path: Path, kind: str, header: str, expected: Columns) -> None:
    names = header.split("\t")
    if kind == "jsonl":
        content = json.dumps({name: f"the {name}" for name in names}) + "\n"
    else:
        separator = {"tsv": "\t", "csv": ","}[kind]
        content = f"{separator.join(names)}\n{separator.join(f'the {name}' for name in names)}\n"
    table = Table(written(tmp_path, f"t.{kind}", content), TableFormat())
    (row,) = table
    assert table.columns == expected
    pair = f"the {expected.pair}" if expected.pair else None
    assert (row.text, row.pair, row.label) == (f"the {expected.text}", pair, f"the {expected.label}")


def test_a_second_text_is_not_guessed_beside_a_text_that_was_given(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "sentence1\tsentence2\tlabel\na\tb\tyes\n")
    assert rows_of(path, columns("sentence2")) == [Row(2, "b", None, "yes")]


def test_an_unknown_text_column_is_an_error_that_lists_the_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "body\tlabel\na\tyes\n")
    assert error_of(path) == ": which column is the text? Give --text-column (the columns are 'body', 'label')"


def test_an_unknown_label_column_is_an_error_that_lists_the_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text,kind\na,yes\n")
    assert error_of(path) == ": which column is the label? Give --label-column (the columns are 'text', 'kind')"


def test_an_unknown_text_column_without_a_header_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "a\tyes\n")
    assert error_of(path, TableFormat(header=False)) == (
        ": which column is the text? Give --text-column (there is no header)"
    )


def test_a_label_that_is_not_needed_may_be_absent(tmp_path: Path) -> None:
    for name, content in (("t.tsv", "text\na b\n"), ("t.jsonl", '{"text": "a b"}\n')):
        (row,) = rows_of(written(tmp_path, name, content), need_label=False)
        assert (row.text, row.label) == ("a b", None)


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_two_columns_of_the_wanted_name_are_an_error(tmp_path: Path, kind: str) -> None:
    separator = {"tsv": "\t", "csv": ","}[kind]
    path = written(tmp_path, f"t.{kind}", "text,text,label\na,b,yes\n".replace(",", separator))
    assert error_of(path) == ": 2 columns are named 'text': give its number, from 1"


def test_repeated_names_of_unread_columns_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", "id\tid\ttext\tlabel\n1\t2\ta\tyes\n")
    assert rows_of(path) == [Row(2, "a", None, "yes")]


# CSV


def test_csv_fields_may_be_quoted(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", BOM + 'text,label\r\n"a, b and ""c""",yes\r\nplain,no\r\n')
    assert rows_of(path) == [Row(2, 'a, b and "c"', None, "yes"), Row(3, "plain", None, "no")]


def test_a_csv_row_has_the_line_on_which_it_starts(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", 'text,label\n"one\ntwo\n\nthree",yes\n\nnext,no\n"x\ny",yes\n')
    rows = rows_of(path)
    assert [(row.line, row.text) for row in rows] == [(2, "one\ntwo\n\nthree"), (7, "next"), (8, "x\ny")]


def test_a_csv_error_after_an_embedded_line_break_has_the_right_line(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", 'text,label\n"one\ntwo",yes\nonly one field\n')
    assert error_of(path) == ", line 4: 1 columns, 2 expected"


def test_a_csv_quote_that_is_never_closed_is_an_error_where_it_opens(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", 'text,label\na,yes\n"b,no\nc,yes\nd,no\n')
    why = "not valid CSV: unexpected end of data (the quoted cell that begins on line {} never ends)"
    assert error_of(path) == f", line 3: {why.format(3)}"
    path = written(tmp_path, "t.csv", 'text,label\n"a ""b""\nc","no\nd,no\n')
    assert error_of(path) == f", line 2: {why.format(3)}"


def test_text_after_a_closing_csv_quote_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", 'text,label\n"a" b,yes\n')
    assert error_of(path).startswith(", line 2: not valid CSV: ")


def test_a_csv_field_may_be_a_megabyte_long(tmp_path: Path) -> None:
    long = "word " * 210_000
    path = written(tmp_path, "t.csv", f'text,label\n"{long}",yes\nshort,no\n')
    rows = rows_of(path)
    assert [len(row.text) for row in rows] == [len(long), 5]
    assert len(long) > 1 << 20


# JSON Lines


def test_json_lines_are_read_by_key(tmp_path: Path) -> None:
    path = written(
        tmp_path, "t.jsonl", '{"text": "a \\u00e9", "label": "yes", "more": [1]}\n\n{"text": "b", "label": 0}'
    )
    assert rows_of(path) == [Row(1, "a é", None, "yes"), Row(3, "b", None, "0")]


def test_json_integer_labels_are_labels(tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", "".join(f'{{"text": "a", "label": {n}}}\n' for n in (0, 1, -1, 12)))
    assert [row.label for row in rows_of(path)] == ["0", "1", "-1", "12"]


def test_json_numbers_and_truths_are_labels_as_they_are_spelt(tmp_path: Path) -> None:
    content = "".join(f'{{"text": "a", "label": {label}}}\n' for label in ("1.0", "1.5", "true", "1e3"))
    assert [row.label for row in rows_of(written(tmp_path, "t.jsonl", content))] == ["1", "1.5", "true", "1000"]


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("NaN", "the label NaN is not a finite number"),
        ("-Infinity", "the label -Infinity is not a finite number"),
        ("1e400", "the label Infinity is not a finite number"),
        ("-0", "the label -0 is the same number as 0, write 0"),
        ("-0.0", "the label -0 is the same number as 0, write 0"),
        ("9007199254740993.0", "the label 9007199254740992.0 is too large, write it as a string"),
        ('0, "label": 1', "the key 'label' is repeated"),
    ],
)
def test_a_json_label_that_is_not_one_number_is_refused(tmp_path: Path, label: str, why: str) -> None:
    path = written(tmp_path, "t.jsonl", f'{{"text": "a", "label": 1}}\n{{"text": "a", "label": {label}}}\n')
    assert error_of(path) == f", line 2: {why}"


def test_json_values_that_are_not_read_may_be_anything(tmp_path: Path) -> None:
    path = written(
        tmp_path, "t.jsonl", '{"text": "a", "label": 0, "x": NaN, "y": 1e400, "z": -0, "z": {"a": 1, "a": 2}}\n'
    )
    assert rows_of(path) == [Row(1, "a", None, "0")]


@pytest.mark.parametrize("label", ["null", "[1]", '{"a": 1}'])
def test_other_json_values_are_not_labels(tmp_path: Path, label: str) -> None:
    path = written(tmp_path, "t.jsonl", f'{{"text": "a", "label": 1}}\n{{"text": "a", "label": {label}}}\n')
    assert error_of(path) == ", line 2: 'label' is not a string or a number"


@pytest.mark.parametrize("text", ["3", "null", "true", '["a"]'])
def test_a_json_text_is_a_string(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, "t.jsonl", f'{{"text": {text}, "label": 1}}\n')
    assert error_of(path) == ", line 1: 'text' is not a string"


def test_a_missing_json_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", '{"text": "a", "label": 1}\n\n{"text": "a", "lable": 1}\n')
    assert error_of(path) == ", line 3: no key 'label'"


def test_a_column_number_is_not_a_json_key(tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", '{"text": "a", "label": 1}\n')
    assert error_of(path, columns("2")) == (
        ", line 1: no key '2' (JSON Lines have no numbered columns: give --text-column KEY)"
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1, 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("text\tlabel", "not a JSON value"),
        ('{"text": "a"', "not a JSON value"),
        ("[" * 100_000, "not a JSON value"),
        ('{"text": "a", "label": ' + "1" * 10_000 + "}x", "not a JSON value"),
    ],
    ids=["array", "string", "tsv", "cut", "deep", "digits"],
)
def test_a_line_that_is_not_a_json_object_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = written(tmp_path, "t.jsonl", f'{{"text": "a", "label": 1}}\n{line}\n')
    assert error_of(path) == f", line 2: {why}"


def test_a_lone_surrogate_is_not_a_valid_text(tmp_path: Path) -> None:
    """JSON can spell it, but no UTF-8 file and no tokenizer can hold it."""
    path = written(tmp_path, "t.jsonl", '{"text": "a", "label": 1}\n{"text": "a \\ud83d b", "label": 1}\n')
    assert error_of(path).startswith(", line 2: ")


# Any table


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path: Path, kind: str) -> None:
    content = {
        "tsv": b"text\tlabel\na\tyes\ncaf\xe9\tno\n",
        "csv": b"text,label\na,yes\ncaf\xe9,no\n",
        "jsonl": b'{"text": "a", "label": 1}\n\n{"text": "caf\xe9", "label": 1}\n',
    }[kind]
    assert ", line 3: not UTF-8 text" in error_of(written(tmp_path, f"t.{kind}", content))


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
@pytest.mark.parametrize("content", ["", BOM, "\n\n"], ids=["nothing", "mark", "blank"])
def test_an_empty_file_is_an_error(tmp_path: Path, kind: str, content: str) -> None:
    assert error_of(written(tmp_path, f"t.{kind}", content)) in (": empty file", ": no rows")


@pytest.mark.parametrize(("kind", "header"), [("tsv", "text\tlabel\n"), ("csv", "text,label\n")])
def test_a_header_without_rows_is_an_error(tmp_path: Path, kind: str, header: str) -> None:
    assert error_of(written(tmp_path, f"t.{kind}", header)) == ": no rows"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("\tb\tyes", "the text is empty"),
        (" \u3000\tb\tyes", "the text is empty"),
        ("a\t\tyes", "the second text is empty"),
        ("a\tb\t", "the label is empty"),
        ("a\tb\t  ", "the label is empty"),
    ],
)
@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_an_empty_value_is_an_error(tmp_path: Path, kind: str, line: str, why: str) -> None:
    names, values = ["text", "text_pair", "label"], line.split("\t")
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row))) for row in ("abc", values)]
    else:
        separator = {"tsv": "\t", "csv": ","}[kind]
        lines = [separator.join(row) for row in (names, "abc", values)]
    path = written(tmp_path, f"t.{kind}", "\n".join(lines) + "\n")
    assert error_of(path) == f", line {len(lines)}: {why}"


def test_spaces_around_a_label_do_not_make_another_label(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text,label\na, yes\nb,yes \n")
    assert {row.label for row in rows_of(path)} == {"yes"}


def test_an_unknown_suffix_needs_a_format(tmp_path: Path) -> None:
    path = written(tmp_path, "t.data", "text\tlabel\na\tyes\n")
    with pytest.raises(UsageError, match=re.escape(f"{path}: unknown suffix '.data'; give --format")):
        list(Table(path, TableFormat()))
    assert rows_of(path, TableFormat("tsv")) == [Row(2, "a", None, "yes")]


def test_a_given_format_wins_over_the_suffix(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text\tlabel\na, b\tyes\n")
    assert rows_of(path, TableFormat("tsv")) == [Row(2, "a, b", None, "yes")]


def test_a_file_that_can_t_be_opened_is_a_one_line_error(tmp_path: Path) -> None:
    assert error_of(tmp_path / "absent.tsv") == ": No such file or directory"
    folder = tmp_path / "folder.tsv"
    folder.mkdir()
    assert error_of(folder) == ": Is a directory"


def test_a_stream_is_read_like_a_file() -> None:
    stream = io.BytesIO(b'{"text": "a", "label": 1}\n{"text": "b"}\n')
    with pytest.raises(DataError, match="standard input, line 2: no key 'label'"):
        list(Table(stream, TableFormat("jsonl")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("good.tsv", "text\tlabel\na\tyes\n"),
        ("header.tsv", "body\tlabel\na\tyes\n"),
        ("width.tsv", "text\tlabel\na\n"),
        ("empty.csv", "text,label\n,yes\nb,no\n"),
        ("json.jsonl", "{\n{\n"),
    ],
)
def test_a_table_is_closed_when_it_was_read_and_when_it_could_not_be(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path, name, content)
    error = None
    try:
        list(Table(path, BY_SUFFIX))
    except DataError as caught:
        error = caught  # kept, and with it the frames in which the table was read
    opened = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert str(path) not in opened, error


# MRPC


def test_a_file_with_the_peculiarities_of_mrpc_is_read_whole(tmp_path: Path) -> None:
    """A byte order mark, a header with ``#``, tokenised text, quotes that open and never close, CRLF."""
    lines = [
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "1\t1\t2\tHe said it doesn 't fit .\t\" It does not fit .",
        '0\t3\t4\t" Yes , " he said .\tNo " .',
        "1\t5\t6\tA 5.2 % rise .\tIt 's $ 3 .",
    ]
    path = written(tmp_path, "dev.tsv", BOM + "\r\n".join(lines) + "\r\n")
    assert rows_of(path, TableFormat(columns=find_dataset("mrpc").columns)) == [
        Row(2, "He said it doesn 't fit .", '" It does not fit .', "1"),
        Row(3, '" Yes , " he said .', 'No " .', "0"),
        Row(4, "A 5.2 % rise .", "It 's $ 3 .", "1"),
    ]


@pytest.mark.skipif(not MRPC.exists(), reason=f"MRPC's dev.tsv is not at {MRPC}")
def test_mrpc_s_dev_table_has_its_408_pairs() -> None:
    rows = rows_of(MRPC, TableFormat(columns=find_dataset("mrpc").columns))
    assert len(rows) == 408
    assert [row.line for row in rows] == list(range(2, 410))
    assert Counter(row.label for row in rows) == {"1": 279, "0": 129}
    # Nothing is lost: every quotation mark of the file is in a text.
    assert sum((row.text + str(row.pair)).count('"') for row in rows) == MRPC.read_bytes().count(b'"') == 272
