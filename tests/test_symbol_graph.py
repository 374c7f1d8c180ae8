"""Symbol JSON: what MXNet writes is read, everything else is one error that names file and node."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertsym import BertConfig, ModelError, UsageError, graft, graft_for_inference, output_symbol
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output

CONFIG = BertConfig(num_layers=2, units=8, hidden_size=16, num_heads=2, vocab_size=50, max_length=12)

Document = dict[str, Any]


def small() -> Document:
    """x, w, b -> fc -> relu, as a document that may be corrupted."""
    x, w, b = (mx.sym.var(name) for name in ("x", "w", "b"))
    dense = mx.sym.FullyConnected(x, w, b, num_hidden=4, name="fc")
    document: Document = json.loads(mx.sym.Activation(dense, act_type="relu", name="act").tojson())
    assert [node["name"] for node in document["nodes"]] == ["x", "w", "b", "fc", "act"]
    assert document["nodes"][3]["inputs"] == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    return document


def facts(graph: SymbolGraph) -> list[object]:
    """What a graph says, to compare two of them."""
    nodes: list[object] = [(n.op, n.name, n.attrs, [str(entry) for entry in n.inputs]) for n in graph.nodes]
    return [*nodes, [str(output) for output in graph.outputs]]


def refused(document: object) -> str:
    """Why a symbol is refused: one line with the file's name."""
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ModelError) as caught:
        SymbolGraph.parse(text, "some-symbol.json")
    message = str(caught.value)
    assert message.startswith("some-symbol.json: ")
    assert "\n" not in message
    return message.removeprefix("some-symbol.json: ")


# What MXNet writes


@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
def test_the_graph_of_a_bert_has_mxnet_s_variables_and_output(output: str) -> None:
    symbol = output_symbol(CONFIG, output)
    graph = SymbolGraph.parse(symbol.tojson())
    assert graph.variables == symbol.list_arguments()
    assert graph.output_names == [output]


def test_the_graph_of_a_classifier_has_its_label_only_for_training() -> None:
    base = output_symbol(CONFIG, "cls")
    training = SymbolGraph.parse(graft(base, 2).tojson())
    inference = SymbolGraph.parse(graft_for_inference(base, 2).tojson())
    assert set(training.variables) - set(inference.variables) == {"softmax_label"}
    assert training.output_names == inference.output_names == ["softmax"]


def test_nodes_have_operator_attributes_and_inputs() -> None:
    graph = SymbolGraph.parse(json.dumps(small()))
    dense = graph.nodes[3]
    assert (dense.op, dense.name, dense.attrs) == ("FullyConnected", "fc", {"num_hidden": "4"})
    assert [(entry.node.name, entry.index) for entry in dense.inputs] == [("x", 0), ("w", 0), ("b", 0)]
    assert [node.is_variable for node in graph.nodes] == [True, True, True, False, False]
    assert graph.outputs == [Output(graph.nodes[4])]


def test_auxiliary_states_are_variables() -> None:
    symbol = mx.sym.BatchNorm(mx.sym.var("x"), name="bn")
    graph = SymbolGraph.parse(symbol.tojson())
    assert sorted(graph.variables) == sorted([*symbol.list_arguments(), *symbol.list_auxiliary_states()])


def test_several_outputs_are_kept_in_their_order() -> None:
    x = mx.sym.var("x")
    parts = mx.sym.split(x, num_outputs=3, name="parts")
    graph = SymbolGraph.parse(mx.sym.Group([parts[2], mx.sym.exp(x, name="e"), parts[0]]).tojson())
    assert graph.output_names == ["parts", "e", "parts"]
    assert [output.index for output in graph.outputs] == [2, 0, 0]


@pytest.mark.parametrize("key", ["attr", "param"])
def test_the_attributes_of_older_versions_are_read(key: str) -> None:
    """MXNet wrote ``param`` before 0.9, ``attr`` up to 1.0 and ``attrs`` since."""
    document = small()
    expected = SymbolGraph.parse(json.dumps(document))
    for node in document["nodes"]:
        if "attrs" in node:
            node[key] = node.pop("attrs")
    assert facts(SymbolGraph.parse(json.dumps(document))) == facts(expected)
    assert expected.nodes[3].attrs == {"num_hidden": "4"}


