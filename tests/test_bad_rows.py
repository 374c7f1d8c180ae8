"""One bad row does not lose the others: what is printed, what is reported, and in how much memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_runner import Run
from conftest import Result, Tables

from bertsym import Classifier, DataError, evaluate
from bertsym.text.table_format import TableFormat
from bertsym.text.tables import Row, Table
from bertsym.text.tokenizer import chunks

Cli = Callable[..., Result]

HAPPY, SAD = "the happy cat", "the sad dog"
#: format -> a bad row, and what is wrong with it
BAD = {
    "tsv": [
        (b"the cat", "1 columns, 2 expected"),
        (b"the cat\tx\ty", "3 columns, 2 expected"),
        (b" \tx", "the text is empty"),
        (b"", "an empty line"),
        (b"the \xff cat\tx", "not UTF-8 text (byte 4 of the line)"),
        (b"\x01\x02\tx", "a text without tokens (only control characters?)"),
    ],
    "csv": [
        (b'the cat,"x', "not valid CSV: unexpected end of data (the quoted cell that begins on line 4 never ends)"),
        (b'"the \xff cat",x', "not UTF-8 text (byte 5 of the line)"),
        (b'"the "cat" sat",x', "not valid CSV: ',' expected after '\"'"),
        (b"the cat", "1 columns, 2 expected"),
    ],
    "jsonl": [
        (b"{", "not a JSON value"),
        (b"[1]", "not a JSON object"),
        (b'{"other": "the cat"}', "no key 'text'"),
        (b'{"text": 3}', "'text' is not a string"),
        (b'{"text": "\\ud800"}', "the text is not valid Unicode"),
        (b"  ", "an empty line"),
    ],
}
CASES = [(kind, row, why) for kind, rows in BAD.items() for row, why in rows]
HEADER = {"tsv": b"text\tother\n", "csv": b"text,other\n", "jsonl": b""}


def line(kind: str, text: str) -> bytes:
    if kind == "jsonl":
        return json.dumps({"text": text}).encode() + b"\n"
    return f"{text}{',' if kind == 'csv' else chr(9)}x\n".encode()


def table(folder: Path, kind: str, *rows: bytes) -> Path:
    path = folder / f"t.{kind}"
    path.write_bytes(HEADER[kind] + b"".join(rows))
    return path


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def corrupted(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """Two good rows, a bad one, and a good one unless nothing can follow; and the message."""
    kind, row, why = request.param
    good, last = [line(kind, HAPPY), line(kind, SAD)], [line(kind, HAPPY)]
    path = table(tmp_path, kind, *good, row + b"\n", *([] if "end of data" in why else last))
    return path, f"{path}, line {3 + bool(HEADER[kind])}: {why}"


def labels(printed: str) -> list[str]:
    return [row.split("\t")[0] for row in printed.splitlines()[1:]]


# predict


def test_by_default_a_bad_row_ends_the_command_after_the_rows_before_it(
    cli: Cli, classifier: Path, corrupted: tuple[Path, str]
) -> None:
    path, message = corrupted
    result = cli("predict", classifier, path)
    expected = f"Error: {message}; --on-error skip leaves out rows that can't be read\n"
    assert (result.code, labels(result.out), result.err) == (1, ["yes", "no"], expected)


def test_a_row_that_is_skipped_is_named_and_counted(cli: Cli, classifier: Path, corrupted: tuple[Path, str]) -> None:
    path, message = corrupted
    result = cli("predict", classifier, path, "--on-error", "skip")
    rest = [] if "end of data" in message else ["yes"]
    assert (result.code, labels(result.out)) == (0, ["yes", "no", *rest])
    assert result.err == f"{message}: left out\n1 of {3 + len(rest)} rows left out\n"


def test_a_row_that_is_left_blank_keeps_its_line(cli: Cli, classifier: Path, corrupted: tuple[Path, str]) -> None:
    path, message = corrupted
    result = cli("predict", classifier, path, "--on-error", "blank")
    rest = [] if "end of data" in message else ["yes"]
    assert (result.code, labels(result.out)) == (0, ["yes", "no", "", *rest])
    assert result.out.splitlines()[3] == "\t\t"
    assert result.err == f"{message}: left blank\n1 of {3 + len(rest)} rows left blank\n"


def test_in_json_lines_a_blank_is_null(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "tsv", b"\n", line("tsv", HAPPY))
    result = cli("predict", classifier, path, "--on-error", "blank", "--output-format", "jsonl")
    first, second = map(json.loads, result.out.splitlines())
    assert first == {"label": None, "probabilities": None}
    assert second["label"] == "yes"


@pytest.mark.parametrize("policy", ["skip", "blank"])
def test_a_table_without_a_good_row_is_an_error(cli: Cli, classifier: Path, tmp_path: Path, policy: str) -> None:
    result = cli("predict", classifier, table(tmp_path, "tsv", b"\n", b"x\n"), "--on-error", policy)
    assert result.code == 1
    done = {"skip": "left out", "blank": "left blank"}[policy]
    assert result.err.splitlines()[-1] == f"Error: no row can be read: all 2 rows are {done}"


def test_an_error_of_the_table_is_not_a_bad_row(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\nx\ty\n")
    result = cli("predict", classifier, path, "--on-error", "skip")
    assert (result.code, result.out) == (1, "")
    assert "no column 'text' (the columns are 'a', 'b')" in result.error_line


@pytest.mark.parametrize("before", [0, 1, 1023, 1024, 1025])
def test_all_rows_before_a_bad_row_are_printed(classifier: Path, before: int) -> None:
    stream = io.BytesIO(f"{HAPPY}\n".encode() * before + b"\xff\n" + f"{SAD}\n".encode())
    found = Classifier(classifier).predict_table(stream)
    assert [next(found).label for _ in range(before)] == ["yes"] * before
    with pytest.raises(DataError, match=rf"^standard input, line {before + 1}: not UTF-8"):
        next(found)


def test_the_library_yields_the_error_in_place_of_its_row(classifier: Path) -> None:
    stream = io.BytesIO(f"{HAPPY}\n \n{SAD}\n".encode())
    first, second, third = Classifier(classifier).predict_each(stream)
    assert not isinstance(first, DataError)
    assert not isinstance(third, DataError)
    assert (first.label, third.label) == ("yes", "no")
    assert str(second) == "standard input, line 2: the text is empty"


class Failing(io.BytesIO):
    """A disk that fails at the third line."""

    def readline(self, size: int | None = -1) -> bytes:
        found = super().readline(size)
        if not found:
            raise OSError(5, "Input/output error")
        return found


def test_a_failing_stream_yields_the_rows_before_the_failure(classifier: Path) -> None:
    found = Classifier(classifier).predict_each(Failing(f"{HAPPY}\n{SAD}\n".encode()))
    assert [prediction.label for prediction in (next(found), next(found)) if not isinstance(prediction, DataError)] == [
        "yes",
        "no",
    ]
    with pytest.raises(DataError, match=r"^standard input: Input/output error$"):
        next(found)


def test_texts_may_have_a_million_characters_and_nul(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    rows = [
        line("tsv", HAPPY),
        line("tsv", "happy " * 170_000),
        line("tsv", "the \0 sad dog"),
        line("tsv", "x" * 10**6),
    ]
    result = cli("predict", classifier, table(tmp_path, "tsv", *rows))
    assert (result.code, labels(result.out)[:3]) == (0, ["yes", "yes", "no"])
    assert len(labels(result.out)) == 4
    assert result.err == "1 of 4 texts truncated to 24 tokens\n"


def test_a_line_that_is_too_long_is_a_bad_row(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    rows = [line("tsv", HAPPY), b"a" * (1 << 24) + b"\tx\n", b"b" * (2 << 24) + b"\tx\n", line("tsv", SAD)]
    path = table(tmp_path, "tsv", *rows)
    result = cli("predict", classifier, path, "--on-error", "skip")
    assert (result.code, labels(result.out)) == (0, ["yes", "no"])
    assert result.err.splitlines()[:2] == [f"{path}, line {n}: longer than 16 MiB: left out" for n in (3, 4)]


def test_a_closed_pipe_is_not_a_failure(classifier: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m bertsym predict {classifier} | head -n 1"
    stdin = f"{HAPPY}\n".encode() * 5000
    result = subprocess.run(["bash", "-c", command], input=stdin, capture_output=True, check=False, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"label\tp(no)\tp(yes)\n", b"")


def test_memory_does_not_grow_with_the_number_of_rows(
    forked: Callable[..., Run], classifier: Path, tmp_path: Path
) -> None:
    peaks = []
    for rows in (2_000, 18_000):
        path = tmp_path / f"{rows}.tsv"
        with path.open("w") as file:
            file.write("text\tother\n")
            for i in range(rows):
                file.write("bad\n" if i % 100 == 99 else f"{'the red cat ' * (i % 5)}was happy\tx\n")
        done = forked("predict", classifier, path, "--on-error", "skip")
        assert done.code == 0, done.error
        assert len(done.out.splitlines()) == 1 + rows - rows // 100
        assert f"{rows // 100} of {rows} rows left out" in done.error
        peaks.append(done.memory)
    # Were they kept, 16,000 rows would need 9 MB and more.
    assert peaks[1] - peaks[0] < 5_000_000, peaks


def test_long_rows_are_processed_few_at_a_time() -> None:
    rows = [Row(i, "x" * size) for i, size in enumerate([10] * 2000 + [1 << 19] * 5 + [1 << 22])]
    assert [len(chunk) for chunk in chunks(rows, lambda row: len(row.text))] == [1024, 978, 2, 2]


# evaluate


def test_evaluate_skips_bad_rows_with_on_error_skip(cli: Cli, classifier: Path, tables: Tables, tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_bytes(tables.dev.read_bytes() + b"maybe\tthe cat\nyes\n" + b"no\t\xff\n" + b"yes\t\x01\n")
    stopped = cli("evaluate", classifier, path)
    assert (stopped.code, stopped.out) == (1, "")
    assert f"{path}, line 23: label 'maybe' is not one of the labels no, yes" in stopped.error_line
    result = cli("evaluate", classifier, path, "--on-error", "skip", "--json")
    document = json.loads(result.out)
    counts = [document.pop(name) for name in ("rows", "truncated", "left_out", "dropped_labels")]
    assert (result.code, counts) == (0, [21, 0, 4, {}])
    assert document == evaluate(classifier, tables.dev).metrics
    assert [text.split(":")[0] for text in result.err.splitlines()[:4]] == [f"{path}, line {n}" for n in range(23, 27)]
    assert result.err.splitlines()[4] == "4 of 25 rows left out"


# finetune and quantize


@pytest.fixture
def ragged(tables: Tables, tmp_path: Path) -> Tables:
    """Tables of which 25 and 3 rows can't be read; one of dev has a label that train does not have."""
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    train.write_bytes(tables.train.read_bytes() + b"yes\n" * 22 + b"yes\t\n\tthe cat\nno\t\xff\n")
    dev.write_bytes(tables.dev.read_bytes() + b"no\t\x01\nmaybe\tthe cat\nno\ta\tb\n")
    return Tables(train, dev)


