"""The script that kills commands at random times, a few times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "maintenance" / "kill_runs.py"


@pytest.mark.slow
def test_killed_commands_corrupt_no_bundle(tiny_hf: Path) -> None:
    few = ["--kills", "1", "--resumes", "1", "--batch-size", "20", "--seed", "6"]
    command = [sys.executable, str(SCRIPT), f"hf:{tiny_hf}", *few]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    *_, last = result.stdout.splitlines()
    assert "1 resumed: identical bytes" in last
    assert "CORRUPTED" not in last
