"""Compare the output of a client with the expected table and print the difference: compare.py PRINTED EXPECTED."""

from __future__ import annotations

import sys
from pathlib import Path

TOLERANCE = 1e-5
TEXT_COLUMNS = ("label", "labels", "tags", "start", "end")


def compare(printed: str, expected: str) -> float:
    """Return the largest difference of two numbers; raises ValueError if anything else differs."""
    rows, expected_rows = ([line.split("\t") for line in text.splitlines()] for text in (printed, expected))
    if len(rows) != len(expected_rows):
        raise ValueError(f"{len(rows)} lines, expected {len(expected_rows)}")
    if rows[0] != expected_rows[0]:
        raise ValueError(f"header {rows[0]}, expected {expected_rows[0]}")
    worst = 0.0
    for number, (row, wanted) in enumerate(zip(rows[1:], expected_rows[1:]), 2):
        if len(row) != len(wanted):
            raise ValueError(f"line {number} is {row}, expected {wanted}")
        for column, value, other in zip(rows[0], row, wanted):
            if column in TEXT_COLUMNS:
                if value != other:
                    raise ValueError(f"line {number} is {row}, expected {wanted}")
                continue
            difference = abs(float(value) - float(other))
            # Written so that NaN fails too.
            if not difference <= TOLERANCE:
                raise ValueError(f"line {number}: {column} differs by {difference:.2g}")
            worst = max(worst, difference)
    return worst


if __name__ == "__main__":
    try:
        worst = compare(*(Path(path).read_text(encoding="utf-8") for path in sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
    print(f"largest difference {worst:.2g}")
