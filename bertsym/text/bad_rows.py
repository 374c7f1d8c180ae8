"""Handle rows of a table that can't be read, as ``--on-error`` says."""

from __future__ import annotations

from collections.abc import Callable

from bertsym.errors import DataError

ON_ERROR = {"fail": "", "skip": "left out", "blank": "left blank"}  #: choice -> what happened to the row
SHOWN_BAD_ROWS = 20


class BadRows:
    """A handler that is called with the error of each bad row, and counts the errors.

    With `on_error` ``fail`` the first error is raised; with ``skip`` and ``blank`` at most `shown` errors are reported.
    """

    def __init__(self, on_error: str, report: Callable[[str], object], shown: int | None = SHOWN_BAD_ROWS) -> None:
        self._on_error, self._report, self._shown = on_error, report, shown
        self.count = 0

    def __call__(self, error: DataError) -> None:
        """Raise or report the error of a row, and count it."""
        if self._on_error == "fail":
            raise DataError(f"{error}; --on-error skip leaves out rows that can't be read")
        self.count += 1
        if self._shown is None or self.count <= self._shown:
            self._report(f"{error}: {ON_ERROR[self._on_error]}")

    def finish(self, rows: int) -> None:
        """Report how many of all `rows` were bad, if any; raises DataError if all were."""
        if self.count:
            self._report(f"{self.count} of {rows} rows {ON_ERROR[self._on_error]}")
        if self.count and self.count == rows:
            raise DataError(f"no row can be read: all {rows} rows are {ON_ERROR[self._on_error]}")
