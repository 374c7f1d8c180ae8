"""The script that kills commands at random moments, a few times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "maintenance" / "kill_runs.py"


@pytest.mark.slow
def test_commands_that_are_killed_lose_nothing(tiny_hf: Path) -> None:
    command = [sys.executable, str(SCRIPT), f"hf:{tiny_hf}", "--kills", "4", "--resumes", "2", "--seed", "6"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    *_, last = result.stdout.splitlines()
    assert "2 resumed to the same bytes" in last
    assert "NEITHER" not in last
