"""Graphs that clip their own inputs: whatever a caller feeds, MXNet stays within its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import bound, computed, gluonnlp_checkpoint, texts
from conftest import CONFIG, VOCABULARY, Result, Tables, in_turn
from onnx_files import run as run_onnx
from tools import AS_A_COMMAND, needs

from bertsym import (
    Bundle,
    FinetuneOptions,
    QuantizeOptions,
    evaluate,
    export_onnx,
    finetune,
    inspect,
    lower,
    open_model,
    quantize,
)
from bertsym.acceleration.graphs import accelerate_graph
from bertsym.acceleration.inference_symbols import FastInference
from bertsym.analysis.input_clips import is_guarded
from bertsym.array import Array
from bertsym.bundle import SYMBOL, TRAIN_SYMBOL
from bertsym.mxnet_runtime import mx
from bertsym.passes.input_guard import add_input_guard, remove_input_guard
from bertsym.symbol.graph import SymbolGraph

Cli = Callable[..., Result]

OUTPUTS = ("cls", "pooled", "mean", "sequence")
FORMS = ("portable", "gluonnlp", "fast")
NAMES = ("data0", "data1", "data2")
NAN, INFINITY = float("nan"), float("inf")
LENGTH = 6
# By what MXNet 1.9.1 corrupted its memory, hung or answered wrong without a guard.
BAD_LENGTHS = (0, -1, -2, -100, LENGTH + 1, 2 * LENGTH, 100, 1e6, 1e30, -1e30, NAN, INFINITY, -INFINITY)
APIS = ("Module", "SymbolBlock", "C predict")
WORKER = Path(__file__).parents[1] / "scripts" / "maintenance" / "version_grid_worker.py"


@pytest.fixture(scope="module")
def guarded(exported: Callable[..., Path]) -> dict[str, Path]:
    """Prefixes of guarded bundles: each output in the portable form, [CLS] in each form."""
    what = [*((output, output, "portable") for output in OUTPUTS), *((form, "cls", form) for form in FORMS)]
    return {name: exported(output=output, form=form, guard=True) for name, output, form in what}


@pytest.fixture(scope="module")
def guarded_classifier(guarded: dict[str, Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = FinetuneOptions(epochs=2, batch_size=16, learning_rate=1e-2, max_length=24)
    out = tmp_path_factory.mktemp("classifier") / "guarded"
    return finetune(guarded["cls"], tables.train, tables.dev, out, options=options).bundle.prefix


def some_texts(rows: int = 2, length: int = LENGTH, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(len(VOCABULARY), size=(rows, length)).astype(np.float32)
    return {"data0": ids, "data1": ids % 2, "data2": np.full(rows, length, np.float32)}


def nearest(value: float, length: int) -> float:
    """The length that stands for a bad one; NaN counts as the shortest."""
    return min(value, length) if value >= 1 else 1


def binding(prefix: Path, like: dict[str, Array]) -> Callable[[dict[str, Array]], list[Array]]:
    """What mxnet alone computes from a checkpoint's files, of inputs with the shapes of some."""
    symbol, params, _ = mx.model.load_checkpoint(str(prefix), 0)
    arrays = {name: mx.nd.array(array) for name, array in like.items()}
    executor = symbol.bind(mx.cpu(), {**params, **arrays}, grad_req="null")

    def forward(inputs: dict[str, Array]) -> list[Array]:
        return [output.asnumpy() for output in executor.forward(is_train=False, **inputs)]

    return forward


def graph_of(prefix: Path, name: str = SYMBOL) -> SymbolGraph:
    return SymbolGraph.load(f"{prefix}-{name}")


# What MXNet computes, in a process of its own


def job_of_mxnet(
    api: str, prefix: Path, cases: list[dict[str, Array]], expected: list[Array], folder: Path
) -> dict[str, str]:
    """All cases through an API, with what is expected."""
    inputs = {f"{i:03}{name}": case[name] for i, case in enumerate(cases) for name in NAMES}
    np.savez(folder / "cases.npz", **inputs)
    np.savez(folder / "expected.npz", **{f"{i:03}": array for i, array in enumerate(expected)})
    paths = {"symbol": f"{prefix}-symbol.json", "params": f"{prefix}-0000.params"}
    data = {"cases": str(folder / "cases.npz"), "reference": str(folder / "expected.npz")}
    return {"api": api, **paths, **data}


