"""Reports: what is on the page of each kind of task and command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables
from headed import LABELS, write_headed

from bertsym import EvaluateOptions, ReportOptions, TableFormat, compare, evaluate, export, open_model
from bertsym.events import EventStream
from bertsym.inference.evaluate import compute_outputs
from bertsym.inference.task_bundle import TaskBundle
from bertsym.reports.comparison import comparison_report
from bertsym.reports.evaluation import evaluation_report
from bertsym.reports.paired import compare_evaluated
from bertsym.symbol.params import write_params

Cli = Callable[..., Result]

SCRIPT = "<script>alert('text')</script>"
NAMES = list(LABELS.values())


def questions() -> str:
    context = "the old cat sat on the mat . the dog ran in the park ."
    rows = [
        {"id": f"q{i}", "question": SCRIPT if i == 0 else "the cat ?", "context": context, "answers": answers}
        for i, answers in enumerate([[{"text": "mat", "answer_start": 23}], [], [{"text": "park", "answer_start": 47}]])
    ]
    return "\n".join(map(json.dumps, rows))


#: kind of task -> file name, content
FILES = {
    "classification": (
        "rows.tsv",
        "\n".join(["text\tlabel", *(f"{text}\t{NAMES[i % 3]}" for i, text in enumerate([SCRIPT, *["the cat"] * 5]))]),
    ),
    "multilabel": (
        "rows.jsonl",
        "\n".join(
            json.dumps({"text": text, "labels": NAMES[:i]})
            for i, text in enumerate([f"{SCRIPT} {i}" for i in range(3)])
        ),
    ),
    "regression": (
        "rows.jsonl",
        "\n".join(json.dumps({"text": text, "label": i}) for i, text in enumerate([SCRIPT, "a dog", "the cat sat"])),
    ),
    "tagging": (
        "rows.conll",
        "\n\n".join(
            "\n".join(f"{word} {NAMES[i]}" for i, word in enumerate(words))
            for words in ([SCRIPT.replace(" ", ""), "cat"], ["the", "dog", "ran"])
        ),
    ),
    "qa": ("rows.jsonl", questions()),
}
SHOWN = {
    "classification": ["Confusion matrix", "the most confident first", "Expected calibration error", "Wilson score"],
    "multilabel": ["threshold", "the most confident first", "Reliability diagram"],
    "regression": ["Predicted values", "Residuals", "Largest errors"],
    "tagging": ["Sentences with the most mistakes", "precision"],
    "qa": ["Worst answers", "Scores of the answers"],
}  # fmt: skip


@pytest.fixture(scope="module", params=FILES)
def evaluated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The kind of a task, the prefix of a bundle for it, and a labelled file with a hostile text."""
    folder = tmp_path_factory.mktemp(request.param)
    export(f"hf:{write_headed(folder / 'hf', request.param)}", folder / "model", verify=False)
    name, content = FILES[request.param]
    (folder / name).write_text(content + "\n")
    return request.param, folder / "model", folder / name


