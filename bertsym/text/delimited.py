"""The cells of TSV and CSV rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from bertsym.errors import DataError
from bertsym.text.lines import LONGEST_LINE, without_end


def split_tsv(lines: Iterable[tuple[int, str | DataError]]) -> Iterator[tuple[int, list[str] | DataError]]:
    """Split numbered lines at tabs; an empty line has no cells.

    Without quoting: GLUE's files contain quotation marks that are plain text.
    """
    for number, line in lines:
        if isinstance(line, DataError):
            yield number, line
        else:
            stripped = without_end(line)
            yield number, stripped.split("\t") if stripped else []


def split_csv(
    lines: Iterable[tuple[int, str | DataError]], describe_error: Callable[[int, str], DataError]
) -> Iterator[tuple[int, list[str] | DataError]]:
    """Split CSV rows, each with the number of its first line; `describe_error` makes the error of a line."""
    errors: list[DataError] = []  # errors in the lines of the current row
    taken: list[str] = []  # lines of the current row

    def texts() -> Iterator[str]:
        for _, line in lines:
            if isinstance(line, DataError):
                errors.append(line)
            taken.append("\n" if isinstance(line, DataError) else line)
            yield taken[-1]

    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(texts(), strict=True)
    while True:
        start = reader.line_num + 1
        taken.clear()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            lost = f" (a quotation mark that is not closed, over {len(taken)} lines)" if len(taken) > 1 else ""
            if str(error) == "unexpected end of data":
                lost = f" (the quoted cell that begins on line {start + _last_opened_quote(taken)} never ends)"
            yield start, describe_error(start, f"not valid CSV: {error}{lost}")
            continue
        if fields is None:
            return
        yield start, errors[0] if errors else fields
        errors.clear()


def _last_opened_quote(lines: Sequence[str]) -> int:
    """Find the line, by its index, on which the CSV cell begins that never ends; -1 if every cell ends."""
    opened = -1
    for i, line in enumerate(lines):
        position = 0
        while found := re.compile(r'(?:^|,)"' if opened < 0 else r'""|"').search(line, position):
            position = found.end()
            if opened < 0:
                opened = i
            elif found[0] == '"':
                opened = -1
    return opened