def test_the_parameters_and_attributes_of_mxnet_0_8_are_read_together() -> None:
    """As MXNet does, an attribute replaces the parameter of its name, whichever comes first in the file."""
    document = small()
    document["nodes"][3]["attr"] = {"num_hidden": "4", "ctx_group": "a"}
    document["nodes"][3]["param"] = {"num_hidden": "3", "no_bias": "False"}
    del document["nodes"][3]["attrs"]
    attrs = SymbolGraph.parse(json.dumps(document)).nodes[3].attrs
    assert attrs == {"num_hidden": "4", "no_bias": "False", "ctx_group": "a"}


def test_entries_of_two_numbers_are_read() -> None:
    """Before 1.0 there was no version of the variable."""
    document = small()
    for node in document["nodes"]:
        node["inputs"] = [entry[:2] for entry in node["inputs"]]
    document["heads"] = [[4, 0]]
    assert facts(SymbolGraph.parse(json.dumps(document))) == facts(SymbolGraph.parse(json.dumps(small())))


# What is refused


@pytest.mark.parametrize("text", ["", "{", "nodes", "{'nodes': []}"], ids=["empty", "cut", "word", "python"])
def test_a_file_that_is_not_json_is_refused(text: str) -> None:
    assert refused(text).startswith("not valid JSON: ")


@pytest.mark.parametrize("document", [[], 3, None, "text", {}, {"nodes": {}}, {"nodes": None}, {"heads": [[0, 0, 0]]}])
def test_json_of_another_kind_is_refused(document: object) -> None:
    assert refused(json.dumps(document)) == "not an MXNet symbol, there is no list of nodes"


def test_a_symbol_without_nodes_is_refused() -> None:
    assert refused({"nodes": [], "arg_nodes": [], "heads": []}) == "0 nodes, 1 to 131072 are supported"


def corrupt(change: Callable[[Document], object]) -> str:
    """Why the small symbol is refused after a change; it's good before."""
    document = small()
    SymbolGraph.parse(json.dumps(document))
    change(document)
    return refused(document)


def put(node: int, key: str, value: object) -> Callable[[Document], object]:
    return lambda document: document["nodes"][node].update({key: value})


def drop(node: int, key: str) -> Callable[[Document], object]:
    return lambda document: document["nodes"][node].pop(key)


@pytest.mark.parametrize(
    "change",
    [
        drop(3, "op"),
        drop(3, "name"),
        put(3, "op", None),
        put(3, "name", 3),
        lambda document: document["nodes"].insert(3, None),
        lambda document: document["nodes"].insert(3, ["FullyConnected", "fc"]),
    ],
)
def test_a_node_without_operator_or_name_is_named_by_its_number(change: Callable[[Document], object]) -> None:
    assert corrupt(change) == "node 3 has no op or no name"


@pytest.mark.parametrize(
    "attrs", [None, [], "num_hidden=4", {"num_hidden": 4}, {"num_hidden": None}, {"no_bias": False}, {"a": {"b": "c"}}]
)
@pytest.mark.parametrize("key", ["attrs", "attr", "param"])
def test_attributes_that_are_not_strings_are_refused_with_their_node(key: str, attrs: object) -> None:
    def change(document: Document) -> None:
        del document["nodes"][3]["attrs"]
        document["nodes"][3][key] = attrs

    assert corrupt(change) == "node 3 ('fc'): attributes are not strings"