def page_of(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_a_report_shows_metrics_errors_data_and_model(evaluated: tuple[str, Path, Path], tmp_path: Path) -> None:
    task, model, file = evaluated
    result = evaluate(model, file, report=ReportOptions(tmp_path / "report"))
    page, numbers = page_of(tmp_path / "report"), json.loads((tmp_path / "report/report.json").read_text())
    first = next(iter(result.metrics.values()))
    shown = numbers["headline"]["number"]
    assert shown == f"{first:.{len(shown.partition('.')[2])}f}"
    assert f'<p class="value">{shown}</p>' in page
    for words in (*SHOWN[task], "no row was truncated", "What the classifier reads", "SHA-256", "mxnet"):
        assert words in page, words
    assert page.count("<script>") == 1  # our own
    assert "&lt;script&gt;" in page
    blocks = [block for section in numbers["sections"] for block in section["blocks"]]
    figures = {block["name"] for block in blocks if block["type"] in ("figure", "drawing")}
    assert {path.name for path in (tmp_path / "report/figures").iterdir()} == {
        f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")
    }


def test_no_text_of_the_data_is_in_a_report_without_texts(evaluated: tuple[str, Path, Path]) -> None:
    _, model, file = evaluated
    opened = TaskBundle.open(model, "evaluate")
    found = compute_outputs(opened, file, EvaluateOptions(), TableFormat(), EventStream())
    again = compare_evaluated(found, found, ("one", "two"), with_texts=False)
    for report in (evaluation_report(found, with_texts=False), comparison_report(again, "title", with_texts=False)):
        content = json.dumps(report.to_json())
        assert [word for word in ("alert(", "the cat", "park", "dog") if word in content] == []


def test_a_model_does_not_differ_from_itself(evaluated: tuple[str, Path, Path]) -> None:
    _, model, file = evaluated
    result = compare(model, model, file)
    assert result.agreement == 1
    assert "have the same" in result.verdict
    assert all((each.interval.low, each.interval.high) == (0, 0) for each in result.differences)


def test_a_comparison_reports_the_better_model_and_lists_the_disagreements(
    cli: Cli, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    opened = open_model(classifier)
    assert opened.params is not None
    params = {name: np.array(array) for name, array in opened.params.items()}
    params["fc-finetune_weight"] *= -1
    with open(tmp_path / "head.params", "wb") as file:
        write_params(file, params)
    assert cli("edit", classifier, tmp_path / "worse", "--params", tmp_path / "head.params").code == 0
    rows = tables.dev.read_text().splitlines()
    (tmp_path / "rows.tsv").write_text("\n".join([*rows, *rows[1:]]) + "\n")
    result = cli("compare", classifier, tmp_path / "worse", tmp_path / "rows.tsv", "--report", tmp_path / "report")
    assert result.code == 0, result.err
    assert "worse is worse than happy: accuracy" in result.out
    assert "The difference is unlikely to be chance." in result.out
    sections = sections_of(tmp_path / "report")
    assert [row[0] for row in sections["What differs"][0]["rows"]] == ["parameters, SHA-256"]
    (listed,) = sections["Disagreements"]
    assert listed["title"] == f"{len(listed['rows'])} rows where happy and worse disagree"
    assert listed["columns"][-4:] == ["correct label", "happy says", "worse says", "who is right"]
    for *_, correct, first, second, winner in listed["rows"]:
        marks = {"happy": ["right", "wrong"], "worse": ["wrong", "right"]}[winner]
        assert [first[0]["mark"], second[0]["mark"]] == marks
        assert (first if winner == "happy" else second)[0]["text"] == correct[0]["text"]
    page = page_of(tmp_path / "report")
    assert "The interval does not contain 0." in page
    assert page.count("<tr>") > 42
    assert "rows needed" not in page
    few = cli("compare", classifier, tmp_path / "worse", tables.dev)
    assert "but 21 rows are too few to distinguish the models" in few.out
    assert "dev.tsv is the dev file that chose the kept epoch of happy: its metrics are optimistic" in few.err
    seen = cli("compare", classifier, tmp_path / "worse", tables.train)
    assert "train.tsv is a training file of happy: its metrics do not predict the quality" in seen.err


# Every command


def sections_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    document = json.loads((folder / "report.json").read_text())
    return {section["title"]: section["blocks"] for section in document["sections"]}


def test_finetune_reports_its_curves_seeds_and_what_it_kept(
    cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    arguments = ["--train", tables.train, "--dev", tables.dev, "--epochs", 2, "--batch-size", 8, "--seeds", "0,1"]
    arguments += ["--max-length", 6]
    result = cli("finetune", bundles["cls"], tmp_path / "out", *arguments, "--report", tmp_path / "report")
    assert result.code == 0, result.err
    training = json.loads((tmp_path / "out-manifest.json").read_text())["training"]
    blocks = sections_of(tmp_path / "report")["Training"]
    figures = {block["name"]: block["plot"] for block in blocks if block["type"] == "figure"}
    assert list(figures) == ["loss", "metric", "learning-rate", "gradient-norm", "samples-per-second"]
    assert figures["loss"]["lines"]["train"][0] == list(range(1, 25))
    assert figures["loss"]["marked"] == training["kept_step"]
    assert list(figures["metric"]["lines"]) == ["seed 0", "seed 1"]
    tables_of = {block["title"]: block for block in blocks if block["type"] == "table"}
    evaluations = [[each["epoch"], each["step"]] for each in training["evaluations"]]
    assert [row[:2] for row in tables_of["Evaluations"]["rows"]] == evaluations
    mean, deviation = (row[1] for row in tables_of["Seeds"]["rows"][-2:])
    assert mean == training["seeds"]["means"]["accuracy"]
    assert deviation == pytest.approx(training["seeds"]["deviations"]["accuracy"])
    chosen, *truncated = json.loads((tmp_path / "report/report.json").read_text())["headline"]["warnings"]
    assert chosen.startswith(f"{tables.dev} chose the seed and the epoch: its metrics are optimistic.")
    assert [text.partition(":")[0] for text in truncated] == [str(tables.train), str(tables.dev)]
    assert all("were truncated to 6 tokens; the model did not see the rest." in text for text in truncated)
    page = page_of(tmp_path / "report")
    assert page.index(chosen) < page.index("<main>")
    assert f"epoch {training['kept_epoch']} of 2, step {training['kept_step']}" in page
    repeat = json.loads((tmp_path / "report/report.json").read_text())["headline"]["facts"]["repeat with"]
    assert f"--seeds 0,1 --report {tmp_path}/report" in repeat
    runs = training["seeds"]["runs"]
    assert ", ".join(f"seed {run['seed']}: {run['metrics']['accuracy']:.4f}" for run in runs) in page


def test_quantize_reports_float32_and_int8_as_a_pair(
    cli: Cli, classifier: Path, tables: Tables, tmp_path: Path
) -> None:
    data = ["--calibrate", tables.train, "--dev", tables.dev, "--max-drop", 1]
    result = cli("quantize", classifier, tmp_path / "int8", *data, "--report", tmp_path / "report")
    assert result.code == 0, result.err
    sections = sections_of(tmp_path / "report")
    assert list(sections) == [
        *("Metrics", "What differs", "Speed and size", "Results", "Disagreements", "Both wrong", "Data", "Models"),
        "Repeat",
    ]
    measured = [row[0] for row in sections["Speed and size"][0]["rows"]]
    assert measured == ["rows per second", "ms per row", "parameters, MB"]


def test_diff_reports_the_differences_of_layers_and_outputs(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    result = cli("diff", bundles["cls"], bundles["pooled"], "--report", tmp_path / "report")
    assert (result.code, "--report needs --run or --inputs" in result.err) == (2, True)
    result = cli("diff", bundles["cls"], bundles["pooled"], "--run", "--report", tmp_path / "report")
    assert result.code == 0, result.err
    sections = sections_of(tmp_path / "report")
    compared = [row[0] for row in sections["Outputs of random inputs"][1]["rows"]]
    assert compared[:3] == ["embeddings", "layer 0", "layer 1"]
    assert "computes other outputs than" in page_of(tmp_path / "report")
