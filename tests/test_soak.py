"""The script that measures the memory of one Classifier, for a few rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "maintenance" / "soak.py"


@pytest.mark.slow
def test_the_soak_predicts_every_row_and_prints_the_memory() -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--rows", "1200"], capture_output=True, text=True, timeout=1800
    )
    assert result.returncode == 0, result.stdout + result.stderr
    *samples, last = result.stdout.splitlines()
    assert len(samples) == 3
    assert last.startswith("1200 rows predicted; ")
    assert "MiB after 400 rows" in last
    assert "bytes per row" in last
