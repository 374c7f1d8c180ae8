"""Int8 products on processors without VNNI: which weights saturate, and what is done about it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, Tables
from signed_bundle import SignedBundle
from test_int8_arithmetic import RANGES, UNITS, parameters, two_layers

from bertsym import Bundle, Classifier, ModelError, QuantizeOptions, UsageError, inspect
from bertsym.array import Array
from bertsym.bundle import CARD
from bertsym.execution.engines.mxnet import compute
from bertsym.processors import may_saturate
from bertsym.quantization.weight_pairs import limit_pairs
from bertsym.symbol.int8_arithmetic import int8_layer, saturating_layers

Cli = Callable[..., Result]
needs_vnni = pytest.mark.skipif(may_saturate(), reason="MXNet's int8 products saturate on this processor")
GRANULARITIES = ("channel-wise", "tensor-wise")

_CHILD = """
import sys
import numpy as np
from bertsym.execution.engines.mxnet import compute
found = np.load(sys.argv[1])
cases = sorted({name.partition("/")[0] for name in found.files})
outputs = {}
for case in cases:
    arrays = {name.partition("/")[2]: found[name] for name in found.files if name.startswith(case + "/")}
    graph, x = str(arrays.pop("graph")), arrays.pop("x")
    (outputs[case],) = compute(graph, case, False, arrays, {"x": x})
