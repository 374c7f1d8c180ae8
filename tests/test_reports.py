"""Reports: what is on the page of each kind of task, its safety, its size, and how it is written."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables
from headed import LABELS, write_headed
from test_drawing_page import ARGUMENTS
from tools import needs

from bertsym import (
    EvaluateOptions,
    InstallationError,
    ReportOptions,
    TableFormat,
    UsageError,
    compare,
    evaluate,
    export,
    open_model,
)
from bertsym.events import EventStream, Span, StepDone
from bertsym.inference.evaluate import compute_outputs
from bertsym.inference.task_bundle import TaskBundle
from bertsym.metrics.tagging import Entity
from bertsym.reports.assessment import ExampleRows
from bertsym.reports.blocks import (
    MOST_CHARACTERS,
    Bars,
    Block,
    Figure,
    Headline,
    Heatmap,
    Histogram,
    Intervals,
    Lines,
    Plot,
    Reliability,
    Report,
    Scatter,
    Section,
    Table,
    Text,
    data_text,
)
from bertsym.reports.classification import classification_sections
from bertsym.reports.comparison import comparison_report
from bertsym.reports.evaluation import evaluation_report
from bertsym.reports.page import render_page
from bertsym.reports.paired import compare_evaluated
from bertsym.reports.regression import regression_sections
from bertsym.reports.tagging import TaggedSentence, tagging_sections
from bertsym.reports.training import Run
from bertsym.reports.writing import check_report, write_report
from bertsym.symbol.params import write_params

Cli = Callable[..., Result]

SCRIPT = "<script>alert('text')</script>"
HOSTILE = [SCRIPT, "הסרט טוב מאוד", "x" * 10_000, "", "{{script}} $x^2$ \\N", "two\nlines"]
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


# The page

PLOTS: list[Plot] = [
    Lines("step", "loss", {"train": ([1, 2, 3], [3.0, 2.0, 1.0]), "dev": ([3], [2.0])}, marked=3.0, mark_label="kept"),
    Bars("%", HOSTILE, {"train": [1.0] * 6, SCRIPT: [2.0] * 6}),
    Histogram("tokens", [0.0, 1.0, 2.0], {SCRIPT: [1, 2]}, 1.5, "limit"),
    Scatter("correct", "predicted", [1.0, 2.0], [2.0, 1.0]),
    Heatmap("predicted", "correct", HOSTILE, np.eye(6, dtype=np.int64).tolist()),
    Reliability([0.1, float("nan")], [0.2, float("nan")], [3, 0]),
    Intervals("B - A", HOSTILE[:2], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3]),
]


def hostile_report() -> Report:
    """Hostile texts in every place that a text of the data, a label or a path can have."""
    blocks: list[Block] = [Text(SCRIPT), *(Figure(f"plot{i}", SCRIPT, plot, SCRIPT) for i, plot in enumerate(PLOTS))]
    rows = [(i, data_text(text), text, i / 7) for i, text in enumerate(HOSTILE)]
    blocks.append(Table(SCRIPT, ("line", "text", SCRIPT, "p"), rows, 99, SCRIPT, examples=True))
    return Report(
        SCRIPT, Headline(SCRIPT, HOSTILE[2], "0.5", HOSTILE[1], {SCRIPT: HOSTILE[2]}), [Section("All", blocks)]
    )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "report"
    write_report(hostile_report(), ReportOptions(folder))
    return folder


def test_hostile_texts_stay_texts(hostile: Path) -> None:
    page = page_of(hostile)
    assert page.count("<script>") == 1
    assert page.count("</script>") == 1
    assert "alert(" in page
    assert "(9,400 more characters)" in page
    assert '<span class="empty">empty</span>' in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert json.loads((hostile / "report.json").read_text())["sections"][0]["blocks"][6]["plot"]["accuracy"] == [
        0.2,
        None,
    ]


def test_a_page_refers_to_nothing_and_allows_its_own_script_alone(hostile: Path) -> None:
    page = page_of(hostile)
    assert page.count("://") == page.count('xmlns="http://www.w3.org/2000/svg"')
    assert not re.search(r"@import|src=|url\((?!#)", page)
    assert re.search(r"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[^ ]+'; img-src data:;", page)


def test_equal_reports_are_equal_files(hostile: Path, tmp_path: Path) -> None:
    write_report(hostile_report(), ReportOptions(tmp_path / "report"))
    for path in hostile.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "report" / path.relative_to(hostile)).read_bytes(), path


# How it is written

PLAIN = Report("title", Headline("sentence", "label", "0.5", "interval"), [Section("One", [Text("text")])])


def test_only_a_report_is_replaced_and_only_if_asked(hostile: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    shutil.copytree(hostile, folder)
    with pytest.raises(UsageError, match=r"has a report: choose another folder, or replace it with --force"):
        check_report(ReportOptions(folder))
    (folder / "figures" / "old.png").touch()
    write_report(PLAIN, ReportOptions(folder, force=True))
    assert not (folder / "figures" / "old.png").exists()
    (folder / "notes.txt").touch()
    with pytest.raises(UsageError, match="has other files than those of a report"):
        check_report(ReportOptions(folder, force=True))
    with pytest.raises(UsageError, match=r"the folder .*nowhere does not exist"):
        check_report(ReportOptions(tmp_path / "nowhere" / "report"))
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_report_that_fails_leaves_the_old_one(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "report"
    shutil.copytree(hostile, folder)
    broken = Report("title", Headline("", "", "", ""), [Section("x", [Figure("f", "f", Scatter("", "", [], []))])])
    with pytest.raises(ValueError, match="empty"):
        write_report(broken, ReportOptions(folder, force=True))
    assert page_of(folder) == page_of(hostile)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_without_matplotlib_a_command_stops_before_any_work(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    with pytest.raises(InstallationError, match=r"pip install 'bertsym\[report\]'"):
        check_report(ReportOptions(tmp_path / "report"))
    result = cli("evaluate", "no such model", "no such file", "--report", tmp_path / "report")
    assert result.code == 1
    assert "a report needs matplotlib, which is not installed: pip install 'bertsym[report]'" in result.err


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


@needs("chromium", "playwright")
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_the_page_fits_sorts_and_searches_in_a_browser(browser: Any, hostile: Path, width: int, scheme: str) -> None:
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = (hostile / "index.html").as_uri()
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_placeholder("Find words").fill("alert text")
    assert page.locator("tbody tr:visible").count() == 1
    page.get_by_placeholder("Find words").fill("")
    if width == 1400:  # on small screens there are no heads of columns
        for _ in range(2):
            page.get_by_role("button", name="line").click()
        assert page.locator("tbody tr").first.locator("td").first.inner_text() == "5"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(244, 246, 249)"
    assert light == (scheme == "light")
    assert complaints == []
    assert [each for each in requests if not each.startswith("data:")] == [address]


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


# Size


def test_a_long_word_and_a_long_label_are_cut() -> None:
    word = "x" * 10_000
    sentence = TaggedSentence(word, [(0, len(word))], frozenset({Entity("A", 0, 1)}), frozenset(), 0.5)
    sections = tagging_sections([sentence], ExampleRows([1], lambda row: [word], ("text",)), "entities")
    sections.append(Section("Labels", [Table("Labels", ("label",), [(word,)])]))
    page = render_page(Report("title", Headline("", "", "", ""), sections), {})
    assert max(map(len, re.findall("x+", page))) == MOST_CHARACTERS
    assert page.count("… (9,400 more characters)") == 2


def test_many_rows_make_a_page_of_bounded_size() -> None:
    rng, count = np.random.default_rng(0), 200_000
    probabilities, classes = rng.dirichlet([1, 1], count), rng.integers(0, 2, count)
    rows = ExampleRows(range(count), lambda row: [f"text {row} " + "x" * 5000], ("text",))
    sections = classification_sections(probabilities, classes, ["a", "b"], rows)
    sections += regression_sections(rng.normal(size=count), rng.normal(size=count), rows)
    report = Report("title", Headline("", "", "", ""), sections)
    assert len(json.dumps(report.to_json())) < 600_000
    totals = [block.total for section in sections for block in section.blocks if isinstance(block, Table)]
    assert totals[1] is not None
    assert totals[1] > 90_000


def test_curves_of_a_long_run_have_a_bounded_number_of_points() -> None:
    run, count = Run(), 100_000
    for step in range(1, count + 1):
        run.add(StepDone(Span(step, step + 0.5), 1, 1, step, step, count, step, 1.0, 1.0, 1.0))
    steps, losses = run.curve("loss")
    assert 1000 <= len(steps) < 2000
    size = steps[0]
    np.testing.assert_allclose(losses, np.array(steps) - (size - 1) / 2)
    assert run.seconds == count / 2
