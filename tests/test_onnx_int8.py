"""Int8 bundles as ONNX files and by the engine onnxruntime: MXNet's function, in operators that onnxruntime fuses."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Tables
from onnx_files import run, token_inputs
from refusals import refusal
from test_without_mxnet import WITHOUT, run_without
from tools import needs

from bertsym import (
    Bundle,
    Classifier,
    Encoder,
    VerificationError,
    evaluate,
    export_onnx,
    open_model,
    using_engine,
)
from bertsym.array import Array
from bertsym.execution import model_values
from bertsym.execution.engines.fused_onnxruntime import FusedSession
from bertsym.execution.engines.onnxruntime import Session
from bertsym.onnx_export.libraries import open_session
from bertsym.processors import may_saturate
from bertsym.symbol.int8_arithmetic import Int8Layer, int8_layer

pytestmark = [
    needs("onnx", "onnxruntime"),
    pytest.mark.skipif(may_saturate(), reason="MXNet's int8 products saturate on this processor"),
]

Cli = Callable[..., Result]
TEXTS = ["the happy cat sat", "a sad dog", "the sad bird ran under the old house quickly"]
GRANULARITIES = ("channel-wise", "tensor-wise")
#: of outputs: a tie that is rounded differently changes a text's probabilities by some per cent
ATOL = 0.05


def operators(path: Path) -> collections.Counter[str]:
    """The operators of a file, as onnxruntime runs them."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return collections.Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_file_has_int8_weights_and_every_layer_is_fused(
    int8_classifier: Callable[..., Path], granularity: str, tmp_path: Path
) -> None:
    import onnx

    prefix, path = int8_classifier(granularity), tmp_path / "it.onnx"
    done = export_onnx(prefix, path)
    alone = [check for check in done.checks if check.kind]
    assert len(alone) == 2
    assert max(check.difference.relative for check in alone) <= 1e-5
    model = onnx.load(str(path))
    weights = [
        tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims
    ]
    assert len([tensor for tensor in weights if len(tensor.dims) == 2]) == 10
    found = operators(path)
    assert (found["MatMulIntegerToFloat"], found["DequantizeLinear"], found["QuantizeLinear"]) == (10, 0, 10)
    inputs = token_inputs(4, 13, 30)
    expected = model_values(open_model(prefix), inputs)
    np.testing.assert_allclose(run(path, inputs)[0], expected[0], atol=ATOL)


