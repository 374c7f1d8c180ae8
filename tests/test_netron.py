"""Netron itself, run by Node, opens what we write and knows the shapes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from tools import needs

from bertsym import SymbolGraph, draw

pytestmark = needs("node", "netron")
LONGEST_LABEL = 16  # Netron draws no longer one on an edge


@pytest.fixture(scope="module")
def netron(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[str, Any]]:
    """What Netron knows of a file."""
    spec = importlib.util.find_spec("netron")
    assert spec is not None
    assert spec.origin is not None
    folder = tmp_path_factory.mktemp("netron")
    for path in Path(spec.origin).parent.iterdir():
        if path.suffix in (".js", ".json"):
            shutil.copyfile(path, folder / path.name)
    (folder / "package.json").write_text('{"type": "module"}')
    driver = shutil.copy(Path(__file__).parent / "netron_shapes.mjs", folder)

    def opened(path: Path) -> dict[str, Any]:
        result = subprocess.run(["node", driver, str(path)], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr[-500:]
        known: dict[str, Any] = json.loads(result.stdout)
        return known

    return opened


def operators(prefix: Path) -> list[str]:
    graph = SymbolGraph.load(f"{prefix}-symbol.json")
    return [node.name for node in graph.nodes if not node.is_variable]


def test_a_bundle_s_symbol_shows_the_shapes_of_all_parameters(
    netron: Callable[[Path], dict[str, Any]], bundles: dict[str, Path]
) -> None:
    known = netron(Path(f"{bundles['cls']}-symbol.json"))
    assert known["nodes"] == operators(bundles["cls"])
    assert len(known["weights"]) == 37
    assert None not in known["weights"]


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
def test_a_netron_file_shows_the_shapes_of_all_edges_too(
    netron: Callable[[Path], dict[str, Any]], bundles: dict[str, Path], tmp_path: Path, output: str
) -> None:
    known = netron(draw(bundles[output], tmp_path / "model.netron"))
    assert sorted(known["nodes"]) == sorted(operators(bundles[output]))
    assert None not in [*known["weights"], *known["edges"]]
    assert max(len("×".join(map(str, shape))) for shape in known["edges"]) <= LONGEST_LABEL
    assert known["inputs"] == {"data0": ["N", "T"], "data1": ["N", "T"], "data2": ["N"]}
    assert list(known["outputs"].values()) == [["N", "T", 32] if output == "sequence" else ["N", 32]]


def test_any_symbol_can_be_drawn_for_netron(
    netron: Callable[[Path], dict[str, Any]], cli: Callable[..., Result], tmp_path: Path
) -> None:
    symbol = Path(__file__).parent / "symbols" / "mxnet-1.9.1" / "resnet50.json"
    out = tmp_path / "resnet.netron"
    assert cli("draw", symbol, out, "--shape", "data=1,3,224,224").code == 0
    known = netron(out)
    assert known["inputs"] == {"data": [1, 3, 224, 224]}
    assert None not in [*known["weights"], *known["edges"]]
    assert list(known["outputs"].values()) == [[1, 1000]]