def test_an_out_of_range_length_is_clipped(guarded: dict[str, Path], tmp_path: Path) -> None:
    """Dozens of forwards of each graph: what is corrupted may only show later."""
    jobs = []
    for name, api in in_turn((*OUTPUTS, "gluonnlp", "fast"), APIS):
        cases, expected = [], []
        for length in (LENGTH, LENGTH + 2):
            forward = binding(guarded[name], some_texts(length=length))
            for i in range(3 * len(BAD_LENGTHS)):
                inputs, bad = some_texts(length=length, seed=i), BAD_LENGTHS[i % len(BAD_LENGTHS)]
                cases.append({**inputs, "data2": np.array([bad, length], np.float32)})
                good = {**inputs, "data2": np.array([nearest(bad, length), length], np.float32)}
                expected.append(forward(good)[0])
        (tmp_path / name).mkdir()
        jobs.append(job_of_mxnet(api, guarded[name], cases, expected, tmp_path / name))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    # bertsym repairs numpy for mxnet; the worker, made for old versions as well, does not import it.
    start = AS_A_COMMAND + "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", start, str(WORKER), str(tmp_path / "jobs.json"), str(tmp_path / "answers")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    _, *answers = map(json.loads, (tmp_path / "answers").read_text().splitlines())
    assert [list(answer) for answer in answers] == [["outputs"]] * len(jobs), answers
    # Written so that NaN fails too.
    assert all(answer["outputs"] <= 1e-6 for answer in answers), answers


def test_without_a_guard_a_length_of_zero_is_divided_by(bundles: dict[str, Path]) -> None:
    inputs = {**some_texts(), "data2": np.array([0, 3], np.float32)}
    assert not np.isfinite(computed(bundles["mean"], inputs)[0]).all()


@pytest.mark.parametrize(("name", "limit"), [("data0", len(VOCABULARY) - 1), ("data1", 1)])
def test_out_of_range_ids_are_clipped(guarded: dict[str, Path], name: str, limit: int) -> None:
    for bad, good in ((-5, 0), (1e9, limit), (limit + 1, limit), (NAN, 0), (INFINITY, limit), (-INFINITY, 0)):
        wrong, right = some_texts(), some_texts()
        wrong[name][1, 2], right[name][1, 2] = bad, good
        for one, other in zip(computed(guarded["cls"], wrong), computed(guarded["cls"], right)):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("output", OUTPUTS)
def test_valid_inputs_give_the_same_outputs_with_a_guard(
    guarded: dict[str, Path], bundles: dict[str, Path], output: str
) -> None:
    inputs = texts(9, len(VOCABULARY))
    np.testing.assert_array_equal(computed(guarded[output], inputs)[0], computed(bundles[output], inputs)[0])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_callers_may_bind_integers(guarded: dict[str, Path], dtype: str) -> None:
    symbol, params, _ = mx.model.load_checkpoint(str(guarded["mean"]), 0)
    inputs = {**some_texts(), "data2": np.array([-3, 100], np.float32)}
    whole = {name: mx.nd.array(array, dtype=dtype) for name, array in inputs.items()}
    np.testing.assert_array_equal(bound(symbol, {**params, **whole}, {})[0], computed(guarded["mean"], inputs)[0])


# What is reported about it


def test_inspect_signature_and_manifest_show_it(guarded: dict[str, Path], bundles: dict[str, Path], cli: Cli) -> None:
    for prefix, expected in ((guarded["cls"], True), (bundles["cls"], False)):
        bundle = Bundle.open(prefix)
        assert bundle.signature.guarded == bundle.manifest["guarded"] == expected
        assert json.loads(cli("inspect", prefix, "--json").out)["bert"]["guarded"] == expected
        assert ("guarded: its inputs are clipped inside" in cli("inspect", prefix).out) == expected


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_input_of_the_classifier_is_found_downstream_of_the_guard(
    guarded: dict[str, Path], bundles: dict[str, Path], output: str
) -> None:
    found, expected = inspect(guarded[output]), inspect(bundles[output])
    assert found.sentences == expected.sentences
    assert [fact.meaning for fact in found.inputs] == [fact.meaning for fact in expected.inputs]
    assert str(found.encoder) == str(expected.encoder)


def test_all_of_the_guard_is_in_mxnet_1_4(guarded: dict[str, Path]) -> None:
    assert Bundle.open(guarded["portable"]).signature.minimum_mxnet == "1.4.0"


# What is made of it


def test_a_classifier_on_a_guarded_base_is_guarded_in_both_symbols(guarded_classifier: Path) -> None:
    assert Bundle.open(guarded_classifier).signature.guarded
    assert is_guarded(graph_of(guarded_classifier, TRAIN_SYMBOL), *NAMES)


def test_training_and_prediction_are_as_quick_as_without(guarded: dict[str, Path], bundles: dict[str, Path]) -> None:
    """The inputs were checked: what runs here is the same graph, to the byte."""
    shapes = Bundle.open(bundles["cls"]).params().shapes
    with_guard, without = (graph_of(prefix["cls"]) for prefix in (guarded, bundles))
    graphs = [accelerate_graph(graph, shapes, "training").to_json() for graph in (with_guard, without)]
    assert graphs[0] == graphs[1]
    symbols = [FastInference(mx.sym.load_json(graph.to_json()), shapes).symbols for graph in (with_guard, without)]
    for kind in ("padded", "unpadded", "few"):
        assert getattr(symbols[0], kind).tojson() == getattr(symbols[1], kind).tojson()


