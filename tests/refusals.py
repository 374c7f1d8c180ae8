"""What a command that is refused must look like."""

from __future__ import annotations

from pathlib import Path

from conftest import Result


def refusal(result: Result, target: Path | None = None, code: int = 1) -> str:
    """The one line of the error; it is the last, was foreseen, and nothing was left at `target`."""
    assert result.code == code, result.err
    assert result.out == "", result.out
    *progress, line = result.err.strip().splitlines()
    assert line.startswith("Error: "), result.err
    assert "unexpected" not in line, line
    assert not any("Error" in text or "Traceback" in text for text in progress), result.err
    assert target is None or not target.exists()
    return line