def test_a_file_with_the_signature_of_transformers_is_compared_too(
    int8_classifier: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    done = cli("onnx", int8_classifier(), tmp_path / "it.onnx", "--signature", "hf")
    assert done.code == 0, done.err
    assert "each int8 layer alone" in done.out
    assert "attention_mask" in done.out


#: what a faulty converter could do to a layer
FAULTS: dict[str, Callable[[Int8Layer], Int8Layer]] = {
    "scale of the data, 0.5 %": lambda layer: dataclasses.replace(
        layer, data=dataclasses.replace(layer.data, factor=layer.data.factor * np.float32(1.005))
    ),
    "scales of the weights, 0.1 %": lambda layer: dataclasses.replace(layer, scales=layer.scales * np.float32(1.001)),
    "no bias": lambda layer: dataclasses.replace(layer, bias=layer.bias * 0),
    "one weight": lambda layer: dataclasses.replace(layer, weight=_with_another_weight(layer.weight)),
}


def _with_another_weight(weight: Array) -> Array:
    found = weight.copy()
    found[0, 0] ^= 64
    return found


@pytest.mark.parametrize("place", [0, 2, 6])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_layer_is_found(
    int8_classifier: Callable[..., Path], fault: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(100))

    def wrong(*arguments: Any) -> Int8Layer:
        layer = int8_layer(*arguments)
        return FAULTS[fault](layer) if next(count) == place else layer

    monkeypatch.setattr("bertsym.onnx_export.int8_layers.int8_layer", wrong)
    with pytest.raises(VerificationError, match="the outputs differ from those of the original: "):
        export_onnx(int8_classifier(), tmp_path / "it.onnx")
    assert list(tmp_path.iterdir()) == []


def test_another_activation_is_found(
    int8_classifier: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertsym.onnx_export.int8_layers.gelu", lambda b, x: b.add("Relu", [x]))
    with pytest.raises(VerificationError, match="the outputs differ from those of the original: "):
        export_onnx(int8_classifier(), tmp_path / "it.onnx")


def test_weights_in_float16_and_comparison_without_mxnet_are_refused(
    int8_classifier: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    command = ("onnx", int8_classifier(), tmp_path / "it.onnx")
    done = cli(*command, "--dtype", "float16")
    assert (done.code, "is int8; for float16, convert the float32 bundle" in done.err) == (2, True)
    assert "not verified: without mxnet" in refusal(cli(*command, "--engine", "onnxruntime"), tmp_path / "it.onnx")


# The engine


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_fused_operators_compute_the_same_function(int8_classifier: Callable[..., Path], granularity: str) -> None:
    bundle = Bundle.open(int8_classifier(granularity))
    inputs = token_inputs(4, 13, 30)
    shapes = {name: array.shape for name, array in inputs.items()}
    fused = FusedSession(bundle.graph(), bundle.params(), bundle.config, shapes, "it")
    (found,), (expected,) = fused.run(inputs), Session(bundle.graph(), bundle.params(), shapes, "it").run(inputs)
    np.testing.assert_allclose(found, expected, atol=ATOL)
    assert len(fused._int8_layers) == 12  # query, key and value of the first layer apart


def test_predictions_metrics_and_vectors_are_as_by_mxnet(int8_classifier: Callable[..., Path], tables: Tables) -> None:
    prefix = int8_classifier()
    found: dict[str, Any] = {}
    for engine in ("mxnet", "onnxruntime"):
        with using_engine(engine):
            rows = [list(row.probabilities.values()) for row in Classifier(prefix).predict(TEXTS)]
            found[engine] = rows, Encoder(prefix).encode(TEXTS), evaluate(prefix, tables.dev).metrics["accuracy"]
    (rows, vectors, accuracy), (same_rows, same_vectors, same_accuracy) = found["mxnet"], found["onnxruntime"]
    np.testing.assert_allclose(same_rows, rows, atol=ATOL)
    np.testing.assert_allclose(same_vectors, vectors, atol=ATOL * np.abs(vectors).max())
    assert same_accuracy == accuracy


def test_auto_measures_both_engines(
    int8_classifier: Callable[..., Path], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = cli("predict", int8_classifier(), "--text", TEXTS[0], "--engine", "auto")
    assert done.code == 0
    assert " for single texts of up to 32 tokens (mxnet " in done.err
    assert ", onnxruntime " in done.err


def test_int8_bundles_predict_and_convert_without_mxnet(
    int8_classifier: Callable[..., Path], tables: Tables, tmp_path: Path
) -> None:
    prefix = str(int8_classifier())
    commands = [
        ["predict", prefix, "--text", TEXTS[0]],
        ["evaluate", prefix, str(tables.dev)],
        ["inspect", prefix, "--shapes"],
        ["onnx", prefix, f"{tmp_path}/it.onnx"],
        ["onnx", prefix, f"{tmp_path}/it.onnx", "--no-verify"],
    ]
    predicted, evaluated, inspected, refused, written = run_without(WITHOUT, commands)
    assert [result[0] for result in (predicted, evaluated, inspected, refused, written)] == [0, 0, 0, 1, 0]
    (row,) = Classifier(prefix).predict(TEXTS[:1])
    assert predicted[1].splitlines()[1].split("\t")[0] == row.label
    assert "accuracy 1.0000" in evaluated[1]
    assert "10 of 11 layers in int8" in inspected[1]
    assert "not verified: without mxnet" in refused[2]


# Processors whose int8 products saturate


@pytest.fixture
def without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnx_export.libraries", "onnx_export.onnx_exporter", "inference.engine_predictor"):
        monkeypatch.setattr(f"bertsym.{module}.may_saturate", lambda: True)


@pytest.mark.usefixtures("without_vnni")
def test_without_vnni_onnxruntime_is_exact_and_mxnet_neither_chosen_nor_compared_with(
    int8_classifier: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    prefix, path = int8_classifier(processors="vnni"), tmp_path / "it.onnx"
    done = cli("predict", prefix, "--text", TEXTS[0], "--engine", "auto")
    assert done.code == 0
    assert done.err.startswith("engine onnxruntime, since MXNet's int8 products saturate on this processor")
    assert "not verified: it was made for processors with VNNI" in refusal(cli("onnx", prefix, path), path)
    assert cli("onnx", prefix, path, "--no-verify").code == 0
    session = open_session(path)
    assert session.get_session_options().get_session_config_entry("session.x64quantprecision") == "1"
    inputs = {name: array.astype(np.int64) for name, array in token_inputs(4, 13, 30).items()}
    np.testing.assert_allclose(session.run(None, inputs)[0], run(path, inputs)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "avx2 avx512f", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "avx512f avx512_vnni", False),
        ("AMD64", "", True),
        ("aarch64", "", False),
    ],
)
def test_saturation_follows_from_the_processor(
    machine: str, flags: str, saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("bertsym.processors.processor_flags", lambda: set(flags.split()))
    assert may_saturate() is saturates
