"""The Python examples of README.md run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsym import export_onnx

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(block: str, **names: Any) -> dict[str, Any]:
    """Run an example, which may use `names`; all names that there are then."""
    exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.fixture
def out(bundles: dict[str, Path], classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with out/base and out/classifier, as the examples expect them, which is the current one."""
    (tmp_path / "out").mkdir()
    for prefix, name in ((bundles["cls"], "base"), (classifier, "classifier")):
        for path in prefix.parent.glob(f"{prefix.name}-*"):
            shutil.copy(path, tmp_path / "out" / path.name.replace(prefix.name, name, 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def test_the_example_of_surgery_runs(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in BLOCKS if "SymbolGraph" in block]
    run(block)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("BERT of 2 layers, 32 units, 4 heads, ")
    assert "`fc-finetune` reads `cls` = [CLS], position 0 of the sequence: (N, 32)" in printed[0]
    assert printed[0].endswith(" 1.4.0")
    assert printed[1] == "None"
    assert printed[2:] == ["['cls_slice']", "['cls', 'unit_cls']"]
    for name in ("first-symbol.json", "headless-0000.params", "still-train-symbol.json", "classifier.netron"):
        assert (out / name).exists()


def test_the_lines_for_plain_mxnet_load_a_bundle(out: Path) -> None:
    (block,) = [block for block in BLOCKS if "load_checkpoint" in block]
    run(f"from bertsym.runtime import mx\n{block}")


def test_the_example_of_onnx_runs(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_onnx(out / "classifier", "classifier.onnx")
    (block,) = [block for block in BLOCKS if "onnxruntime" in block]
    found = run(block)
    printed = capsys.readouterr().out
    assert "'no': " in printed
    assert "'yes': " in printed
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-5)
