"""Under a limit of address space, commands that need MXNet work, or say how much it needs before they import it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import BERTSYM, beginning_with

# So that the need depends on neither the processors nor the limit of stacks.
FEWEST = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def limited(mebibytes: int, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of which all memory together is limited; stacks of threads have 8 MiB."""
    limits = "resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]));"
    limits += f"resource.setrlimit(resource.RLIMIT_AS, ({mebibytes} << 20,) * 2)"
    command = beginning_with(limits, [*BERTSYM, *map(str, arguments)])
    variables = {**os.environ, **FEWEST, **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=100)


def assert_too_little(done: subprocess.CompletedProcess[str]) -> None:
    needed = r"Error: MXNet needs about \d\.\d GiB of address space for OMP_NUM_THREADS=\d+, "
    left = r"but the limit \(ulimit -v\) leaves \d\.\d GiB: raise it, or set OMP_NUM_THREADS=1 or MALLOC_ARENA_MAX=1\n"
    assert re.fullmatch(needed + left, done.stderr)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("mebibytes", [300, 500, 650])
def test_too_little_address_space_is_a_one_line_error_without_files(
    mebibytes: int, classifier: Path, bundles: dict[str, Path], tiny_hf: Path, tmp_path: Path
) -> None:
    commands = {
        300: ("lower", bundles["cls"], tmp_path / "out", "--form", "fast"),
        500: ("export", f"hf:{tiny_hf}", tmp_path / "out"),
        650: ("predict", classifier, "--text", "a happy cat"),
    }
    assert_too_little(limited(mebibytes, *commands[mebibytes]))
    assert list(tmp_path.iterdir()) == []


def test_more_threads_need_more_address_space(classifier: Path) -> None:
    arguments = ("predict", classifier, "--text", "a happy cat")
    assert_too_little(limited(1000, *arguments, OMP_NUM_THREADS="64"))
    done = limited(1000, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("yes\t")


def test_inspect_needs_less_for_shapes_and_nothing_without(bundles: dict[str, Path]) -> None:
    symbol = f"{bundles['cls']}-symbol.json"
    assert limited(300, "inspect", symbol).returncode == 0
    assert_too_little(limited(300, "inspect", symbol, "--shapes"))
    assert limited(800, "inspect", symbol, "--shapes").returncode == 0  # scipy, if installed, takes a part of it
    assert_too_little(limited(600, "diff", symbol, symbol, "--run"))


def test_address_space_is_measured_without_proc_too() -> None:
    """By trying limits, which stay as they were."""
    program = (
        "import resource\nfrom bertsym.address_space import mapped_bytes\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 41))\n"
        "print(mapped_bytes(), mapped_bytes('/absent/statm'), *resource.getrlimit(resource.RLIMIT_AS))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    told, found, *limits = map(int, done.stdout.split())
    assert abs(found - told) < 4 << 20
    assert limits == [1 << 40, 1 << 41]
