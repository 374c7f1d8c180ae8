"""A symbol that is read and written again is the same: its bytes where MXNet wrote it, and what it computes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, hugging_face_weights
from gluonnlp_models import bert_model
from symbol_values import (
    BERTS,
    FILES,
    OTHERS,
    SYMBOLS,
    assert_equal,
    compute,
    expected,
    label,
    random_values,
    values_for,
)

from bertsym import BertConfig, ModelError, finished_head, graft, graft_for_inference, output_symbol
from bertsym.mxnet_runtime import mx, nlp, quiet_stderr
from bertsym.symbol.graph import SymbolGraph

#: files whose graphs are computed, of which resnet50 has 25 million parameters
SOME = [path for path in (*OTHERS, *BERTS[::4]) if path.stem != "resnet50"]
BERT = BertConfig(num_layers=2, units=8, hidden_size=16, num_heads=2, vocab_size=50, max_length=12)
Document = dict[str, Any]

every_file = pytest.mark.parametrize("path", FILES, ids=label)


def renamed(graph: SymbolGraph) -> SymbolGraph:
    """The graph after every node whose name is unique was renamed, and renamed back."""
    names = [node.name for node in graph.nodes]
    there = {name: f"other {i}" for i, name in enumerate(names) if names.count(name) == 1}
    graph.rename(there)
    assert not {*there} & {node.name for node in graph.nodes}
    graph.rename({new: old for old, new in there.items()})
    return graph


def sorted_again(graph: SymbolGraph) -> SymbolGraph:
    graph.toposort()
    return graph


def without_effect(graph: SymbolGraph) -> SymbolGraph:
    """The graph after edits that change nothing, and after some that were taken back."""
    graph.cleanup()
    graph.set_outputs(graph.outputs)
    for node in graph.nodes:
        graph.set_inputs(node, node.inputs)
        if "key" not in node.attrs:
            graph.set_attribute(node, "key", "value")
            graph.set_attribute(node, "key", None)
    output = graph.outputs[-1]
    graph.remove(graph.insert_after(output, "tanh", "inserted"), bypass=True)
    return graph


# What MXNet wrote


@every_file
def test_a_file_of_mxnet_is_written_byte_for_byte(path: Path) -> None:
    assert SymbolGraph.load(path).to_json().encode() == path.read_bytes()


@every_file
@pytest.mark.parametrize("change", [SymbolGraph.copy, sorted_again, renamed], ids=["copy", "toposort", "rename"])
def test_an_edit_without_effect_changes_no_byte(path: Path, change: Callable[[SymbolGraph], SymbolGraph]) -> None:
    assert change(SymbolGraph.load(path)).to_json().encode() == path.read_bytes()


@pytest.mark.parametrize("path", SOME, ids=label)
def test_reverted_edits_change_no_byte(path: Path) -> None:
    assert without_effect(SymbolGraph.load(path)).to_json().encode() == path.read_bytes()


def test_the_version_that_wrote_a_file_is_known() -> None:
    of_gluonnlp = {"0.6.0": "1.4.1", "0.7.1": "1.5.1", "0.8.3": "1.5.1", "0.9.2": "1.6.0", "0.10.0": "1.9.1"}
    for path in FILES:
        package, _, number = path.parent.name.partition("-")
        assert SymbolGraph.load(path).mxnet_version == (number if package == "mxnet" else of_gluonnlp[number])


@every_file
def test_the_graph_equals_what_mxnet_reads(path: Path) -> None:
    graph = SymbolGraph.load(path)
    with quiet_stderr():
        symbol = mx.sym.load(str(path))
    assert sorted(graph.variables) == sorted(symbol.list_inputs())
    assert len(graph.outputs) == len(symbol.list_outputs())
    names = [node.name for node in graph.nodes]
    attributes = symbol.attr_dict()
    for node in graph.nodes:
        if graph.mxnet_version == "1.9.1" and names.count(node.name) == 1:
            # mxnet lists some twice, as lr_mult for __lr_mult__
            assert node.attrs.items() <= attributes.get(node.name, {}).items()


@pytest.mark.parametrize("path", BERTS, ids=label)
def test_a_symbol_of_each_gluonnlp_computes_the_recorded_outputs(path: Path) -> None:
    outputs = compute(renamed(SymbolGraph.load(path)).to_json(), values_for(path))
    for output, values in zip(outputs, expected(path)["outputs"]):
        np.testing.assert_allclose(output, np.asarray(values), atol=2e-5)


@pytest.mark.parametrize("path", SOME, ids=label)
def test_other_names_of_the_operators_change_no_number(path: Path) -> None:
    graph = SymbolGraph.load(path)
    values = values_for(path)
    before = compute(path.read_text(), values)
    names = [node.name for node in graph.nodes]
    operators = [node.name for node in graph.nodes if not node.is_variable and names.count(node.name) == 1]
    graph.rename({name: f"node{i}" for i, name in enumerate(operators)})
    assert graph.to_json() != path.read_text()
    assert_equal(compute(graph.to_json(), values), before)


# What is made while the tests run


def of_this_package() -> dict[str, Any]:
    cls, pooled = output_symbol(BERT, "cls"), output_symbol(BERT, "pooled")
    tasks = ("classification", "regression", "qa")
    return {
        **{output: output_symbol(BERT, output) for output in ("cls", "pooled", "mean", "sequence")},
        "grafted": graft(cls, 3),
        "grafted for inference": graft_for_inference(pooled, 3),
        **{task: finished_head(BERT, task, 1 if task == "regression" else 2) for task in tasks},
    }


def of_gluonnlp() -> dict[str, Any]:
    """What GluonNLP traces: a BERT, one with the heads of pretraining, and its own classifier."""
    words, types, length, masked = (mx.sym.var(f"data{i}") for i in range(4))
    pretraining = bert_model(CONFIG, hugging_face_weights(), heads=True, prefixes=False)
    plain = bert_model(CONFIG, hugging_face_weights(), prefixes=False)
    classifier = nlp.model.BERTClassifier(plain, num_classes=3)
    return {
        "plain": mx.sym.Group(list(plain(words, types, length))),
        "without length": mx.sym.Group(list(plain(words, types))),
        "pretraining": mx.sym.Group(list(pretraining(words, types, length, masked))),
        "classifier": classifier(words, types, length),
    }


INPUTS = {"data0": (2, 6), "data1": (2, 6), "data2": (2,), "data3": (2, 3)}


@pytest.mark.parametrize("make", [of_this_package, of_gluonnlp])
def test_live_symbols_are_written_byte_for_byte_and_compute_the_same(make: Callable[[], dict[str, Any]]) -> None:
    for name, symbol in make().items():
        text = symbol.tojson()
        graph = SymbolGraph.parse(text)
        for same in (graph, graph.copy(), sorted_again(graph.copy()), renamed(graph.copy())):
            assert same.to_json() == text, name
        assert without_effect(graph.copy()).to_json() == text, name
        values = random_values(text, INPUTS)
        operators = [node.name for node in graph.nodes if not node.is_variable]
        graph.rename({operator: f"node{i}" for i, operator in enumerate(operators)})
        assert_equal(compute(graph.to_json(), values), compute(text, values))


# What others wrote, by hand or with an old MXNet


def minified(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def indented(document: Document) -> str:
    return json.dumps(document, indent="\t", ensure_ascii=False).replace("\n", "\r\n")


def other_key_order(document: Document) -> str:
    document["nodes"] = [dict(reversed(node.items())) for node in document["nodes"]]
    return json.dumps(dict(reversed(document.items())), ensure_ascii=False)


def without_row_ptr(document: Document) -> str:
    del document["node_row_ptr"]
    return json.dumps(document, ensure_ascii=False)


def entries_of_two(document: Document) -> str:
    for node in document["nodes"]:
        node["inputs"] = [entry[:2] for entry in node["inputs"]]
    document["heads"] = [entry[:2] for entry in document["heads"]]
    return json.dumps(document, ensure_ascii=False)


def of_mxnet_0_8(document: Document) -> str:
    """``param`` for the operator, ``attr`` for the user; two numbers an entry, no version, no rows."""
    nodes = []
    for node in document["nodes"]:
        attrs = node.pop("attrs", {})
        own = {key: value for key, value in attrs.items() if key.startswith("__") or key == "ctx_group"}
        param = {key: value for key, value in attrs.items() if key not in own}
        old = {"op": node["op"], "param": param, "name": node["name"], "inputs": node["inputs"]}
        nodes.append({**old, "backward_source_id": -1, **({"attr": own} if own else {}), **node})
    old_document = {"nodes": nodes, "arg_nodes": document["arg_nodes"], "heads": document["heads"]}
    return entries_of_two(old_document)


def unused_nodes(document: Document) -> str:
    """A variable and an operator that nothing reads, before and after the others."""
    for node in document["nodes"]:
        node["inputs"] = [[entry[0] + 1, *entry[1:]] for entry in node["inputs"]]
    count = len(document["nodes"])
    document["nodes"].insert(0, {"op": "null", "name": "unused", "inputs": []})
    document["nodes"].append({"op": "exp", "name": "unused exp", "inputs": [[0, 0, 0]]})
    document["arg_nodes"] = [0, *(index + 1 for index in document["arg_nodes"])]
    document["node_row_ptr"] = [0, *(end + 1 for end in document["node_row_ptr"])]
    document["node_row_ptr"].append(document["node_row_ptr"][-1] + 1)
    document["heads"] = [[entry[0] + 1, *entry[1:]] for entry in document["heads"]]
    assert len(document["nodes"]) == count + 2
    return json.dumps(document, ensure_ascii=False)


def variables_first(document: Document) -> str:
    """Another order in which every input comes before its readers, as other programs write it."""
    old = document["nodes"]
    order = sorted(range(len(old)), key=lambda index: old[index]["op"] != "null")
    place = {index: position for position, index in enumerate(order)}
    sizes = np.diff(document["node_row_ptr"])[order]
    document["nodes"] = [old[index] for index in order]
    for node in document["nodes"]:
        node["inputs"] = [[place[entry[0]], *entry[1:]] for entry in node["inputs"]]
    document["arg_nodes"] = sorted(place[index] for index in document["arg_nodes"])
    document["node_row_ptr"] = [0, *np.cumsum(sizes).tolist()]
    document["heads"] = [[place[entry[0]], *entry[1:]] for entry in document["heads"]]
    return json.dumps(document, ensure_ascii=False)


TEXT_ONLY = [minified, indented, other_key_order, without_row_ptr, entries_of_two]
#: layouts that change more than the text
REORDERED = (of_mxnet_0_8, unused_nodes, variables_first)
ONE_OF_EACH = [path for path in OTHERS if path.parent.name == "mxnet-1.9.1"]
ONE_OF_EACH += [SYMBOLS / "mxnet-0.11.0" / "multi.json"]
ONE_OF_EACH += [SYMBOLS / "gluonnlp-0.6.0" / "pooled-symbol.json"]
ONE_OF_EACH += [SYMBOLS / "gluonnlp-0.10.0" / "pretraining-symbol.json"]
of_every_kind = pytest.mark.parametrize("path", ONE_OF_EACH, ids=label)


def pairs(text: str) -> object:
    """JSON with its objects as lists of keys and values: their order counts."""
    return json.loads(text, object_pairs_hook=list)


#: file and layout: those that change the graph for each file, the others in turn, two for each file
LAID_OUT = [
    *itertools.product(ONE_OF_EACH, REORDERED),
    *zip(ONE_OF_EACH, itertools.cycle(TEXT_ONLY)),
    *zip(ONE_OF_EACH, itertools.cycle([*TEXT_ONLY[2:], *TEXT_ONLY[:2]])),
]


@pytest.mark.parametrize(
    ("path", "layout"),
    [
        pytest.param(path, layout, id=f"{layout.__name__}-{label(path)}")
        for path, layout in LAID_OUT
        # 0.8 had no subgraphs, and mxnet adds inputs to a node that it takes for so old.
        if (layout is not of_mxnet_0_8 or "subgraphs" not in path.read_text())
        # Its 25 million parameters take seconds.
        and (path.stem != "resnet50" or layout is variables_first)
    ],
)
def test_another_json_layout_keeps_content_and_outputs(path: Path, layout: Callable[[Document], str]) -> None:
    text = layout(json.loads(path.read_text()))
    graph = SymbolGraph.parse(text)
    written = graph.to_json()
    assert pairs(written) == pairs(text)
    assert SymbolGraph.parse(written).to_json() == written
    values = values_for(path)
    before = compute(text, values)
    assert_equal(compute(written, values), before)
    if layout in REORDERED:
        assert_equal(compute(sorted_again(graph.copy()).to_json(), values), before)
        if path.stem != "resnet50":
            assert_equal(compute(without_effect(graph.copy()).to_json(), values), before)


@of_every_kind
def test_sorting_puts_another_order_into_mxnet_s(path: Path) -> None:
    graph = SymbolGraph.parse(variables_first(json.loads(path.read_text())))
    kinds = [node.is_variable for node in graph.nodes]
    assert kinds == sorted(kinds, reverse=True)
    graph.toposort()
    assert graph.to_json() == path.read_text()


@of_every_kind
def test_cleanup_leaves_the_file_without_its_unused_nodes(path: Path) -> None:
    graph = SymbolGraph.parse(unused_nodes(json.loads(path.read_text())))
    assert [node.name for node in graph.cleanup()] == ["unused", "unused exp"]
    assert graph.to_json() == path.read_text()


def normalised() -> Document:
    document: Document = json.loads(mx.sym.BatchNorm(mx.sym.var("x"), name="norm").tojson())
    assert document["nodes"][5]["inputs"][3:] == [[3, 0, 1], [4, 0, 1]]
    return document


def test_entries_of_two_and_of_three_numbers_in_one_file_keep_their_versions() -> None:
    document = normalised()
    document["heads"] = [[5, 0]]
    written = json.loads(SymbolGraph.parse(json.dumps(document)).to_json())
    assert written["nodes"] == document["nodes"]
    assert written["heads"] == [[5, 0, 0]]


def test_characters_that_mxnet_does_not_escape_are_read_and_written() -> None:
    note = "".join(map(chr, range(1, 128))) + "é名😀"
    text = mx.sym.exp(mx.sym.var("x", attr={"__note__": note}), name='back\\slash "e"').tojson()
    graph = SymbolGraph.parse(text)
    assert graph.node("x").attrs == {"__note__": note}
    assert graph.to_json() == text


def test_characters_that_others_escape_can_be_read_by_mxnet_afterwards() -> None:
    """MXNet knows no \\u."""
    document = normalised()
    document["nodes"][5]["name"] = "名é"
    text = json.dumps(document)
    assert "\\u" in text
    values = random_values(json.dumps(normalised()), {"x": (2, 3)})
    assert_equal(compute(SymbolGraph.parse(text).to_json(), values), compute(json.dumps(normalised()), values))


def test_a_lone_surrogate_in_a_name_is_refused() -> None:
    document = normalised()
    document["nodes"][5]["name"] = "\ud83d"
    with pytest.raises(ModelError, match=r"^symbol: a string has a lone surrogate"):
        SymbolGraph.parse(json.dumps(document))
    document["nodes"][5]["name"] = "😀"
    assert SymbolGraph.parse(json.dumps(document)).nodes[5].name == "😀"


@pytest.mark.parametrize("subgraphs", [5, "x", [1], [{}], {}, [{"nodes": [{}]}], [{"nodes": 3}], None], ids=str)
def test_a_subgraph_of_another_form_is_written_as_it_was_read(subgraphs: object) -> None:
    document = normalised()
    document["nodes"][5]["subgraphs"] = subgraphs
    assert json.loads(SymbolGraph.parse(json.dumps(document)).to_json()) == document


def test_the_version_of_a_file_without_version_is_none() -> None:
    document = normalised()
    del document["attrs"]
    assert SymbolGraph.parse(json.dumps(document)).mxnet_version is None
