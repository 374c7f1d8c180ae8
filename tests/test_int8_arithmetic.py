"""MXNet's int8 operators in ONNX: how data, weights and biases are rounded, each rule against MXNet's own outputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tools import needs

from bertsym import ModelError, SymbolGraph
from bertsym.array import Array
from bertsym.execution.engines.mxnet import compute
from bertsym.execution.engines.onnxruntime import Session
from bertsym.processors import may_saturate

pytestmark = [
    needs("onnx", "onnxruntime"),
    pytest.mark.skipif(may_saturate(), reason="MXNet's int8 products saturate on this processor"),
]

INPUTS, UNITS = 48, 32
#: of the data, by the type that MXNet rounds it to; integers stand for multiples of 1/64 and of 1/128
RANGES = {"int8": (-1.5, 127.5 / 64), "uint8": (0.0, 255.5 / 128)}
ACTIVATIONS = {"gelu": "LeakyReLU", "relu": "Activation", "tanh": "Activation"}


def dense(
    name: str, data: int, first: int, activation: str | None, ends: tuple[float, float] | None, per_channel: bool
) -> list[dict[str, Any]]:
    """A fused int8 layer of node `data`, whose own variables have the numbers from `first` on; `ends`: of its range."""
    variables = [f"{name}_{part}" for part in ("weight", "bias")]
    ranges = [] if per_channel else [f"{each}_{end}" for each in variables for end in ("min", "max")]
    nodes: list[dict[str, Any]] = [{"op": "null", "name": each, "inputs": []} for each in (*variables, *ranges)]
    inside: list[dict[str, Any]] = [{"op": "null", "name": f"{name}{i}", "inputs": []} for i in range(3)]
    attrs = {"flatten": "False", "num_hidden": str(UNITS)}
    inside.append({"op": "FullyConnected", "name": name, "attrs": attrs, "inputs": [[i, 0, 0] for i in range(3)]})
    attrs = {"quantized": "True"}
    if activation is not None:
        operator = {"op": ACTIVATIONS[activation], "name": f"{name}_{activation}", "attrs": {"act_type": activation}}
        inside.append({**operator, "inputs": [[3, 0, 0]]})
        attrs["with_eltwise"] = "True"
    if per_channel:
        attrs["channel_wise_quantize"] = "True"
    if ends is None:
        attrs["enable_float_output"] = "True"
    else:
        attrs.update(min_calib_range=str(ends[0]), max_calib_range=str(ends[1]))
    numbers = [first + i for i in range(len(nodes))]
    inputs = [[data, 0, 0], *([i, 0, 0] for i in numbers[:2]), [data, 1, 0], [data, 2, 0]]
    inputs += [[i, 0, 0] for i in numbers[2:]]
    pointers = list(range(len(inside) + 1))
    subgraph = {"nodes": inside, "arg_nodes": [0, 1, 2], "node_row_ptr": pointers, "heads": [[len(inside) - 1, 0, 0]]}
    layer = {"op": "_sg_mkldnn_fully_connected", "name": name, "attrs": attrs, "inputs": inputs}
    return [*nodes, {**layer, "subgraphs": [subgraph]}]


def two_layers(
    dtype: str, activation: str | None, ends: tuple[float, float], *, per_channel: bool, **changed: str
) -> SymbolGraph:
    """A layer whose outputs are rounded, and one that reads them and gives float32; `changed`: of the rounding."""
    least, greatest = RANGES[dtype]
    attrs = {"out_type": "auto", "min_calib_range": str(least), "max_calib_range": str(greatest), **changed}
    attrs = {key: value for key, value in attrs.items() if value}
    nodes: list[dict[str, Any]] = [
        {"op": "null", "name": "x", "inputs": []},
        {"op": "_contrib_quantize_v2", "name": "rounded", "attrs": attrs, "inputs": [[0, 0, 0]]},
    ]
    nodes += dense("one", 1, len(nodes), activation, ends, per_channel)
    first = len(nodes) - 1
    nodes += dense("two", first, len(nodes), None, None, per_channel)
    pointers = [0]
    for i in range(len(nodes)):
        pointers.append(pointers[-1] + (3 if i in (1, first) else 1))
    variables = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    heads = [[len(nodes) - 1, 0, 0]]
    return SymbolGraph.parse(
        json.dumps(
            {"nodes": nodes, "arg_nodes": variables, "node_row_ptr": pointers, "heads": heads}
            | {"attrs": {"mxnet_version": ["int", 10901]}}
        )
    )


def parameters(*, per_channel: bool) -> dict[str, Array]:
    """Weights of rows of different sizes; among them of zeros, and so small that a bias limits their factor."""
    rng = np.random.default_rng(0)
    found = {}
    for name, inputs in (("one", INPUTS), ("two", UNITS)):
        weight = (rng.standard_normal((UNITS, inputs)) * rng.random((UNITS, 1))).astype(np.float32)
        bias = rng.standard_normal(UNITS).astype(np.float32)
        weight[0], weight[1], bias[1] = 0, 0, 0
        for row, size, value in ((2, 1e-8, 5), (3, 1e-7, -7), (4, 1, 0)):
            weight[row] *= np.float32(size)
            bias[row] = value
        arrays = {f"{name}_weight": weight, f"{name}_bias": bias}
        for key, array in arrays.items():
            if per_channel:
                found[key] = array
            else:
                found[key] = np.rint(array * 127 / np.abs(array).max()).astype(np.int8)
                found[f"{key}_min"], found[f"{key}_max"] = (np.array([end()]) for end in (array.min, array.max))
    return found


def data() -> Array:
    """Elements within the range and beyond it, on both sides, and exact halves of both integer types."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 7, INPUTS)).astype(np.float32)
    x[0, 0, :24], x[0, 1, :24] = (np.arange(24) - 11.5) / 64, (np.arange(24) + 0.5) / 128
    return x


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize(
    ("activation", "ends"), [(None, (-3.0, 4.0)), ("gelu", (-0.17, 6.0)), ("relu", (0.0, 6.0)), ("relu", (-1.0, 6.0))]
)
def test_int8_layers_compute_what_mxnet_computes(
    activation: str | None, ends: tuple[float, float], dtype: str, per_channel: bool
) -> None:
    graph, params = two_layers(dtype, activation, ends, per_channel=per_channel), parameters(per_channel=per_channel)
    inputs = {"x": data()}
    (expected,) = compute(graph.to_json(), "it", False, params, inputs)
    (found,) = Session(graph, params, {"x": inputs["x"].shape}, "it").run(inputs)
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("changed", "activation", "message"),
    [
        ({"max_calib_range": ""}, None, "node 'rounded' .* was not calibrated: its range depends on the data"),
        ({"out_type": "int8"}, None, "node 'rounded' .* has another out_type than auto"),
        ({"max_calib_range": "nan"}, None, "node 'rounded': its range ends in nan, not in a finite number above 0"),
        ({}, "tanh", "node 'one' .* has the activation 'tanh', which does not convert in int8"),
    ],
)
def test_other_roundings_and_activations_are_refused(
    changed: dict[str, str], activation: str | None, message: str
) -> None:
    graph = two_layers("int8", activation, (-3.0, 4.0), per_channel=True, **changed)
    with pytest.raises(ModelError, match=message):
        Session(graph, parameters(per_channel=True), {"x": (1, 2, INPUTS)}, "it")


def test_int8_data_is_read_by_int8_layers_only() -> None:
    graph = two_layers("int8", "gelu", (-3.0, 4.0), per_channel=True)
    graph.set_outputs([graph.add("abs", "other", [graph.node("rounded")])])
    with pytest.raises(ModelError, match=r"node 'other' \(abs\) reads int8 data without being an int8 layer"):
        Session(graph, parameters(per_channel=True), {"x": (1, 2, INPUTS)}, "it")
    graph.set_outputs([graph.node("one")])
    with pytest.raises(ModelError, match="the output one is int8 data"):
        Session(graph, parameters(per_channel=True), {"x": (1, 2, INPUTS)}, "it")
