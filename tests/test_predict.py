"""Predicting: single texts, tables, streams; order, formats, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from command_runner import Run
from conftest import Result, Tables
from signed_bundle import SignedBundle, bypass

from bertsym import Classifier, DataError, TableFormat, UsageError
from bertsym.text.tables import count_rows

Cli = Callable[..., Result]
Forked = Callable[..., Run]


def test_one_text_gives_its_label_and_the_probability_of_each(cli: Cli, classifier: Path) -> None:
    result = cli("predict", classifier, "--text", "the happy cat sat on the mat")
    header, row = result.out.splitlines()
    assert header == "label\tp(no)\tp(yes)"
    label, no, yes = row.split("\t")
    assert label == "yes"
    assert float(yes) > 0.5 > float(no)
    assert float(no) + float(yes) == pytest.approx(1, abs=2e-6)


def test_json_lines_have_the_same_predictions(cli: Cli, classifier: Path) -> None:
    record = json.loads(cli("predict", classifier, "--text", "the sad bird", "--output-format", "jsonl").out)
    assert record["label"] == "no"
    assert set(record["probabilities"]) == {"no", "yes"}


def test_a_table_is_predicted_in_its_own_order(cli: Cli, classifier: Path, tables: Tables) -> None:
    lines = tables.dev.read_text().splitlines()[1:]
    result = cli("predict", classifier, tables.dev)
    printed = [line.split("\t") for line in result.out.splitlines()[1:]]
    one_by_one = [Classifier(classifier).predict([line.split("\t")[1]])[0] for line in lines[:4]]
    assert len(printed) == len(lines)
    for row, alone in zip(printed, one_by_one):
        assert row[0] == alone.label
        assert float(row[1]) == pytest.approx(alone.probabilities["no"], abs=2e-6)


def test_a_table_to_predict_needs_no_label_column(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\nthe happy bird\nthe sad bird\n")
    assert [line.split("\t")[0] for line in cli("predict", classifier, table).out.splitlines()] == [
        "label",
        "yes",
        "no",
    ]


def test_standard_input_is_a_text_a_line(forked: Forked, classifier: Path) -> None:
    result = forked("predict", classifier, stdin=b"the happy cat\nthe sad cat\n")
    assert result.code == 0, result.error
    assert [line.split("\t")[0] for line in result.out.splitlines()] == ["label", "yes", "no"]


def test_a_tab_in_a_single_text_is_part_of_the_text(forked: Forked, classifier: Path) -> None:
    with_tab, without = (
        forked("predict", classifier, stdin=text).out.splitlines()[1]
        for text in (b"the cat\thappy happy happy\n", b"the cat happy happy happy\n")
    )
    assert with_tab == without


@pytest.mark.parametrize("arguments", [[], ["--format", "jsonl"]])
def test_an_empty_line_would_shift_the_answers_and_is_an_error(
    forked: Forked, classifier: Path, arguments: list[str]
) -> None:
    text = b'{"text": "the cat"}' if arguments else b"the cat"
    result = forked("predict", classifier, *arguments, stdin=text + b"\n\n" + text + b"\n")
    assert result.code == 1
    assert "standard input, line 2: " in result.error


def test_a_dash_is_standard_input(forked: Forked, classifier: Path) -> None:
    assert forked("predict", classifier, "-", stdin=b"the happy cat\n").out.splitlines()[1].startswith("yes")


def test_a_table_without_rows_is_an_error(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\n")
    assert "no rows" in cli("predict", classifier, table).error_line


def test_a_file_is_predicted_with_standard_input_closed(classifier: Path, tables: Tables) -> None:
    command = f"{sys.executable} -m bertsym predict {classifier} {tables.dev} <&-"
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=False, timeout=120)
    assert (result.returncode, result.stderr) == (0, b"")


def test_longer_texts_after_shorter_texts_print_nothing(forked: Forked, classifier: Path) -> None:
    lines = b"the happy cat\n" * 1024 + b"the happy cat sat on the old red mat in the park\n" * 64
    result = forked("predict", classifier, stdin=lines)
    assert (result.code, result.error) == (0, "")


def test_json_lines_are_read_from_standard_input(forked: Forked, classifier: Path) -> None:
    stdin = b'{"text": "the happy cat"}\n{"text": "the sad cat"}\n'
    result = forked("predict", classifier, "--format", "jsonl", "--output-format", "jsonl", stdin=stdin)
    assert [json.loads(line)["label"] for line in result.out.splitlines()] == ["yes", "no"]


def test_rows_before_a_bad_row_are_printed_and_the_bad_row_is_named(forked: Forked, classifier: Path) -> None:
    good = b"the happy cat\n" * 1024
    result = forked("predict", classifier, stdin=good + b"\xff\xfe\n")
    assert result.code == 1
    assert len(result.out.splitlines()) == 1025
    assert "standard input, line 1025: not UTF-8" in result.error


Reading = tuple["subprocess.Popen[bytes]", IO[bytes], IO[bytes]]


@contextlib.contextmanager
def reading(classifier: Path, stdin: bytes) -> Iterator[Reading]:
    """A prediction that is given this and waits for more; what it prints, and says."""
    with subprocess.Popen(
        [sys.executable, "-m", "bertsym", "predict", str(classifier)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(stdin)
        process.stdin.flush()
        try:
            yield process, process.stdout, process.stderr
        finally:
            process.kill()


def test_a_bad_row_ends_a_stream_that_is_still_open(classifier: Path) -> None:
    with reading(classifier, b"the happy cat\n" * 1023 + b"\xff\n") as (process, printed, said):
        assert process.wait(60) == 1
        assert printed.read().count(b"\n") == 1024
        message = b"Error: standard input, line 1024: not UTF-8 text (byte 0 of the line); "
        assert said.read() == message + b"--on-error skip leaves out rows that can't be read\n"


@pytest.mark.parametrize(
    ("number", "code", "last"),
    [(signal.SIGINT, 130, b"Error: interrupted"), (signal.SIGTERM, 143, b"Error: stopped by SIGTERM")],
)
def test_a_signal_ends_predict_while_it_waits_for_rows(
    classifier: Path, number: signal.Signals, code: int, last: bytes
) -> None:
    with reading(classifier, b"the happy cat\n" * 1024) as (process, printed, said):
        assert printed.readline()  # so it waits for the others
        process.send_signal(number)
        assert process.wait(60) == code
        assert said.read().split(b"\n")[-2:] == [last, b""]


def test_an_answer_comes_before_the_next_text_is_written(classifier: Path) -> None:
    with reading(classifier, b"the happy cat\n") as (process, printed, _):
        assert process.stdin is not None
        assert printed.readline() == b"label\tp(no)\tp(yes)\n"
        for label, text in (("yes", b"the sad cat\n"), ("no", b"the happy dog\n" * 3), ("yes", b"")):
            assert printed.readline().decode().split("\t")[0] == label
            process.stdin.write(text)
            process.stdin.flush()
        process.stdin.close()
        assert [line.split(b"\t")[0] for line in printed] == [b"yes"] * 2
        assert process.wait(60) == 0


def test_a_stream_is_predicted_while_it_is_written(classifier: Path) -> None:
    """More rows than are held at a time, through the library."""
    stream = io.BytesIO(b"the happy cat\nthe sad cat\n" * 1100)
    labels = [prediction.label for prediction in Classifier(classifier).predict_table(stream)]
    assert labels == ["yes", "no"] * 1100


def test_an_output_file_has_what_would_be_printed(cli: Cli, classifier: Path, tables: Tables, tmp_path: Path) -> None:
    out = tmp_path / "answers.tsv"
    assert cli("predict", classifier, tables.dev, "--out", out).out == ""
    assert out.read_text() == cli("predict", classifier, tables.dev).out
    assert "answers.tsv exists: choose another name" in cli("predict", classifier, tables.dev, "--out", out).error_line
    bad = tmp_path / "bad.tsv"
    bad.write_text("text\nthe cat\n\n")
    before = out.read_bytes()
    assert cli("predict", classifier, bad, "--out", out, "--force").code == 1
    assert out.read_bytes() == before


def test_kept_columns_come_before_the_answer(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    csv, jsonl = tmp_path / "t.csv", tmp_path / "t.jsonl"
    csv.write_text('id,text,label\n7,the happy cat,"yes\tor\nno"\n8,,no\n9,the sad cat,no\n')
    options = ("--keep-column", "id", "--keep-column", "3=gold", "--on-error", "blank")
    lines = cli("predict", classifier, csv, *options).out.splitlines()
    assert lines[0] == "id\tgold\tlabel\tp(no)\tp(yes)"
    assert [line.split("\t")[:3] for line in lines[1:]] == [[r"7", r"yes\tor\nno", "yes"], [""] * 3, ["9", "no", "no"]]
    records = [{"id": 7, "text": "the happy cat", "tags": ["a", None]}, {"id": "x", "text": "the sad cat", "tags": {}}]
    jsonl.write_text("".join(json.dumps(record) + "\n" for record in records))
    both = ("--keep-column", "id", "--keep-column", "tags")
    printed = cli("predict", classifier, jsonl, *both, "--output-format", "jsonl").out.splitlines()
    found = [json.loads(line) for line in printed]
    assert [(row["id"], row["tags"], row["label"]) for row in found] == [(7, ["a", None], "yes"), ("x", {}, "no")]
    assert cli("predict", classifier, jsonl, *both).out.splitlines()[1].startswith('7\t["a", null]\tyes\t')


def test_the_most_probable_classes_come_first(cli: Cli, classifier: Path) -> None:
    text = ("predict", classifier, "--text", "the happy cat", "--top-k")
    for count, columns in (("1", "label\tp"), ("5", "label\tp\tlabel 2\tp 2")):
        header, row = cli(*text, count).out.splitlines()
        assert header == columns
        assert row.split("\t")[::2] == ["yes", "no"][: len(columns.split("\t")) // 2]
    assert list(json.loads(cli(*text, "2", "--output-format", "jsonl").out)["probabilities"]) == ["yes", "no"]


def test_a_file_of_plain_text_has_a_text_on_each_line(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("the happy cat\tsat\nthe sad cat\n")
    lines = cli("predict", classifier, path, "--format", "lines").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["label", "yes", "no"]
    path.write_text("the happy cat\nthe sad cat\n")
    line = cli("predict", classifier, path).error_line
    assert line.endswith("a .txt file is read as a table: if it has one text per line, give --format lines")


@pytest.mark.parametrize(
    ("kind", "content", "count"),
    [
        ("tsv", b"text\na\nb\n", 2),
        ("tsv", b"text\na\nb", 2),
        ("lines", b"a\nb\n", 2),
        ("jsonl", b"", 0),
        ("csv", b'text\n"a\nb"\n', None),
    ],
)
def test_rows_are_counted_where_lines_are_rows(tmp_path: Path, kind: str, content: bytes, count: int | None) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    assert count_rows(path, TableFormat(kind)) == count


def test_rows_are_reported_by_batch(classifier: Path, tmp_path: Path) -> None:
    table, done = tmp_path / "t.tsv", list[int]()
    table.write_text("text\n" + "the happy cat\n" * 70 + "\n")
    for _ in Classifier(classifier, batch_size=32).predict_each(table, on_rows=done.append):
        pass
    assert sum(done) == 71
    assert max(done) <= 32


def test_truncated_texts_are_counted(cli: Cli, classifier: Path) -> None:
    result = cli("predict", classifier, "--text", "happy " * 170_000)
    assert result.code == 0
    assert "1 of 1 texts truncated to 24 tokens" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--text", " "], 1, "is empty"),
        (["--text", "happy", "--text-pair", "sad"], 2, "trained on single texts"),
        (["--text-pair", "sad"], 2, "--text-pair needs --text"),
        (["FILE", "--text", "happy"], 2, "either FILE or --text"),
        (["none.tsv"], 1, "none.tsv: No such file"),
        (["--text", "happy", "--keep-column", "id"], 2, "--keep-column needs FILE"),
        (["t.tsv", "--keep-column", "label"], 2, "the output has another column label: give COLUMN=NAME"),
        (["t.tsv", "--keep-column", "=x"], 2, "give COLUMN, or COLUMN=NAME"),
        (["t.tsv", "--keep-column", "id", "--format", "lines"], 2, "--keep-column id: --format lines has no columns"),
        (["t.tsv", "--keep-column", "nothing"], 1, "t.tsv: no column 'nothing' (the columns are 'id', 'text')"),
        (["--text", "happy", "--device", "tpu"], 2, "is not one of cpu, gpu:0"),
        (["--text", "happy", "--device", "gpu:0"], 1, "MXNet sees 0 GPUs"),
    ],
)
def test_invalid_calls_are_refused(
    cli: Cli,
    classifier: Path,
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_text("id\ttext\n1\tthe cat\n")
    result = cli("predict", classifier, *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err.strip().splitlines()[-1]


def test_an_encoder_without_a_head_is_not_a_classifier(cli: Cli, bundles: dict[str, Path]) -> None:
    result = cli("predict", bundles["cls"], "--text", "happy")
    assert result.code == 1
    assert "has no head, it ends in cls_output; fine-tune it first" in result.error_line


def test_a_graph_that_is_not_an_encoder_is_refused(cli: Cli, classifier: Path, tables: Tables, tmp_path: Path) -> None:
    """Padding would change its answers, which then depend on the other rows of a batch."""
    signed = SignedBundle(classifier)
    for graph in signed.graphs:
        bypass(graph, {next(i for i, node in enumerate(graph["nodes"]) if node["op"] == "softmax")})
    signed.write(tmp_path / "x")
    for arguments in (("predict", "--text", "the cat"), ("evaluate", tables.dev)):
        line = cli(arguments[0], tmp_path / "x", *arguments[1:]).error_line
        assert f"{tmp_path / 'x'}-symbol.json: " in line
        assert line.endswith(f"; {arguments[0]} needs a BERT encoder")


def test_an_output_of_another_shape_than_the_signature_says_is_refused(
    cli: Cli, classifier: Path, tmp_path: Path
) -> None:
    signed = SignedBundle(classifier)
    for graph in signed.graphs:
        index, name = [(i, n["name"]) for i, n in enumerate(graph["nodes"]) if n["op"] == "LayerNorm"][-1]
        graph["heads"] = [[index, 0, 0]]
    signed.signature["outputs"][0]["name"] = f"{name}_output"
    signed.write(tmp_path / "x")
    line = cli("predict", tmp_path / "x", "--text", "the cat").error_line
    assert f"{tmp_path / 'x'}-" in line
    assert "the output has the shape" in line


def test_an_unknown_metric_in_a_signature_is_refused_by_its_key(
    cli: Cli, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    signed = SignedBundle(classifier)
    signed.signature["task_settings"]["metrics"] = ["recal"]
    signed.write(tmp_path / "x")
    line = cli("evaluate", tmp_path / "x", tables.dev).error_line
    assert 'x-signature.json: task_settings: metrics[0]: "recal" is not one of "accuracy", "f1"' in line


def test_library_refuses_what_the_command_line_refuses(classifier: Path) -> None:
    happy = Classifier(classifier)
    with pytest.raises(UsageError, match="single texts"):
        happy.predict(["a"], ["b"])
    with pytest.raises(DataError, match="without tokens"):
        happy.predict(["\x07"])
    with pytest.raises(UsageError, match="a list of texts"):
        happy.predict("cat")
    assert happy.predict([]) == []