@pytest.mark.parametrize(
    "entry",
    [
        [5, 0, 0],
        [10**6, 0, 0],
        [2**70, 0, 0],
        [3, 0, 0],
        [4, 0, 0],
        [-1, 0, 0],
        [0, -1, 0],
        [0.0, 0, 0],
        ["x", 0, 0],
        [None, 0, 0],
        [True, 0, 0],
        [0, 0, 0, 0],
        [0],
        [],
        0,
        None,
        {"0": 0},
    ],
    ids=str,
)
def test_an_input_that_does_not_come_earlier_is_refused_with_its_node(entry: object) -> None:
    """Neither beyond the list nor forward, so there are no cycles."""
    assert corrupt(put(3, "inputs", [[0, 0, 0], entry, [2, 0, 0]])).startswith("node 3 ('fc'): ")


def test_two_nodes_that_read_each_other_are_refused() -> None:
    message = corrupt(put(3, "inputs", [[4, 0, 0], [1, 0, 0], [2, 0, 0]]))
    assert message == "node 3 ('fc'): [4, 0, 0] does not name an earlier node"


def test_an_output_that_a_variable_does_not_have_is_refused() -> None:
    """A variable has one output; libmxnet reads beyond its memory when asked for another one."""
    assert corrupt(put(3, "inputs", [[0, 0, 0], [1, 7, 0], [2, 0, 0]])).startswith("node 3 ('fc'): ")


def test_a_head_that_is_an_output_which_a_variable_does_not_have_is_refused() -> None:
    assert corrupt(lambda document: document.update(heads=[[0, 1, 0]])).startswith("heads: ")


@pytest.mark.parametrize("inputs", [None, {}, "0", 0])
def test_inputs_that_are_not_a_list_are_refused_with_their_node(inputs: object) -> None:
    assert corrupt(put(3, "inputs", inputs)) == "node 3 ('fc'): no list of inputs or outputs"


def test_a_variable_with_inputs_is_refused() -> None:
    assert corrupt(put(2, "inputs", [[0, 0, 0]])) == "node 2 ('b'): a variable with inputs"


def test_variables_of_one_name_and_different_attributes_are_refused() -> None:
    document = small()
    document["nodes"][2].update(name="w", attrs={"__shape__": "(4,)"})
    assert refused(document) == "two variables are named 'w', with different attributes"


def test_two_operators_may_have_one_name_as_a_block_that_is_called_twice() -> None:
    document = small()
    document["nodes"][4]["name"] = "fc"
    graph = SymbolGraph.parse(json.dumps(document))
    assert [node.op for node in graph.find("fc")] == ["FullyConnected", "Activation"]
    with pytest.raises(UsageError, match=r"2 nodes are named 'fc' \(FullyConnected, Activation\): choose one"):
        graph.node("fc")


@pytest.mark.parametrize(
    ("heads", "why"),
    [
        ([], "no outputs"),
        (None, "heads: no list"),
        ({}, "heads: no list"),
        ([[5, 0, 0]], "heads: [5, 0, 0] does not name"),
        ([[4, 0, 0], [-1, 0, 0]], "heads: [-1, 0, 0] does not name"),
        ([[4, -1, 0]], "heads: [4, -1, 0] does not name"),
        ([4], "heads: 4 does not name"),
        ([["act", 0, 0]], "heads: ['act', 0, 0] does not name"),
    ],
)
def test_heads_that_are_not_nodes_are_refused(heads: object, why: str) -> None:
    assert corrupt(lambda document: document.update(heads=heads)).startswith(why)
    assert corrupt(lambda document: document.pop("heads")) == "the key 'heads' is missing"


# Files


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "m-symbol.json"
    path.write_text(json.dumps(small()))
    parsed = SymbolGraph.parse(json.dumps(small()))
    assert facts(SymbolGraph.load(path)) == facts(SymbolGraph.load(str(path))) == facts(parsed)


def test_an_unreadable_file_is_a_one_line_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m-symbol.json"
    for content, why in ((None, "No such file or directory"), (b"\xff{}", "not UTF-8 text"), (b"[]", "not an MXNet")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=f"^{re.escape(str(path))}: {why}"):
            SymbolGraph.load(path)
    with pytest.raises(ModelError, match=r"Is a directory$"):
        SymbolGraph.load(tmp_path)