def trained(cli: Cli, bundles: dict[str, Path], tables: Tables, out: Path, *more: object) -> Result:
    files = ("--train", tables.train, "--dev", tables.dev, out)
    return cli("finetune", bundles["cls"], *files, "--epochs", 1, "--max-length", 24, *more)


def test_finetune_stops_at_a_bad_row_and_names_the_option_to_skip_it(
    cli: Cli, bundles: dict[str, Path], tables: Tables, ragged: Tables, tmp_path: Path
) -> None:
    stopped = trained(cli, bundles, ragged, tmp_path / "x")
    hint = "--on-error skip leaves out rows that can't be read"
    assert stopped.error_line == f"Error: {ragged.train}, line 92: 1 columns, 2 expected; {hint}"
    stopped = trained(cli, bundles, Tables(tables.train, ragged.dev), tmp_path / "x")
    why = "a text without tokens (only control characters?)"
    assert stopped.error_line == f"Error: {ragged.dev}, line 23: {why}; {hint}"
    assert not list(tmp_path.glob("x*"))


def test_finetune_skips_and_counts_bad_rows_of_both_tables(
    cli: Cli, bundles: dict[str, Path], tables: Tables, ragged: Tables, tmp_path: Path
) -> None:
    done = trained(cli, bundles, ragged, tmp_path / "x", "--on-error", "skip")
    assert done.code == 0, done.err
    named = [line for line in done.err.splitlines() if line.endswith(": left out")]
    # The first 20 of each table.
    assert [line.partition(": ")[0] for line in named] == [
        *(f"{ragged.train}, line {92 + i}" for i in range(20)),
        *(f"{ragged.dev}, line {23 + i}" for i in range(3)),
    ]
    assert f"{ragged.train}: 90 rows, 25 left out\n" in done.err
    assert f"{ragged.dev}: 21 rows, 3 left out\n" in done.err
    training = json.loads(Path(f"{tmp_path}/x-manifest.json").read_text())["training"]
    counts = {name: (facts["rows"], facts["left_out"]) for name, facts in training["data"].items()}
    assert counts == {"train": (90, 25), "dev": (21, 3)}
    assert training["options"]["on_error"] == "skip"

    # The model is that of the tables without these rows.
    assert trained(cli, bundles, tables, tmp_path / "y").code == 0
    assert Path(f"{tmp_path}/x-0000.params").read_bytes() == Path(f"{tmp_path}/y-0000.params").read_bytes()


