"""What a symbol and its parameters must be before MXNet sees them; none of it needs mxnet but the table itself."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from symbol_values import FILES, label
from third_party import random_weight, some_graph

from bertsym import ModelError, SymbolGraph, UsageError, allowing
from bertsym.encoders.catalogue import OPERATORS
from bertsym.symbol import validation
from bertsym.symbol.params import NewParameters
from bertsym.symbol.validation import check_params, check_symbol, output_count

ROOT = Path(__file__).parents[1]
TABLE = json.loads((ROOT / "bertsym" / "symbol" / "allowed_operators.json").read_text())


def graph_of(op: str, attrs: Mapping[str, str] | None = None, inputs: int = 1) -> SymbolGraph:
    """One operator that reads variables."""
    nodes = [{"op": "null", "name": f"x{i}", "inputs": []} for i in range(inputs)]
    node = {"op": op, "name": "node", "attrs": attrs or {}, "inputs": [[i, 0, 0] for i in range(inputs)]}
    document = {"nodes": [*nodes, node], "arg_nodes": list(range(inputs)), "heads": [[inputs, 0, 0]]}
    return SymbolGraph.parse(json.dumps(document))


def why(graph: SymbolGraph) -> str:
    """The one line of a refusal."""
    with pytest.raises(ModelError) as caught:
        check_symbol(graph, "it")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Operators


def test_the_table_equals_that_of_the_installed_mxnet(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location(
        "allowed_operators", ROOT / "scripts" / "maintenance" / "allowed_operators.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main()
    assert json.loads(capsys.readouterr().out) == TABLE


def test_every_form_and_head_that_is_written_is_allowed() -> None:
    assert set(TABLE) >= OPERATORS - {"null"}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_symbols_of_mxnet_and_gluonnlp_are_allowed(path: Path) -> None:
    graph = SymbolGraph.load(path)
    with allowing("_foreach"):
        check_symbol(graph, "it")
    for node in graph.nodes:
        if not node.is_variable and node.op != "_foreach":
            assert 1 <= output_count(node) <= node.num_outputs


@pytest.mark.parametrize("op", ["_Native", "_NDArray", "Custom", "_CustomFunction", "_CachedOp", "_cvimread"])
def test_operators_that_run_code_or_read_arbitrary_memory_are_forbidden(op: str) -> None:
    assert why(graph_of(op, {"info": "0x41414141"})) == f"it: node 'node' has the operator {op!r}, which is not allowed"
    with pytest.raises(UsageError, match="can't be allowed"), allowing(op):
        pass


def test_an_operator_is_allowed_by_its_name_for_a_while() -> None:
    graph = graph_of("_sample_normal", inputs=2)
    assert why(graph).endswith("is not allowed; if you trust the file, --allow-op _sample_normal accepts it")
    with allowing("_sample_normal"), allowing("_foreach"):
        check_symbol(graph, "it")
    why(graph)
    with pytest.raises(UsageError, match=r"MXNet 1.9.1 does not have the operator 'nothing'"), allowing("nothing"):
        pass


# Inputs and outputs


@pytest.mark.parametrize(
    ("op", "attrs", "inputs"),
    [
        ("FullyConnected", {"num_hidden": "4"}, 1),
        ("FullyConnected", {"num_hidden": "4"}, 4),
        ("LayerNorm", {}, 2),
        ("batch_dot", {}, 1),
        ("tanh", {}, 0),
        ("Concat", {"num_args": "3"}, 2),
        ("stack", {"num_args": "-1"}, 2),
    ],
)
def test_a_wrong_number_of_inputs_is_refused(op: str, attrs: dict[str, str], inputs: int) -> None:
    assert why(graph_of(op, attrs, inputs)) == f"it: node 'node': a {op} with {inputs} inputs"


@pytest.mark.parametrize(
    ("op", "attrs", "count"),
    [
        ("SliceChannel", {"num_outputs": "4"}, 4),
        ("_split_v2", {"indices": "(0, 2, 5)", "sections": "0"}, 4),
        ("_split_v2", {"sections": "3"}, 3),
        ("topk", {"ret_typ": "both"}, 2),
        ("topk", {}, 1),
        ("Dropout", {}, 2),
        ("tanh", {}, 1),
    ],
)
def test_an_output_that_does_not_exist_is_refused(op: str, attrs: dict[str, str], count: int) -> None:
    graph = graph_of(op, attrs)
    node = graph.node("node")
    node.num_outputs = 9  # as a file may say
    graph.set_outputs([graph.output(f"node:{count - 1}")])
    check_symbol(graph, "it")
    graph.set_outputs([graph.output(f"node:{count}")])
    assert why(graph) == f"it: heads: reads node:{count}, an output that {op} does not have"


@pytest.mark.parametrize(
    ("op", "attrs", "why_not"),
    [
        ("transpose", {"axes": "(0, 2, 0)"}, "axes is '(0, 2, 0)', which names one twice"),
        ("_split_v2", {"indices": "()"}, "a _split_v2 without sections and indices"),
        ("SequenceMask", {"use_sequence_length": "True"}, "a SequenceMask without the lengths that it uses"),
        ("softmax", {"use_length": "1"}, "a softmax without the lengths that it uses"),
        ("log_softmax", {"use_length": "True"}, "a log_softmax without the lengths that it uses"),
    ],
)
def test_graphs_that_make_mxnet_read_out_of_bounds_are_refused(op: str, attrs: dict[str, str], why_not: str) -> None:
    assert why(graph_of(op, attrs)) == f"it: node 'node': {why_not}"


# Attributes


@pytest.mark.parametrize(
    ("op", "key", "bad", "good"),
    [
        ("FullyConnected", "num_hidden", ["0", "-1", "1e3", "99999999999", "4;", "x", "(4,)"], ["1", "16777216", "4L"]),
        ("FullyConnected", "no_bias", ["yes", "2", "-1"], ["True", "0", "1", "false"]),
        ("LayerNorm", "eps", ["nan", "inf", "-1", "0", "1e400", "1,2"], ["1e-12", "0.5", "1.0e-05f"[:-1]]),
        ("LayerNorm", "axis", ["32", "-33", "0x1", "1.5"], ["-1", "2"]),
        ("Reshape", "shape", ["(70000, 70000)", "(-5,)", "(3, x)", "(3", "3)"], ["(0, 0, -1)", "[2,3]", "()", "(4L,)"]),
        ("Dropout", "p", ["nan", "1.5", "-0.1"], ["0", "0.1", "1"]),
        ("Activation", "act_type", ["no such", "Relu"], ["relu"]),
        ("_mul_scalar", "scalar", ["nan", "inf", "-inf", "1e999"], ["-1e9", "0.125", "3"]),
        ("slice_axis", "end", ["1.0", "end"], ["None", "2147483648", "-1"]),
        ("tile", "reps", ["(0,)", "(65536, 65536)"], ["(2, 3)"]),
        ("_contrib_arange_like", "repeat", ["0", "-1"], ["1", "2"]),
        ("_split_v2", "sections", ["-4"], ["3"]),
        ("Correlation", "stride2", ["-2", "0"], ["1"]),
        ("Pooling", "stride", ["(0, 0)", "(-1,)"], ["(2, 2)"]),
    ],
)
def test_an_attribute_has_a_value_of_its_type_and_range(op: str, key: str, bad: list[str], good: list[str]) -> None:
    inputs = TABLE[op]["inputs"][0]
    for value in good:
        check_symbol(graph_of(op, {key: value}, inputs), "it")
    for value in bad:
        assert (
            why(graph_of(op, {key: value}, inputs))
            == f"it: node 'node': {key} is {value!r}, which is not a valid value"
        )


@pytest.mark.parametrize(
    ("attrs", "reason"),
    [
        ({"__dtype__": "99"}, "x0: there is no dtype 99"),
        ({"__shape__": "(99999, 99999)"}, "x0: __shape__ is '(99999, 99999)', which is not a valid value"),
        ({"__shape__": "(a,)"}, "x0: __shape__ is '(a,)', which is not a valid value"),
        ({"__storage_type__": "1"}, "x0 is sparse, only dense arrays are supported"),
    ],
)
def test_dtype_and_shape_of_a_variable_are_checked(attrs: dict[str, str], reason: str) -> None:
    graph = graph_of("tanh")
    graph.node("x0").attrs = attrs
    assert why(graph) == f"it: {reason}"


def test_subgraphs_are_checked_too() -> None:
    graph = graph_of("_sg_mkldnn_fully_connected", inputs=3)
    assert why(graph).endswith("a _sg_mkldnn_fully_connected without its subgraph")
    for inner in ("tanh", "_Native"):
        graph.node("node").raw = {"subgraphs": [json.loads(graph_of(inner).to_json())]}
        if inner == "tanh":
            check_symbol(graph, "it")
    assert "subgraph: node 'node' has the operator '_Native'" in why(graph)


def test_subgraphs_in_subgraphs_end() -> None:
    inside = json.loads(graph_of("tanh").to_json())
    for _ in range(validation.MAX_SUBGRAPHS + 2):
        outside = json.loads(graph_of("_foreach").to_json())
        outside["nodes"][-1]["subgraphs"] = [inside]
        inside = outside
    with allowing("_foreach"):
        assert "too deep" in why(SymbolGraph.parse(json.dumps(inside)))


# Parameters


def params_of(graph: SymbolGraph, **others: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> NewParameters:
    """Shapes that the graph implies, and others."""
    shapes = validation.implied_shapes(graph)
    whole = {name: shape for name, shape in shapes.items() if 0 not in shape}
    return NewParameters({**{name: random_weight(name, shape) for name, shape in whole.items()}, **others})


def test_parameters_have_the_shapes_that_the_graph_implies() -> None:
    graph = some_graph()
    check_params(graph, params_of(graph), "it")
    corrupted = {
        "bertencoder0_transformer0_proj_weight": ((9, 8), "(8, 8)"),
        "bertencoder0_transformer0_proj_bias": ((8, 1), "(8)"),
        "bertmodel0_word_embed_embedding0_weight": ((30521, 8), "(30522, 8)"),
    }
    for name, (shape, told) in corrupted.items():
        with pytest.raises(ModelError) as caught:
            check_params(graph, params_of(graph, **{name: random_weight(name, shape)}), "it")
        assert str(caught.value).startswith(f"it: parameter {name} has shape {shape}, the graph implies ({told[1:-1]}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_are_finite(value: float) -> None:
    graph = some_graph()
    weights = random_weight("bertencoder0_transformer0_proj_weight", (8, 8))
    weights[3, 4] = value
    params = params_of(graph, bertencoder0_transformer0_proj_weight=weights)
    check_params(graph, params, "it", finite=False)
    with pytest.raises(ModelError, match=r"^it: parameter \w+_proj_weight has elements that are not finite$"):
        check_params(graph, params, "it")
