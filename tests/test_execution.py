"""What mxnet is asked about a graph it answers for every tensor, however many are asked for at once."""

from __future__ import annotations

import operator
import os
import re
from pathlib import Path

import numpy as np
import pytest
from symbol_values import FILES, compute, label, random_values, values_for

from bertsym import ModelError, ParamsFile
from bertsym.array import Array
from bertsym.execution.values import tensor_values
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output


@pytest.mark.parametrize("act_type", ["relu", "tanh", "sigmoid"])
def test_a_layer_and_its_activation_have_their_own_elements(act_type: str) -> None:
    """Fused, mxnet gives the layer for both."""
    layer = mx.sym.FullyConnected(mx.sym.var("x"), num_hidden=4, name="layer")
    text = mx.sym.Activation(layer, act_type=act_type, name="act").tojson()
    rng = np.random.default_rng(0)
    values: dict[str, Array] = {
        name: rng.normal(size=array.shape).astype(np.float32)
        for name, array in random_values(text, {"x": (2, 4)}).items()
    }
    graph = SymbolGraph.parse(text)
    wanted = [graph.output("layer"), graph.output("act")]
    before, after = tensor_values(graph, values, {"x": values["x"]}, wanted, where="it")
    assert (before < 0).any()
    np.testing.assert_allclose(after, compute(text, values)[0], atol=1e-6)
    assert np.abs(after - before).max() > 0.01


@pytest.mark.parametrize("name", ["gluonnlp-0.10.0/pooled-symbol", "mxnet-1.9.1/ssd", "mxnet-1.9.1/lstm"])
def test_tensors_computed_together_equal_tensors_computed_one_by_one(name: str) -> None:
    path = next(path for path in FILES if label(path) == name)
    graph, values = SymbolGraph.load(path), values_for(path)
    inputs = {name: array for name, array in values.items() if name.startswith("data") or name == "label"}
    every = [Output(node) for node in graph.nodes if not node.is_variable]
    together = tensor_values(graph, values, inputs, every, where="it")
    for output, value in list(zip(every, together))[::7]:
        alone = tensor_values(graph, values, inputs, [output], where="it")[0]
        np.testing.assert_allclose(value, alone, rtol=1e-5, atol=1e-5, err_msg=str(output))


def value_of(op: str, attrs: dict[str, object], shapes: list[tuple[int, ...]]) -> Array:
    """Of one operator that reads ones of these shapes."""
    variables = [mx.sym.var(f"x{i}") for i in range(len(shapes))]
    graph = SymbolGraph.parse(operator.attrgetter(op)(mx.sym)(*variables, **attrs, name="node").tojson())
    inputs = {f"x{i}": np.ones(shape, np.float32) for i, shape in enumerate(shapes)}
    return tensor_values(graph, {}, inputs, where="it")[0]


@pytest.mark.parametrize(
    ("op", "attrs", "shapes", "why"),
    [
        ("reshape", {"shape": (-1, 5)}, [(4, 3)], "can't reshape (4, 3) into (2, 5)"),
        ("reshape", {"shape": (0, 0, 4, -1)}, [(4, 3, 1)], "can't reshape (4, 3, 1)"),
        ("where", {}, [(2, 3), (4, 3), (4, 3)], "can't choose among (4, 3) by (2, 3)"),
        ("unravel_index", {"shape": (3, 4)}, [(2, 3)], "can't read numbers of the shape (2, 3)"),
        ("contrib.interleaved_matmul_selfatt_qk", {"heads": 7}, [(5, 2, 24)], "can't have 7 heads"),
        ("contrib.interleaved_matmul_selfatt_valatt", {"heads": 2}, [(5, 2, 24), (1, 5, 5)], "can't have 2 heads"),
        ("contrib.interleaved_matmul_encdec_qk", {"heads": 3}, [(5, 2, 8), (6, 2, 16)], "can't have 3 heads"),
    ],
)
def test_shapes_that_make_mxnet_access_out_of_bounds_are_refused(
    op: str, attrs: dict[str, object], shapes: list[tuple[int, ...]], why: str
) -> None:
    """It runs each of them."""
    with pytest.raises(ModelError, match=re.escape(f"it: node {why}")):
        value_of(op, attrs, shapes)


@pytest.mark.parametrize(
    ("op", "attrs", "shapes"),
    [
        ("where", {}, [(4,), (4, 3), (4, 3)]),
        ("where", {}, [(4, 3), (4, 3), (4, 3)]),
        ("unravel_index", {"shape": (3, 4)}, [(6,)]),
        ("contrib.interleaved_matmul_selfatt_valatt", {"heads": 2}, [(5, 2, 24), (4, 5, 5)]),
        ("contrib.interleaved_matmul_encdec_qk", {"heads": 2}, [(5, 2, 8), (6, 2, 16)]),
        ("contrib.interleaved_matmul_encdec_valatt", {"heads": 2}, [(6, 2, 16), (4, 5, 6)]),
    ],
)
def test_shapes_within_bounds_are_not_refused(op: str, attrs: dict[str, object], shapes: list[tuple[int, ...]]) -> None:
    assert np.isfinite(value_of(op, attrs, shapes)).all()


def test_the_environment_is_unchanged_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = SymbolGraph.parse(mx.sym.exp(mx.sym.var("x"), name="e").tojson())
    capfd.readouterr()
    for setting in (None, "MKLDNN"):
        monkeypatch.delenv("MXNET_SUBGRAPH_BACKEND", raising=False)
        if setting:
            monkeypatch.setenv("MXNET_SUBGRAPH_BACKEND", setting)
        tensor_values(graph, {}, {"x": np.ones((2, 2), np.float32)}, where="it")
        assert os.environ.get("MXNET_SUBGRAPH_BACKEND") == setting
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        (
            "shape",
            "(5, 7)",
            "Error in operator fc-finetune: Shape inconsistent, ",
        ),
        ("foo", "1", "Cannot find argument 'foo', in operator Reshape("),
    ],
)
def test_an_error_of_mxnet_is_one_line_without_its_stack_trace(
    classifier: Path, attribute: str, value: str, message: str
) -> None:
    graph = SymbolGraph.load(f"{classifier}-symbol.json")
    graph.set_attribute(graph.node("cls"), attribute, value)
    params = ParamsFile(f"{classifier}-0000.params")
    inputs = {"data0": np.ones((2, 5)), "data1": np.zeros((2, 5)), "data2": np.full(2, 5)}
    with pytest.raises(ModelError) as caught:
        tensor_values(graph, params, inputs, where="model")
    assert re.fullmatch(rf"\S.*: MXNet can't run it: {re.escape(message)}.*", str(caught.value))
