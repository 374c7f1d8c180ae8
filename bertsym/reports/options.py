"""Where a report goes, and what it may contain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportOptions:
    """The folder of a report, and whether texts of the data may be in it."""

    folder: str | Path  #: gets ``index.html``, ``report.json`` and ``figures``
    force: bool = False  #: replace the report that is in the folder
    texts: bool = True  #: whether texts of the data, which may be personal, are in the report
