"""Input and output of workers: a job as one JSON argument, tables as JSON Lines, the result as the last line."""

from __future__ import annotations

import json
import sys
from typing import Any


def read_job() -> dict[str, Any]:
    """Return the job of this process."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    return job


def read_rows(path: str) -> list[dict[str, str]]:
    """Read the rows of a table: text, text_pair, label."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_result(**result: Any) -> None:
    """Print the result as the last line of the output."""
    print(json.dumps(result), flush=True)
