"""`bertsym doctor` finds what works and what does not, in real environments, some of them broken on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertsym import DoctorResult, Finding
from bertsym.analysis.known_defects import release_defects
from bertsym.cli.group import run

SITE = next(path for path in map(Path, sys.path) if (path / "numpy").is_dir())
ROOT = Path(__file__).parent.parent


def doctor_json(**variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code and the findings by name, of a process with these environment variables."""
    command = [sys.executable, "-m", "bertsym", "doctor", "--json"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.returncode == 0)
    return done.returncode, {finding["name"]: finding for finding in answer["findings"]}


def dist_info(folder: Path, name: str, version: str) -> None:
    """Let importlib.metadata find another version of a package, before the installed one."""
    (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")


def test_this_environment_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    status = {line[9:].split("  ")[0].strip(): line.split()[0] for line in lines}
    needed = ("python", "numpy", "mxnet", "gluonnlp", "onnxruntime", "engines", "matplotlib", "tensorboardX")
    assert {status[name] for name in needed} == {"ok"}
    assert any(line.startswith("ok       engines") and line.endswith("mxnet, onnxruntime") for line in lines)
    assert any("oneDNN fusion" in line and "MXNET_SUBGRAPH_BACKEND=NONE" in line for line in lines)


def test_a_broken_mxnet_and_an_old_numpy_are_reported_with_their_fix_and_exit_code_1(tmp_path: Path) -> None:
    """mxnet's library is a file that can't be loaded, as where it was copied in part."""
    (tmp_path / "mxnet").mkdir()
    for path in (SITE / "mxnet").iterdir():
        if path.name != "libmxnet.so":
            (tmp_path / "mxnet" / path.name).symlink_to(path)
    (tmp_path / "mxnet" / "libmxnet.so").write_bytes(b"\x7fELF")
    dist_info(tmp_path, "numpy", "1.19.5")
    dist_info(tmp_path, "matplotlib", "3.5.3")
    code, found = doctor_json(PYTHONPATH=str(tmp_path), PATH="/nonexistent")
    assert code == 1
    assert found["mxnet"]["status"] == "broken"
    assert "1.9.1 is installed and can't be imported" in found["mxnet"]["text"]
    assert found["numpy"]["status"] == "broken"
    assert found["numpy"]["text"] == "1.19.5 is too old"
    assert found["numpy"]["fix"].endswith("'numpy>=1.22'")
    assert (found["dot"]["status"], found["dot"]["fix"]) == ("missing", "apt-get install graphviz")
    assert found["engines"]["text"] == "onnxruntime"
    assert found["matplotlib"]["status"] == "missing"
    assert found["matplotlib"]["text"].startswith("3.5.3 is too old for reports: --report")
    assert found["matplotlib"]["fix"].endswith("'matplotlib>=3.6'")


def test_a_numpy_that_is_too_old_is_named_by_doctor_and_by_every_other_command(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import numpy\nnumpy.__version__ = '1.19.5'\n")
    dist_info(tmp_path, "numpy", "1.19.5")
    code, found = doctor_json(PYTHONPATH=str(tmp_path))
    assert code == 1
    assert found["numpy"]["status"] == found["engines"]["status"] == "broken"
    assert found["engines"]["text"] == "not checked: numpy 1.19.5 is too old"
    words = ("inspect", "model")
    assert_one_line(tmp_path, words, "Error: numpy 1.19.5 is too old; run: ", "pip install 'numpy>=1.22'")


def test_a_command_names_a_required_package_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['huggingface_hub'] = None\n")
    words = ("export", "hf:a/b", str(tmp_path / "out"))
    assert_one_line(tmp_path, words, "Error: huggingface_hub is not installed; run: ", "pip install huggingface_hub")


def assert_one_line(folder: Path, words: tuple[str, ...], begin: str, end: str) -> None:
    """A command, with a folder before the installed packages, exits with 1 and prints this line only."""
    command = [sys.executable, "-m", "bertsym", *words]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(begin)
    assert line.endswith(end)


def test_a_library_that_crashes_at_import_is_broken_and_does_not_end_the_command(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("import os\nos.abort()\n")
    code, found = doctor_json(PYTHONPATH=str(tmp_path))
    assert code == 1
    assert found["onnxruntime"]["status"] == "broken"
    assert "the process ended with exit code -6" in found["onnxruntime"]["text"]
    assert found["onnxruntime"]["fix"].endswith("onnxruntime --force-reinstall")


def test_a_missing_optional_package_is_not_a_fault() -> None:
    result = DoctorResult((Finding("dot", "missing", "Graphviz", "apt-get install graphviz"),))
    assert result.broken == ()
    assert result.to_json()["ok"] is True


@pytest.mark.parametrize(("version", "word"), [("1.4.1", "no act_type"), ("1.5.1", "gradients"), ("1.7.0", "4.8e-3")])
def test_defects_of_a_release_are_listed(version: str, word: str) -> None:
    assert any(word in defect for defect, _ in release_defects(version))
    assert release_defects("1.6.0") == []
