"""The grid of versions: what counts as a failure, and the grid itself on the tiny BERT."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_folders import write_family
from sentence_folders import POOLING, dense, write_sentence_folder
from tools import is_missing

SCRIPTS = Path(__file__).parents[1] / "scripts" / "maintenance"
sys.path.insert(0, str(SCRIPTS))
grid = importlib.import_module("version_grid")
table = importlib.import_module("version_grid_table")

GELU = [("1.5.0", "LeakyReLU act_type=gelu")]
ARANGE = [*GELU, ("1.6.0", "_contrib_arange_like"), ("1.6.0", "softmax use_length")]


def cell(version: str, measure: str, target: Any = None, minimum: Any = "1.5.0", **answer: Any) -> Any:
    """The cell of a symbol with LeakyReLU gelu."""
    return table.judge(answer, measure, table.expectation(version, minimum, GELU, target))


# What a cell says


@pytest.mark.parametrize("measure", ["outputs", "gradients", "losses", "parameters"])
def test_a_difference_above_its_tolerance_fails(measure: str) -> None:
    tolerance = table.TOLERANCES[measure]
    assert cell("1.9.1", measure, **{measure: tolerance}) == table.Cell(f"{tolerance:.1e}")
    above = cell("1.9.1", measure, **{measure: 1.2 * tolerance})
    assert above == table.Cell(f"FAILED: {1.2 * tolerance:.1e}", failed=True)
    assert cell("1.9.1", measure, **{measure: float("nan")}).failed


def test_an_error_a_crash_and_a_refusal_fail_where_the_symbol_should_load() -> None:
    assert cell("1.6.0", "outputs", crashed="exit code 255").text == "FAILED: crashed: exit code 255"
    assert cell("1.6.0", "outputs", error="ValueError: no").text == "FAILED: error: ValueError: no"
    refused = cell("1.6.0", "outputs", refused="Operator erf is not registered\nStack trace:\n  [bt]")
    assert refused == table.Cell("FAILED: refused: Operator erf is not registered", failed=True)


def test_a_symbol_that_loads_below_its_minimum_fails() -> None:
    assert cell("1.4.1", "outputs", outputs=0.0) == table.Cell("FAILED: loads, which it should not", failed=True)
    assert cell("1.5.1.post0", "outputs", minimum="1.6.0", outputs=0.0).failed


def test_a_refusal_must_name_what_is_missing() -> None:
    message = "Invalid Input: 'gelu', valid values are: {'elu', 'leaky'}, in operator LeakyReLU(name=\"gelu0\")"
    assert cell("1.4.1", "outputs", refused=message) == table.Cell("refused: gelu")
    other = cell("1.4.1", "outputs", refused="Operator softmax_gelus is not registered")
    assert other.failed
    assert "for another reason than gelu" in other.text
    expected = table.expectation("1.5.1", "1.6.0", ARANGE)
    assert expected.blamed == {"_contrib_arange_like", "use_length"}
    arange = table.judge({"refused": "Operator _contrib_arange_like is not registered"}, "outputs", expected)
    assert arange == table.Cell("refused: _contrib_arange_like")


def test_a_crash_does_not_count_as_a_refusal() -> None:
    assert cell("1.4.1", "outputs", crashed="exit code 255").failed


def test_a_known_fault_must_show_and_stay_within_its_bounds() -> None:
    assert cell("1.7.0", "outputs", outputs=4e-4) == table.Cell("4.0e-04 (known fault)")
    assert cell("1.7.0", "outputs", outputs=1e-7).failed
    assert cell("1.7.0", "outputs", outputs=0.1).failed
    assert cell("1.7.0", "outputs", outputs=float("nan")).failed
    assert cell("1.5.1", "gradients", gradients=160.0) == table.Cell("1.6e+02 (known fault)")
    assert cell("1.5.1", "gradients", gradients=1e-6).failed
    # Of the losses it is not sure.
    assert not cell("1.5.1", "losses", losses=1e-6).failed


def test_a_known_fault_excuses_nothing_else() -> None:
    assert cell("1.5.1", "outputs", outputs=4e-4).failed
    assert cell("1.6.0", "gradients", gradients=1.0).failed
    without_gelu = table.expectation("1.7.0", "1.4.0", [("1.4.0", "erf")])
    assert table.judge({"outputs": 4e-4}, "outputs", without_gelu).failed


def test_no_fault_is_excused_in_the_target_mxnet() -> None:
    assert cell("1.5.1", "gradients", target="1.5", gradients=160.0).failed
    assert not cell("1.7.0", "outputs", target="1.5", outputs=4e-4).failed


def test_a_table_cell_shows_its_worst_run_and_the_verdict_counts_the_cells() -> None:
    small, large = table.Cell("1.0e-07"), table.Cell("9.0e-08")
    failed = table.Cell("FAILED: crashed", failed=True)
    assert table.worst([large, small]) == small
    assert table.worst([small, failed, large]) == failed
    refused, known = table.Cell("refused: gelu"), table.Cell("4.0e-04 (known fault)")
    assert table.verdict([small, refused, known]).startswith("passed: of 3 cells 1 within tolerance")
    assert table.verdict([small, failed]).startswith("FAILED: of 2 cells 1 within tolerance")
    assert table.markdown("MXNet", ["Module"], {"1.9.1": [small]}).splitlines()[-1] == "| 1.9.1 | 1.0e-07 |"


# The processes


def test_a_crash_is_reported_and_the_next_job_runs(bundles: dict[str, Path], tmp_path: Path) -> None:
    symbol = Path(f"{bundles['cls']}-symbol.json")
    document = json.loads(symbol.read_text())
    document["heads"][0][1] = 100_000  # MXNet reads an output that the node does not have
    crashing, unknown = tmp_path / "crashing-symbol.json", tmp_path / "unknown-symbol.json"
    crashing.write_text(json.dumps(document))
    unknown.write_text(symbol.read_text().replace('"LayerNorm"', '"LayerNorm2"'))
    tokens = np.ones((1, 8), np.float32)
    np.savez(tmp_path / "cases.npz", adata0=tokens, adata1=tokens, adata2=np.full(1, 8, np.float32))
    np.savez(tmp_path / "reference.npz", a=np.ones((1, 32), np.float32))

    def job(symbol: Path, api: str) -> dict[str, str]:
        files = {name: str(tmp_path / f"{name}.npz") for name in ("cases", "reference")}
        return {"api": api, "symbol": str(symbol), "params": f"{bundles['cls']}-0000.params", **files}

    jobs = [*(job(unknown, api) for api in grid.APIS), job(crashing, "Module"), job(symbol, "C predict")]
    found = grid.answers(grid.INSTALLED, None, jobs, tmp_path)
    for answer in found[:3]:
        assert "LayerNorm2 is not registered" in answer["refused"]
    assert found[3]["crashed"].startswith("exit code ")
    assert found[4]["outputs"] > 0


def test_the_imported_mxnet_must_be_the_requested_one(tmp_path: Path) -> None:
    report = {"mxnet": "1.5.1", "library": str(tmp_path / "mxnet" / "libmxnet.so")}
    grid.check_library("1.5.1.post0", tmp_path, report)
    for version, folder in (("1.4.1", tmp_path), ("1.5.1.post0", tmp_path / "other")):
        with pytest.raises(grid.GridError, match=r"was requested, but 1\.5\.1 of"):
            grid.check_library(version, folder, report)


def test_a_failed_download_of_a_wheel_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(grid.DownloadError, match=r"can't download mxnet 1\.4\.1: "):
        grid.unpack_wheel("1.4.1", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


# The grid


@pytest.mark.slow
def test_every_form_and_family_behaves_as_documented_in_every_mxnet(
    tiny_hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The portable form for 1.4, 1.5 and 1.7 is the same graph as without a target, see test_forms."""
    monkeypatch.setattr(grid, "STEPS", 4)
    try:
        for version in grid.VERSIONS:
            grid.unpack_wheel(version, grid.CACHE)
    except grid.DownloadError as error:
        is_missing(f"needs the wheels of older MXNets: {error}")
    forms = ["portable", "portable-guard", "portable-1.9", "gluonnlp", "fast", "fast-1.4"]
    models = [grid.Model(f"hf:{tiny_hf}", forms)]
    # An ERNIE is a BERT with ReLU, which here is the activation of the ELECTRA.
    for folder in (
        write_family(tmp_path / "electra", "electra", hidden_act="relu"),
        write_family(tmp_path / "albert", "albert"),
    ):
        models.append(grid.Model(f"hf:{folder}", ["portable"]))
    # Every pooling and activation, the layers wide enough and the embedding not normalised, so that faults show.
    modes = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens")
    activations = ("activation.Tanh", "activation.ReLU", "activation.GELU", "activation.Sigmoid", "linear.Identity")
    widths = [128, *[32] * len(activations)]
    chain = [
        ("Pooling", {**POOLING, **{f"pooling_mode_{mode}": True for mode in modes}}),
        ("Normalize", {}),
        *(("Dense", dense(*layer)) for layer in zip(widths, widths[1:], activations)),
    ]
    sentences = write_sentence_folder(tmp_path / "sentences", *chain)
    models.append(grid.Model(f"hf:{sentences}", ["portable"], embeds=True))
    (tmp_path / "grid").mkdir()
    passed = grid.run(models, list(grid.VERSIONS), grid.CACHE, tmp_path / "grid")
    printed = capsys.readouterr()
    assert passed, printed.out + printed.err
    verdict = printed.out.splitlines()[-1]
    columns = sum(len(grid.APIS if model.embeds else grid.COLUMNS) * len(model.forms) for model in models)
    squares = (columns + len(grid.HEADS)) * len(grid.VERSIONS)
    assert verdict.startswith(f"passed: of {squares} cells ")
    assert verdict.endswith(" 0 failed")
    assert " 0 refused" not in verdict
