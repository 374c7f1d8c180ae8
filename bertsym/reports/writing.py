"""Write a report: a page, its numbers as JSON, and its figures, as a folder that appears when it is complete."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bertsym.atomic_writing import sync_folder, write_file, write_text
from bertsym.errors import ModelError, UsageError
from bertsym.reports.blocks import Drawing, Report
from bertsym.reports.figures import draw_figure, require_matplotlib
from bertsym.reports.options import ReportOptions
from bertsym.reports.page import render_page

PAGE, NUMBERS, FIGURES = "index.html", "report.json", "figures"  #: names in the folder


def check_report(options: ReportOptions | None) -> None:
    """Check, before any work, that a report can be written; without options there is nothing to check.

    Raises InstallationError if matplotlib is missing, and UsageError for a folder that exists, unless it is empty or
    has a report that may be replaced.
    """
    if options is None:
        return
    require_matplotlib()
    folder = Path(options.folder)
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder}: can't write a report: the folder {folder.parent} does not exist")
    if not os.access(folder.absolute().parent, os.W_OK):
        raise UsageError(f"{folder}: can't write a report: the folder {folder.parent} is not writable")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: give another one for the report")
    names = {path.name for path in folder.iterdir()}
    if names - {PAGE, NUMBERS, FIGURES}:
        raise UsageError(f"{folder} has other files than those of a report: give another folder")
    if names and not options.force:
        raise UsageError(f"{folder} has a report: choose another folder, or replace it with --force")


def write_report(report: Report, options: ReportOptions) -> Path:
    """Write a report and return the path of its page.

    Raises ModelError if it can't be written; the folder is then unchanged.
    """
    check_report(options)
    folder = Path(options.folder)
    try:
        with _staged(folder) as stage:
            _fill(stage, report)
        return folder / PAGE
    except OSError as error:
        raise ModelError(f"{folder}: can't write the report: {error.strerror or error}") from None


def _fill(stage: Path, report: Report) -> None:
    figures = stage / FIGURES
    figures.mkdir()
    drawn: dict[str, bytes] = {}
    for figure in report.figures:
        if isinstance(figure, Drawing):
            svg, png = figure.svg, figure.png
        else:
            svg, png = draw_figure(figure)
            drawn[figure.name] = svg
        _write(figures / f"{figure.name}.svg", svg)
        _write(figures / f"{figure.name}.png", png)
    write_text(stage / NUMBERS, json.dumps(report.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    write_text(stage / PAGE, render_page(report, drawn))
    sync_folder(figures)
    sync_folder(stage)


def _write(path: Path, content: bytes) -> None:
    write_file(path, lambda file: file.write(content))


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, which takes its place at the end."""
    parent = folder.absolute().parent
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".writing", dir=parent))
    try:
        stage = work / "new"
        stage.mkdir()
        yield stage
        old = work / "old"
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(stage, folder)
        except BaseException:
            if old.exists():
                os.rename(old, folder)
            raise
        sync_folder(parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
