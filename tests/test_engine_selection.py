"""`--engine auto`: the faster engine for each kind of batch, by a measurement that is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from tools import needs

from bertsym import Classifier, Encoder, ModelError, evaluate, using_engine
from bertsym.array import Array
from bertsym.inference.engine_selection import SelectingPredictor
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.inference.row_predictor import RowPredictor
from bertsym.inference.task_bundle import TaskBundle
from bertsym.text.features import Features

pytestmark = needs("onnx", "onnxruntime")

Cli = Callable[..., Result]
TEXTS = ["fine film", "dull plot and dull film", "a film"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bertsym" / "engines.json"


def prefer(cache: Path, engine: str) -> None:
    """Let the kept measurements say that an engine is the faster one."""
    measured = {"mxnet": 1.0, "onnxruntime": 1.0, engine: 0.5}
    kept = {key: dict.fromkeys(kinds, measured) for key, kinds in json.loads(cache.read_text()).items()}
    cache.write_text(json.dumps(kept))


def probabilities(prefix: Path, engine: str, report: Callable[[str], object] = str) -> Array:
    with using_engine(engine, report):
        classifier = Classifier(prefix)
        found = [*classifier.predict(TEXTS), *classifier.predict(TEXTS[:1])]
    return np.array([list(prediction.probabilities.values()) for prediction in found])


def test_the_measured_choice_is_reported_once_kept_and_reproduced(classifier: Path, cache: Path) -> None:
    reports: list[str] = []
    expected = probabilities(classifier, "mxnet")
    assert np.abs(probabilities(classifier, "auto", reports.append) - expected).max() < 1e-5
    assert [report.partition(" for ")[2].partition(" (")[0] for report in reports] == [
        "several texts",
        "single texts of up to 32 tokens",
    ]
    for engine in ("onnxruntime", "mxnet"):
        prefer(cache, engine)
        reports.clear()
        found = probabilities(classifier, "auto", reports.append)
        assert np.array_equal(found, probabilities(classifier, engine))
        assert reports[0] == f"engine {engine} for several texts " + (
            "(mxnet 500.0 ms, onnxruntime 1000.0 ms)"
            if engine == "mxnet"
            else "(mxnet 1000.0 ms, onnxruntime 500.0 ms)"
        )


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "{"])
def test_a_damaged_cache_is_measured_again(classifier: Path, cache: Path, content: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    reports: list[str] = []
    probabilities(classifier, "auto", reports.append)
    assert len(reports) == 2
    assert len(json.loads(cache.read_text())) in (1, 2)


def test_invalid_measurements_are_made_again(classifier: Path, cache: Path) -> None:
    probabilities(classifier, "auto")
    prefer(cache, "mxnet")
    cache.write_text(cache.read_text().replace("0.5", '"soon"'))
    reports: list[str] = []
    probabilities(classifier, "auto", reports.append)
    assert "1000.0 ms" not in reports[0]


def test_an_engine_that_cannot_run_the_graph_is_left_out(classifier: Path, cache: Path) -> None:
    reports: list[str] = []
    opened = TaskBundle.open(classifier, "predict")
    bundle = opened.bundle

    def fail() -> RowPredictor:
        raise ModelError("it: no conversion of CTCLoss")

    predictors: dict[str, Callable[[], RowPredictor]] = {
        "mxnet": lambda: MXNetPredictor.from_bundle(bundle),
        "onnxruntime": fail,
    }
    selecting = SelectingPredictor(predictors, "it", bundle.signature.max_length, reports.append)
    features = Features(opened.tokenizer.encode(TEXTS))
    assert np.array_equal(selecting(features), MXNetPredictor.from_bundle(bundle)(features))
    assert reports[0] == "engine onnxruntime is not used: it: no conversion of CTCLoss"
    assert reports[1].startswith("engine mxnet for several texts (mxnet ")


def test_commands_print_the_choice_and_only_predict_and_embed_choose(
    cli: Cli, classifier: Path, cache: Path, tmp_path: Path
) -> None:
    printed = cli("predict", classifier, "--text", TEXTS[0], "--engine", "auto")
    assert printed.code == 0
    assert printed.err.startswith("engine ")
    assert " for single texts of up to 32 tokens (mxnet " in printed.err
    assert cli("evaluate", classifier, "x.tsv", "--engine", "auto").code == 2


def test_encoders_choose_too_and_evaluation_does_not(classifier: Path, cache: Path, tmp_path: Path) -> None:
    reports: list[str] = []
    expected = Encoder(classifier, "cls").encode(TEXTS)
    table = tmp_path / "dev.tsv"
    label = Classifier(classifier).class_names[0]
    table.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text in TEXTS))
    with using_engine("auto", reports.append):
        encoder = Encoder(classifier, "cls")
        assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-4
        assert len(reports) == 1
        evaluate(classifier, table)
    assert len(reports) == 1
    assert isinstance(encoder._predictor, SelectingPredictor)
