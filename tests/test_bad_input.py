"""Bad input: one clear line, the right exit code, and no file left or harmed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result, Tables

Cli = Callable[..., Result]
Make = Callable[[str, bytes], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a file and return its path."""

    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


GOOD = b"text\tlabel\nthe happy cat\tyes\nthe sad dog\tno\n"

BAD_TABLES = {
    "missing file": (None, 1, "No such file"),
    "empty file": (b"", 1, "t.tsv: empty file"),
    "header only": (b"text\tlabel\n", 1, "t.tsv: no rows"),
    "no text column": (b"a\tb\nx\ty\n", 1, "(the columns are 'a', 'b')"),
    "no label column": (b"text\tb\nx\ty\n", 1, "(the columns are 'text', 'b')"),
    "short row": (GOOD + b"the cat\n", 1, "t.tsv, line 4: 1 columns, 2 expected"),
    "empty text": (GOOD + b" \tyes\n", 1, "t.tsv, line 4: the text is empty"),
    "empty label": (GOOD + b"the cat\t\n", 1, "t.tsv, line 4: the label is empty"),
    "invalid UTF-8": (GOOD + b"the \xff\tyes\n", 1, "t.tsv, line 4: not UTF-8"),
    "control characters only": (GOOD + b"\x01\x02\tyes\n", 1, "t.tsv, line 4: a text without tokens"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
@pytest.mark.parametrize("role", ["--train", "--dev"])
def test_a_bad_table_is_refused_with_its_line(
    cli: Cli, bundles: dict[str, Path], make: Make, tmp_path: Path, case: str, role: str
) -> None:
    content, code, message = BAD_TABLES[case]
    good = make("good.tsv", GOOD)
    bad = tmp_path / "t.tsv" if content is None else make("t.tsv", content)
    other = "--dev" if role == "--train" else "--train"
    before = sorted(tmp_path.iterdir())
    arguments = [role, bad, other, good, tmp_path / "out" / "x", "--max-length", 16]
    result = cli("finetune", bundles["cls"], *arguments)
    assert result.code == code
    assert result.error_line.startswith("Error: ")
    assert message in result.error_line
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_label_in_the_dev_table_is_refused(
    cli: Cli, bundles: dict[str, Path], make: Make, tmp_path: Path
) -> None:
    dev = make("dev.tsv", GOOD + b"the cat\tmaybe\n")
    result = cli(
        *("finetune", bundles["cls"], "--train", make("train.tsv", GOOD), "--dev", dev),
        *(tmp_path / "x", "--max-length", 16),
    )
    assert result.code == 1
    assert "dev.tsv, line 4: label 'maybe' is not one of the labels no, yes" in result.error_line


def test_a_single_label_is_refused(cli: Cli, bundles: dict[str, Path], make: Make, tmp_path: Path) -> None:
    table = make("t.tsv", b"text\tlabel\nthe cat\tyes\nthe dog\tyes\n")
    result = cli("finetune", bundles["cls"], "--train", table, "--dev", table, tmp_path / "x", "--max-length", 16)
    assert result.code == 1
    assert "every label is 'yes'; a classifier needs at least 2 labels" in result.error_line


def test_a_positive_label_that_is_not_a_class_is_refused(
    cli: Cli, bundles: dict[str, Path], make: Make, tmp_path: Path
) -> None:
    table = make("t.tsv", GOOD)
    result = cli(
        *("finetune", bundles["cls"], "--train", table, "--dev", table, tmp_path / "x", "--positive-label", "true"),
    )
    assert result.code == 1
    assert "t.tsv: the positive label 'true' is not one of the labels no, yes" in result.error_line


def test_evaluate_refuses_pairs_for_a_classifier_of_single_texts(cli: Cli, classifier: Path, make: Make) -> None:
    result = cli("evaluate", classifier, make("t.tsv", GOOD), "--pair-column", "label", "--text-column", "text")
    assert (result.code, "trained on single texts" in result.error_line) == (2, True)


def test_evaluate_refuses_a_label_that_the_classifier_does_not_know(cli: Cli, classifier: Path, make: Make) -> None:
    result = cli("evaluate", classifier, make("t.tsv", GOOD + b"the cat\t7\n"))
    assert result.code == 1
    assert "t.tsv, line 4: label '7' is not one of the labels no, yes" in result.error_line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs must be 1 or more, not 0"),
        (["--batch-size", "0"], "batch_size must be 1 or more, not 0"),
        (["--lr", "-1"], "learning_rate must be between 0 and 1, exclusive, not -1"),
        (["--lr", "nan"], "exclusive, not nan"),
        (["--dropout", "1"], "dropout must be 0 or more and below 1, not 1"),
        (["--warmup", "2"], "warmup must be a fraction from 0 to 1, not 2"),
        (["--seed", "-1"], "seed must be 0 or more, not -1"),
        (["--max-length", "2"], "max length 2 is too short"),
        (["--max-length", "41"], "max_length must be at most 40, "),
        (["--device", "gpu"], "device 'gpu' is not one of"),
        (["--whole-sequence"], "needs a bundle exported with --output sequence"),
        (["--task", "unknown"], "task 'unknown' is not one of classification, "),
        (["--format", "xml"], "Invalid value for '--format'"),
    ],
)
def test_settings_out_of_range_are_usage_errors(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "x"
    fixed = ["--train", tables.train, "--dev", tables.dev, out]
    length = [] if "--max-length" in arguments else ["--max-length", "24"]
    result = cli("finetune", bundles["cls"], *fixed, *length, *arguments)
    assert result.code == 2
    assert message in result.err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_finished_head_is_not_a_base_to_graft_on(cli: Cli, tiny_hf: Path, tables: Tables, tmp_path: Path) -> None:
    assert cli("export", f"hf:{tiny_hf}", tmp_path / "c", "--task", "classification").code == 0
    result = cli("finetune", tmp_path / "c", "--train", tables.train, "--dev", tables.dev, tmp_path / "x")
    assert result.code == 1
    assert "has an untrained head, which finetune --task classification can't continue" in result.error_line


def test_finetuning_a_file_that_is_not_a_bundle_is_refused(cli: Cli, tables: Tables, tmp_path: Path) -> None:
    out = tmp_path / "x"
    result = cli("finetune", tmp_path / "none", "--train", tables.train, "--dev", tables.dev, out)
    assert result.code == 1
    assert "is not a bundle" in result.error_line


def test_a_log_file_that_cannot_be_written_is_refused(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    result = cli(
        *("finetune", bundles["cls"], "--train", tables.train, "--dev", tables.dev, tmp_path / "x"),
        *("--log-json", tmp_path / "none" / "log"),
    )
    assert result.code == 2
    assert "cannot write a log: the folder" in result.error_line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["model", "hf:", "onnx:model", ":x"])
def test_a_source_of_an_unknown_kind_is_refused(cli: Cli, tmp_path: Path, source: str) -> None:
    result = cli("export", source, tmp_path / "x")
    assert result.code == 2
    kinds = "gluonnlp:..., hf:..., params:..., tf:..., random:..."
    assert f"is not a source; a source is one of {kinds}" in result.error_line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cls-slice", "--output", "mean"], "contradicts"),
        (["--task", "classification", "--output", "mean"], "omit the output"),
        (["--num-classes", "3"], "needs --task classification"),
        (["--task", "regression", "--num-classes", "3"], "has 1 output"),
        (["--num-heads", "4"], "hf: sources take no --num-heads"),
        (["--vocab", "x"], "hf: sources take no --vocab"),
        (["--rtol", "0"], "Invalid value for '--rtol'"),
    ],
)
def test_contradictory_options_of_export_are_refused(
    cli: Cli, tiny_hf: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = cli("export", f"hf:{tiny_hf}", tmp_path / "x", *arguments)
    assert result.code == 2
    assert message in result.err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