np.savez(sys.argv[2], **outputs)
"""


def extremes(dtype: str, inputs: int) -> Array:
    """Data that are rounded to the ends of the integer types, one row to the greatest alone."""
    x = np.random.default_rng(2).choice(RANGES[dtype], (9, inputs)).astype(np.float32)
    x[0] = RANGES[dtype][1]
    return x[np.newaxis]


def layers(dtype: str, granularity: str, limited: bool) -> dict[str, Array]:
    """Two int8 layers with their parameters and data, as arrays by name."""
    per_channel = granularity == "channel-wise"
    params = parameters(per_channel=per_channel)
    if limited:
        params = {name: limit_pairs(array) if name.endswith("weight") else array for name, array in params.items()}
    graph = two_layers(dtype, None, (-90.0, 90.0), per_channel=per_channel)
    assert bool(saturating_layers(graph, params)) is not limited
    return {"graph": np.array(graph.to_json()), "x": extremes(dtype, params["one_weight"].shape[1]), **params}


@needs_vnni
def test_without_vnni_only_limited_weights_give_the_same_outputs(tmp_path: Path) -> None:
    """In a child process oneDNN is limited to AVX2, and multiplies as processors without VNNI do."""
    cases = {
        f"{dtype} {granularity} {limited}": layers(dtype, granularity, limited)
        for dtype in RANGES
        for granularity in GRANULARITIES
        for limited in (True, False)
    }
    arrays = {f"{case}/{name}": array for case, found in cases.items() for name, array in found.items()}
    np.savez(tmp_path / "in.npz", **arrays)
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run(command, check=True, env={**os.environ, "DNNL_MAX_CPU_ISA": "AVX2"})
    with np.load(tmp_path / "out.npz") as without_vnni:
        for case, found in cases.items():
            params = {name: array for name, array in found.items() if name not in ("graph", "x")}
            (expected,) = compute(str(found["graph"]), case, False, params, {"x": found["x"]})
            assert np.array_equal(without_vnni[case], expected) is case.endswith("True"), case


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_limited_weights_keep_their_scales_and_change_in_large_pairs_only(granularity: str) -> None:
    per_channel = granularity == "channel-wise"
    graph, params = two_layers("int8", None, (-3.0, 4.0), per_channel=per_channel), parameters(per_channel=per_channel)
    changed = {name: limit_pairs(array) if name.endswith("weight") else array for name, array in params.items()}
    for name in ("one", "two"):
        one, other = (int8_layer(graph.node(name), each) for each in (params, changed))
        assert np.array_equal(one.scales, other.scales)
        before, after = (layer.weight.astype(int).reshape(UNITS, -1, 2) for layer in (one, other))
        saturates = (before[..., 0] * before[..., 1] > 0) & (np.abs(before).sum(axis=-1) > 128)
        assert saturates.any()
        assert np.array_equal(before[~saturates], after[~saturates])
        assert set(np.abs(after[saturates]).sum(axis=-1)) <= {127, 128}
        assert (np.abs(after) <= np.abs(before)).all()
        assert (before * after >= 0).all()


def test_weights_of_odd_width_and_rows_of_zeros_are_limited() -> None:
    weight = np.array([[9, 9, 9], [0, 0, 0], [-1, -1, 0.5], [-1, 1, 0]], np.float32)
    most = 127 / 127.5
    expected = np.array([[9, 0, 9 * most], [0, 0, 0], [-1, 0, 64 / 127.5], [-1, most, 0]])
    np.testing.assert_allclose(limit_pairs(weight), expected, rtol=1e-6)


# The bundle


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_by_default_a_bundle_is_for_every_processor(int8_classifier: Callable[..., Path], granularity: str) -> None:
    bundle = Bundle.open(int8_classifier(granularity))
    assert saturating_layers(bundle.graph(), bundle.params()) == []
    assert bundle.signature.int8_for == bundle.manifest["quantization"]["for"] == "avx2"
    assert "MXNet computes the same integers on every processor." in bundle.text(CARD)


@needs_vnni
def test_auto_makes_a_bundle_for_this_processor(int8_classifier: Callable[..., Path], cli: Cli) -> None:
    prefix = int8_classifier(processors="auto")
    bundle = Bundle.open(prefix)
    assert len(saturating_layers(bundle.graph(), bundle.params())) > 5
    assert "MXNet's saturate on processors without VNNI: use onnxruntime there." in bundle.text(CARD)
    assert "10 of 11 layers in int8 for processors with VNNI" in cli("inspect", prefix).out
    assert inspect(prefix).to_json()["int8_for"] == "vnni"
    assert "10 of 11 layers in int8 for every processor" in cli("inspect", int8_classifier()).out


@pytest.mark.parametrize(
    ("value", "why"),
    [("vnni", "int8_for is 'vnni', but the precision is float32"), ("arm", '"arm" is not one of "avx2", "vnni"')],
)
def test_processors_that_the_signature_can_t_have_are_refused(
    value: str, why: str, classifier: Path, tmp_path: Path
) -> None:
    signed = SignedBundle(classifier)
    signed.signature["int8_for"] = value
    signed.write(tmp_path / "x")
    with pytest.raises(ModelError, match=why):
        Bundle.open(tmp_path / "x")


# Processors without VNNI


@needs_vnni
def test_mxnet_computes_bundles_for_every_processor_and_refuses_the_others(
    int8_classifier: Callable[..., Path], tables: Tables, classifier: Path, tmp_path: Path
) -> None:
    """Commands in processes whose oneDNN is limited to AVX2."""

    def run(*arguments: object) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "bertsym", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "DNNL_MAX_CPU_ISA": "AVX2"}, check=False
        )
        return done.returncode, done.stdout, done.stderr

    text = "the happy cat sat"
    code, _, error = run("evaluate", int8_classifier(processors="auto"), tables.dev)
    assert code == 1
    assert "made for processors with VNNI, which this one does not have" in error
    assert "take --engine onnxruntime, or make it again by bertsym quantize --for avx2" in error
    code, out, _ = run("predict", int8_classifier(), "--text", text)
    assert code == 0
    (expected,) = Classifier(int8_classifier()).predict([text])
    found = [float(each) for each in out.splitlines()[1].split("\t")[1:]]
    np.testing.assert_allclose(found, list(expected.probabilities.values()), atol=1e-5)
    code, _, error = run("quantize", classifier, tmp_path / "q", "--calibrate", tables.dev, "--for", "vnni")
    assert code == 2
    assert "--for vnni: this processor has no VNNI" in error
    assert not list(tmp_path.iterdir())


def test_processors_that_are_not_known_are_refused() -> None:
    with pytest.raises(UsageError, match="processors 'arm' is not one of auto, avx2, vnni"):
        QuantizeOptions(processors="arm")
