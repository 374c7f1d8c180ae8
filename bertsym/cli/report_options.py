"""Options of a report, handed over as ReportOptions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from bertsym.cli.command import collected, option
from bertsym.cli.options import FILE

if TYPE_CHECKING:
    from bertsym.reports.options import ReportOptions


def _report(report: str | None, texts: bool, replace: bool = False) -> ReportOptions | None:
    if report is None:
        if not texts:
            raise click.UsageError("--no-texts needs --report.")
        return None
    from bertsym.reports.options import ReportOptions

    return ReportOptions(report, replace, texts)


def replacing(report: ReportOptions | None, force: bool) -> ReportOptions | None:
    """Return how a report is written by a command whose --force is about all that it writes."""
    return report if report is None else dataclasses.replace(report, force=force)


_REPORT = (
    option(
        "--report",
        group="Report",
        metavar="DIR",
        type=FILE,
        help="Folder for a report: index.html, a page that needs no network, its figures, and its numbers as "
        "report.json. Needs pip install 'bertsym[report]'.",
    ),
    option(
        "--no-texts",
        "texts",
        group="Report",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Leave texts of the data, which may be personal, out of the report.",
    ),
)
#: a report as ReportOptions, or None; of a command with --force
report_options = collected("report", _report, *_REPORT)
#: a report of a command that writes nothing else
only_report_options = collected(
    "report",
    _report,
    *_REPORT,
    option(
        "--force",
        "replace",
        group="Output",
        is_flag=True,
        help="Overwrite the report in DIR, and the file of --log-json.",
    ),
)
