"""The page of a report: its safety, its size, how it is written, and what it does in a browser."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_reports import SCRIPT, Cli, page_of
from tools import needs

from bertsym import InstallationError, ReportOptions, UsageError
from bertsym.events import Span, StepDone
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
from bertsym.reports.page import render_page
from bertsym.reports.regression import regression_sections
from bertsym.reports.tagging import TaggedSentence, tagging_sections
from bertsym.reports.training import Run
from bertsym.reports.writing import check_report, write_report

HOSTILE = [SCRIPT, "הסרט טוב מאוד", "x" * 10_000, "", "{{script}} $x^2$ \\N", "two\nlines"]
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
    run, count = Run(), 20_000
    for step in range(1, count + 1):
        run.add(StepDone(Span(step, step + 0.5), 1, 1, step, step, count, step, 1.0, 1.0, 1.0))
    steps, losses = run.curve("loss")
    assert 1000 <= len(steps) < 2000
    size = steps[0]
    np.testing.assert_allclose(losses, np.array(steps) - (size - 1) / 2)
    assert run.seconds == count / 2
