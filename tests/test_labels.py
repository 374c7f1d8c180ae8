"""Labels are sorted; unknown and suspicious ones are reported; rows with a dropped label are left out and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result

from bertsym import DataError
from bertsym.text.labels import check_known, sorted_labels, suspicious_labels

Cli = Callable[..., Result]


def test_integer_labels_are_sorted_as_numbers() -> None:
    assert sorted_labels(["10", "9", "-1", "10", "0"]) == ("-1", "0", "9", "10")


def test_other_labels_are_sorted_as_strings() -> None:
    assert sorted_labels(["10", "9", "x"]) == ("10", "9", "x")


@pytest.mark.parametrize("odd", ["--5", "9" * 5000], ids=["two minus signs", "5000 digits"])
def test_any_label_can_be_sorted(odd: str) -> None:
    assert set(sorted_labels(["1", odd])) == {"1", odd}


def test_a_label_that_is_not_known_is_named_with_its_line() -> None:
    with pytest.raises(DataError, match=r"^dev\.tsv, line 5: label 'maybe' is not one of the labels no, yes$"):
        check_known("maybe", ("no", "yes"), "dev.tsv, line 5")
    check_known("yes", ("no", "yes"), "dev.tsv, line 2")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"0": 3, "1": 1, "0.0": 2}, ["the labels '0' (3 rows), '0.0' (2 rows) are the same number"]),
        (
            {"0": 3, "00": 1, "-0": 1, "1": 2},
            ["the labels '-0' (1 row), '0' (3 rows), '00' (1 row) are the same number"],
        ),
        ({"1": 1, "1.0": 1, "+1": 1, "1e0": 1}, ["the labels '+1' (1 row), '1' (1 row), '1.0' (1 row), '1e0' (1 row)"]),
        ({"1e999999999": 1, "1": 1, "9" * 5000: 1}, []),
        ({"a": 1, "A": 1, "0": 1, "0.5": 1}, []),
        ({"a": 9, "b": 9, "-": 2}, ["the label '-' (2 rows) is used as a class"]),
        ({"+": 9, "-": 9}, []),
        ({"0": 9, "1": 9, "2": 9, "-1": 1}, ["the label '-1' (1 row) is used as a class"]),
        ({"-1": 9, "1": 9}, []),
        ({"-2": 9, "-1": 9, "0": 9, "1": 9}, []),
        ({"yes": 9, "no": 9, "NaN": 1}, ["the label 'NaN' (1 row) is used as a class"]),
    ],
)
def test_labels_that_are_one_number_or_no_label_are_reported_with_counts(
    counts: dict[str, int], expected: list[str]
) -> None:
    found = list(suspicious_labels(counts))
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected))


SNLI = [("a", "the happy cat"), ("b", "the sad dog"), ("-", "a bird"), ("b", "a sad film"), ("a", "a happy story")]


@pytest.fixture
def snli(tmp_path: Path) -> Path:
    """A table with 2 of 10 rows without a label."""
    path = tmp_path / "snli.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for label, text in SNLI * 2))
    return path


def trained(cli: Cli, base: Path, table: Path, out: Path, *more: object) -> Result:
    return cli("finetune", base, "--train", table, "--dev", table, out, "--epochs", 1, *more)


def manifest(prefix: Path) -> Any:
    return json.loads(Path(f"{prefix}-manifest.json").read_text())


def test_a_dropped_label_is_not_a_class_and_its_rows_are_counted(
    cli: Cli, bundles: dict[str, Path], snli: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    done = trained(cli, bundles["cls"], snli, out, "--drop-label", "-", "--drop-label", "maybe")
    assert done.code == 0, done.err
    assert f"{snli}: 8 rows, 2 dropped with the label '-'" in done.err
    assert f"warning: no row of {snli} and {snli} has the dropped label 'maybe'" in done.err
    facts = manifest(out)
    assert [facts["training"]["data"][name]["dropped_labels"] for name in ("train", "dev")] == [{"-": 2}, {"-": 2}]
    assert "--drop-label - --drop-label maybe" in " ".join(facts["command"])
    signature = json.loads(Path(f"{out}-signature.json").read_text())
    assert (signature["class_names"], signature["dropped_labels"]) == (["a", "b"], ["-", "maybe"])

    # evaluate and quantize leave them out too: the metrics are those of the training.
    evaluated = cli("evaluate", out, snli, "--json")
    counts = {
        name: value for name, value in json.loads(evaluated.out).items() if name not in ("accuracy", "f1", "loss")
    }
    assert counts == {"rows": 8, "truncated": 0, "left_out": 0, "dropped_labels": {"-": 2}}
    assert evaluated.err == ""
    assert f"accuracy {json.loads(evaluated.out)['accuracy']:.4f}" in done.out
    assert f"{snli}: 8 rows, 2 dropped with the label '-'" in cli("evaluate", out, snli).err
    quantized = cli("quantize", out, tmp_path / "int8", "--calibrate", snli, "--max-drop", 1)
    assert quantized.code == 0, quantized.err
    assert manifest(tmp_path / "int8")["quantization"]["dev"]["dropped_labels"] == {"-": 2}


def test_a_label_that_marks_rows_without_one_is_reported_in_training(
    cli: Cli, bundles: dict[str, Path], snli: Path, tmp_path: Path
) -> None:
    done = trained(cli, bundles["cls"], snli, tmp_path / "model")
    assert (
        f"warning: {snli}: the label '-' (2 rows) is used as a class; if it marks rows without a label, "
        "--drop-label - leaves them out\n"
    ) in done.err


def test_evaluate_names_the_option_that_leaves_unlabelled_rows_out(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text("label\ttext\nyes\tthe happy cat\n-\tthe old cat\nno\tthe sad cat\n")
    stopped = cli("evaluate", classifier, path)
    assert f"{path}, line 3: label '-' is not one of the labels no, yes; --drop-label - leaves" in stopped.error_line
    done = cli("evaluate", classifier, path, "--drop-label", "-", "--drop-label", "NO")
    assert (done.code, done.err.splitlines()) == (
        0,
        [
            f"warning: no row of {path} has the dropped label 'NO'",
            f"{path}: 2 rows, 1 dropped with the label '-'",
        ],
    )


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        (["a", "b", "-"], "no rows but 4 with the dropped label 'a' and 4 with the dropped label 'b' and 2 with the"),
        (["a", "-"], "every label is 'b'; a classifier needs at least 2"),
    ],
)
def test_too_few_rows_that_are_left_are_an_error(
    cli: Cli, bundles: dict[str, Path], snli: Path, tmp_path: Path, dropped: list[str], message: str
) -> None:
    options = [word for label in dropped for word in ("--drop-label", label)]
    stopped = trained(cli, bundles["cls"], snli, tmp_path / "model", *options)
    assert stopped.code == 1
    assert f"Error: {snli}: {message}" in stopped.error_line