def test_fine_tuning_gives_the_same_parameters(
    guarded_classifier: Path, bundles: dict[str, Path], tables: Tables, tmp_path: Path
) -> None:
    options = FinetuneOptions(epochs=2, batch_size=16, learning_rate=1e-2, max_length=24)
    bundle = finetune(bundles["cls"], tables.train, tables.dev, tmp_path / "x", options=options).bundle
    params, expected = Bundle.open(guarded_classifier).params(), bundle.params()
    for name in expected:
        np.testing.assert_allclose(params[name], expected[name], atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_lower_keeps_a_guard(guarded_classifier: Path, tmp_path: Path, form: str) -> None:
    bundle = lower(guarded_classifier, tmp_path / "x", form=form).bundle
    assert bundle.signature.guarded
    assert is_guarded(graph_of(tmp_path / "x", TRAIN_SYMBOL), *NAMES)
    bad = {**some_texts(), "data2": np.array([-1, 99], np.float32)}
    good = {**some_texts(), "data2": np.array([1, LENGTH], np.float32)}
    np.testing.assert_array_equal(computed(tmp_path / "x", bad)[0], computed(tmp_path / "x", good)[0])


def test_lower_adds_a_guard_and_takes_it_out(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    assert cli("lower", bundles["mean"], tmp_path / "a", "--guard").code == 0
    assert cli("lower", tmp_path / "a", tmp_path / "b", "--no-guard").code == 0
    assert [Bundle.open(tmp_path / name).signature.guarded for name in ("a", "b")] == [True, False]
    assert graph_of(tmp_path / "b").to_json() == graph_of(bundles["mean"]).to_json()


@pytest.mark.parametrize("version", ["0.10.0", "0.6.0"])
def test_lower_guards_a_symbol_of_another_program(tmp_path: Path, version: str) -> None:
    original = gluonnlp_checkpoint(tmp_path / "old", "pooled", version)
    lower(original, tmp_path / "x", guard=True)
    encoder = open_model(tmp_path / "x").encoder
    assert encoder is not None
    assert encoder.guarded
    good = texts(8)
    bad = {**good, "data2": np.array([8 + 1, NAN, 4], np.float32)}
    assert bad["data2"][2] == good["data2"][2]
    np.testing.assert_array_equal(computed(tmp_path / "x", bad)[0], computed(tmp_path / "x", good)[0])


def test_quantize_keeps_a_guard(guarded_classifier: Path, tables: Tables, tmp_path: Path) -> None:
    bundle = quantize(guarded_classifier, tmp_path / "x", tables.dev, QuantizeOptions(max_drop=1)).bundle
    assert bundle.signature.guarded
    assert evaluate(tmp_path / "x", tables.dev).rows == 21
    inputs = {**some_texts(), "data2": np.array([-1, 99], np.float32)}
    assert np.isfinite(computed(tmp_path / "x", inputs)[0]).all()


@needs("onnx", "onnxruntime")
def test_the_onnx_file_clips_too(guarded: dict[str, Path], tmp_path: Path) -> None:
    export_onnx(guarded["mean"], tmp_path / "x.onnx")
    good, bad = some_texts(), some_texts()
    bad["data2"][:], bad["data0"][0, 0], bad["data1"][0, 0] = (-4, 100), 1e6, -1
    good["data2"][:], good["data0"][0, 0], good["data1"][0, 0] = (1, LENGTH), len(VOCABULARY) - 1, 0
    np.testing.assert_array_equal(run_onnx(tmp_path / "x.onnx", bad)[0], run_onnx(tmp_path / "x.onnx", good)[0])


# The edit of the graph


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_added_guard_can_be_removed(bundles: dict[str, Path], output: str) -> None:
    graph = graph_of(bundles[output])
    before = graph.to_json()
    add_input_guard(graph, *NAMES)
    once = graph.to_json()
    add_input_guard(graph, *NAMES)
    assert graph.to_json() == once != before
    assert is_guarded(graph, *NAMES)
    assert remove_input_guard(graph) == 3
    graph.toposort()
    assert graph.to_json() == before


def test_a_clip_to_other_bounds_does_not_count_as_a_guard(bundles: dict[str, Path]) -> None:
    graph = graph_of(bundles["cls"])
    add_input_guard(graph, *NAMES)
    clip = next(node for node in graph.find(op="clip") if node.inputs[0].node.name == "data0")
    graph.set_attribute(clip, "a_max", str(CONFIG["vocab_size"] - 2))
    assert not is_guarded(graph, *NAMES)
    remove_input_guard(graph)
    assert [node.name for node in graph.find(op="clip")] == [clip.name]


def test_a_length_that_is_read_next_to_the_guard_is_found(bundles: dict[str, Path]) -> None:
    graph = graph_of(bundles["mean"])
    add_input_guard(graph, *NAMES)
    count: Any = graph.node("mean_count_float")
    graph.set_inputs(count, [graph.node("data2")])
    assert not is_guarded(graph, *NAMES)
