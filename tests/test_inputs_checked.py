"""A wrong valid_length, by which MXNet 1.9.1 corrupts its memory, ends in one clear error on every public path."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOCABULARY, Result
from refusals import refusal
from test_guard import BAD_LENGTHS, LENGTH, some_texts

from bertsym import Bundle, DataError, ExportOptions, diff, export, extract, open_model
from bertsym.execution import model_values
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.tasks.classification import ClassTargets
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded
from bertsym.training.batch_source import TokenSource

Cli = Callable[..., Result]
WRONG = [*BAD_LENGTHS, 2.5, 0.999]


@pytest.fixture(scope="module", params=["portable", "gluonnlp", "fast", "guarded"])
def base(request: pytest.FixtureRequest, tiny_hf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in each form. What clips by itself is refused too: it would answer another question."""
    how: dict[str, Any] = {"guard": True} if request.param == "guarded" else {"form": request.param}
    return export(f"hf:{tiny_hf}", tmp_path_factory.mktemp("base") / request.param, ExportOptions(**how)).bundle.prefix


def message(wrong: float) -> str:
    return f"valid_length must be integers from 1 to {LENGTH}: row 1 holds {np.float32(wrong):g}"


@pytest.mark.parametrize("wrong", WRONG)
def test_inputs_are_checked_before_a_graph_is_run(base: Path, wrong: float) -> None:
    inputs = {**some_texts(), "data2": np.array([LENGTH, wrong], np.float32)}
    with pytest.raises(DataError, match=f"^{re.escape(f'{base}: {message(wrong)}')}$"):
        model_values(open_model(base), inputs)
    inputs["data2"][1] = 1
    assert np.isfinite(model_values(open_model(base), inputs)[0]).all()


@pytest.mark.parametrize("wrong", WRONG)
def test_inputs_are_checked_before_a_part_of_a_bert_is_run(
    bundles: dict[str, Path], tmp_path: Path, wrong: float
) -> None:
    """Which has lengths, and nothing else of a BERT."""
    part = open_model(extract(bundles["mean"], tmp_path / "part", ["mean"], ["layer 1"]).bundle.prefix)
    states = next(name for name in part.inputs if name != "data2")
    inputs = {states: np.ones((2, LENGTH, 32), np.float32), "data2": np.array([LENGTH, wrong], np.float32)}
    with pytest.raises(DataError, match="lengths data2 must be integers from 1 to 6: row 1 holds "):
        model_values(part, inputs)


@pytest.mark.parametrize("wrong", WRONG)
def test_inputs_are_checked_before_diff_runs_two_graphs(
    cli: Cli, bundles: dict[str, Path], tmp_path: Path, wrong: float
) -> None:
    np.savez(tmp_path / "x.npz", **{**some_texts(), "data2": np.array([LENGTH, wrong], np.float32)})
    said = refusal(cli("diff", bundles["cls"], bundles["cls"], "--inputs", tmp_path / "x.npz"))
    assert said == f"Error: {bundles['cls']}: {message(wrong)}"
    with pytest.raises(DataError, match="valid_length"):
        diff(bundles["cls"], bundles["cls"], inputs=tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([], "valid_length must be integers from 1 to "),
        ([3] * 41, "row 1 has 41 token ids and 41 token types, at most 40 fit"),
        (
            [3, len(VOCABULARY), 4],
            f"token ids must be integers from 0 to {len(VOCABULARY) - 1}: row 1, position 1 ",
        ),
        ([3, -1, 4], "token ids must be integers from 0 to "),
    ],
)
def test_inputs_are_checked_before_a_forward_in_prediction_and_training(
    bundles: dict[str, Path], ids: list[int], why: str
) -> None:
    bundle = Bundle.open(bundles["cls"])
    features = Features([Encoded([3, 7, 4], [0] * 3, False, 0), Encoded(ids, [0] * len(ids), False, 0)])
    predictor = MXNetPredictor.from_bundle(bundle)
    source = TokenSource(features, ClassTargets(np.zeros(2)), bundle.config, 0, bundle.config.max_length)
    for run in (lambda: predictor(features), lambda: source.batch(np.arange(2))):
        with pytest.raises(DataError, match=f"^{why}"):
            run()
    assert np.isfinite(predictor(Features(features.examples[:1]))).all()