def test_quantize_skips_bad_rows_with_on_error_skip(cli: Cli, classifier: Path, ragged: Tables, tmp_path: Path) -> None:
    arguments = ("quantize", classifier, tmp_path / "int8", "--calibrate", ragged.dev, "--max-drop", 1)
    assert cli(*arguments).error_line.endswith("; --on-error skip leaves out rows that can't be read")
    done = cli(*arguments, "--on-error", "skip")
    assert done.code == 0, done.err
    how = json.loads(Path(f"{tmp_path}/int8-manifest.json").read_text())["quantization"]
    assert (how["dev"]["rows"], how["dev"]["left_out"]) == (21, 3)


# Tables


@pytest.mark.parametrize("kind", BAD)
def test_a_table_continues_after_every_bad_row(tmp_path: Path, kind: str) -> None:
    rows = [row for row, why in BAD[kind] if "end of data" not in why and "without tokens" not in why]
    path = table(tmp_path, kind, line(kind, HAPPY), *(row + b"\n" + line(kind, SAD) for row in rows))
    found = list(Table(path, TableFormat(), need_label=False).each())
    kinds: Iterator[type] = map(type, found)
    assert list(kinds) == [Row, *[DataError, Row] * len(rows)]


def test_an_unclosed_quotation_mark_takes_at_most_one_row_s_memory(tmp_path: Path) -> None:
    path = table(tmp_path, "csv", line("csv", HAPPY), b'"the cat,x\n', (b"more" * 1000 + b"\n") * 5000)
    found = Table(path, TableFormat(), need_label=False).each()
    assert isinstance(next(found), Row)
    assert "field larger than field limit" in str(next(found))
