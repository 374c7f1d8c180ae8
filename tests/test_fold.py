"""Folding: query, key and value of a layer as one parameter, in a bundle that every command takes but finetune."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables

from bertsym import Bundle, Classifier, ModelError, evaluate, inspect, lower, verify
from bertsym.bundle import SYMBOL, TRAIN_SYMBOL
from bertsym.encoders.folding import unfold_parameters
from bertsym.passes.qkv_folding import fold_qkv
from bertsym.symbol.graph import SymbolGraph

Cli = Callable[..., Result]
CELL = "bertencoder0_transformer0_dotproductselfattentioncell0"


def folded(source: Path, out: Path, **options: object) -> Bundle:
    bundle = lower(source, out, fold=True, **options).bundle  # type: ignore[arg-type]
    assert isinstance(bundle, Bundle)
    return bundle


def test_a_layer_multiplies_once_for_query_key_and_value(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = folded(bundles["cls"], tmp_path / "x")
    graph, before = SymbolGraph.load(bundle.path(SYMBOL)), SymbolGraph.load(Bundle.open(bundles["cls"]).path(SYMBOL))
    count = len(before.find(op="FullyConnected")), len(graph.find(op="FullyConnected"))
    assert count == (2 * 6, 2 * 4)
    assert not graph.find(op="_mul_scalar", pattern="*query*")
    shapes = bundle.params().shapes
    assert shapes[f"{CELL}_query_key_value_weight"] == (96, 32)
    assert shapes[f"{CELL}_query_key_value_bias"] == (96,)
    assert f"{CELL}_query_weight" not in shapes


def test_the_scale_of_the_queries_is_in_their_rows(bundles: dict[str, Path], tmp_path: Path) -> None:
    before, after = Bundle.open(bundles["cls"]).params(), folded(bundles["cls"], tmp_path / "x").params()
    rows = after[f"{CELL}_query_key_value_weight"]
    np.testing.assert_allclose(rows[:32], before[f"{CELL}_query_weight"] / np.sqrt(8), rtol=1e-6)
    np.testing.assert_array_equal(rows[32:64], before[f"{CELL}_key_weight"])
    np.testing.assert_array_equal(rows[64:], before[f"{CELL}_value_weight"])


def test_unfolding_restores_the_folded_parameters(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = folded(bundles["pooled"], tmp_path / "x")
    before, after = Bundle.open(bundles["pooled"]).params(), unfold_parameters(bundle.params(), bundle.config)
    assert {name: array.shape for name, array in after.items()} == before.shapes
    for name, array in after.items():
        np.testing.assert_allclose(array, before[name], rtol=1e-6)


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
@pytest.mark.parametrize("form", ["portable", "fast"])
def test_a_folded_bundle_is_verified_against_gluonnlps_net(
    bundles: dict[str, Path], tmp_path: Path, output: str, form: str
) -> None:
    bundle = folded(bundles[output], tmp_path / "x", form=form)
    assert all(check.relative_difference <= 1e-4 for check in verify(bundle.prefix))


def test_a_folded_bundle_loads_in_the_same_mxnet_versions(bundles: dict[str, Path], tmp_path: Path) -> None:
    before = Bundle.open(bundles["cls"]).signature
    assert folded(bundles["cls"], tmp_path / "x").signature.minimum_mxnet == before.minimum_mxnet


def test_a_folded_classifier_gives_the_same_predictions(classifier: Path, tables: Tables, tmp_path: Path) -> None:
    bundle = folded(classifier, tmp_path / "x")
    assert not bundle.has(TRAIN_SYMBOL)
    assert evaluate(bundle.prefix, tables.dev).metrics == pytest.approx(
        evaluate(classifier, tables.dev).metrics, abs=1e-5
    )
    texts = ["the happy cat", "the sad dog sat on the mat", "a bird"]
    for mine, other in zip(Classifier(bundle.prefix).predict(texts), Classifier(classifier).predict(texts)):
        assert mine.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_inspect_finds_the_encoder_and_the_folded_parameters(cli: Cli, classifier: Path, tmp_path: Path) -> None:
    result = cli("lower", classifier, tmp_path / "x", "--fold")
    assert result.code == 0, result.err
    report = json.loads(cli("inspect", tmp_path / "x", "--json").out)
    assert report["bert"]["form"] == "portable (query, key and value as one)"
    assert inspect(tmp_path / "x").encoder is not None
    manifest = json.loads((tmp_path / "x-manifest.json").read_text())
    assert manifest["lowered"] == {"form": "portable", "target_mxnet": None, "fold": True}


def test_finetune_refuses_a_folded_base(cli: Cli, bundles: dict[str, Path], tables: Tables, tmp_path: Path) -> None:
    base = folded(bundles["cls"], tmp_path / "x").prefix
    result = cli("finetune", base, "--train", tables.train, "--dev", tables.dev, tmp_path / "y")
    assert result.code == 1
    assert "has fused QKV weights, for inference only" in result.error_line


def test_a_bundle_without_anything_to_fold_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to fold"):
        lower(bundles["cls"], tmp_path / "x", form="gluonnlp", fold=True)
    bundle = folded(bundles["cls"], tmp_path / "x")
    with pytest.raises(ModelError, match="nothing to fold"):
        fold_qkv(SymbolGraph.load(bundle.path(SYMBOL)), bundle.params())
