"""The graph that is checked is the graph that MXNet runs: a file that both would parse differently is refused.

MXNet's parser is another than Python's: of a repeated key it takes the last value or appends it, of ``attrs`` beside
``attr`` the last one, and it knows neither ``\\u`` nor unknown keys.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from bertsym import ModelError
from bertsym.mxnet_runtime import mx, quiet_stderr
from bertsym.symbol.graph import SymbolGraph

Facts = list[tuple[Any, ...]]


def small(version: int = 10901) -> str:
    """x, w, b -> fc -> act, as one line of JSON."""
    nodes: list[dict[str, Any]] = [{"op": "null", "name": name, "inputs": []} for name in ("x", "w", "b")]
    dense = {"op": "FullyConnected", "name": "fc", "attrs": {"num_hidden": "3"}}
    nodes.append({**dense, "inputs": [[0, 0, 0], [1, 0, 0], [2, 0, 0]]})
    nodes.append({"op": "Activation", "name": "act", "attrs": {"act_type": "tanh"}, "inputs": [[3, 0, 0]]})
    document = {"nodes": nodes, "arg_nodes": [0, 1, 2], "node_row_ptr": [0, 1, 2, 3, 4, 5], "heads": [[4, 0, 0]]}
    return json.dumps({**document, "attrs": {"mxnet_version": ["int", version]}})


def changed(old: str, new: str, text: str | None = None) -> str:
    text = small() if text is None else text
    assert text.count(old) == 1
    return text.replace(old, new)


def mxnet_json(text: str) -> str:
    """The graph that MXNet loads from a text, as it writes it; raises what MXNet raises."""
    load: Any = mx.sym.load_json
    with quiet_stderr():
        return str(load(text).tojson())


def facts(text: str) -> Facts:
    """Nodes and outputs of a graph that depend on no order and no number of a node."""
    graph = SymbolGraph.parse(text)
    graph.cleanup()
    graph.toposort()
    nodes = [(node.op, node.name, dict(node.attrs), *map(str, node.inputs)) for node in graph.nodes]
    return [*nodes, ("heads", *map(str, graph.outputs))]


FC, ACT, VERSION = '"attrs": {"num_hidden": "3"}', '"name": "act"', '"attrs": {"mxnet_version": ["int", 10901]}'
ONE_MORE = '"nodes": [{"op": "null", "name": "z", "inputs": []}]'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Where Python and MXNet would read two different graphs
        (changed(FC, f'{FC}, "attr": {{"num_hidden": "5"}}'), "node 3 ('fc'): both 'attr' and 'attrs'"),
        (changed(FC, f'"attr": {{"__note__": "n"}}, {FC}'), "node 3 ('fc'): both 'attr' and 'attrs'"),
        (changed(FC, f'{FC}, "param": {{"no_bias": "0"}}, "attr": {{}}'), "node 3 ('fc'): both 'attr' and 'attrs'"),
        (changed(FC, f'{FC}, "attrs": {{"no_bias": "0"}}'), 'nodes[3]: the key "attrs" is repeated'),
        (changed('"3"}', '"3", "num_hidden": "0"}'), 'nodes[3].attrs: the key "num_hidden" is repeated'),
        (changed('"3"}', '"3", "num_\\u0068idden": "0"}'), 'nodes[3].attrs: the key "num_hidden" is repeated'),
        (changed("[[3, 0, 0]]", '[[3, 0, 0]], "inputs": [[0, 0, 0]]'), 'nodes[4]: the key "inputs" is repeated'),
        (changed(ACT, f'{ACT}, "op": "Flatten"'), 'nodes[4]: the key "op" is repeated'),
        (changed('"arg_nodes"', f'{ONE_MORE}, "arg_nodes"'), 'the key "nodes" is repeated'),
        (changed("[[4, 0, 0]]", '[[4, 0, 0]], "heads": [[3, 0, 0]]'), 'the key "heads" is repeated'),
        (changed(VERSION, f'{VERSION}, "attrs": {{}}'), 'the key "attrs" is repeated'),
        # What MXNet does not load
        (changed(ACT, f'{ACT}, "color": "red"'), "node 4 ('act'): the key 'color' is not one that MXNet loads"),
        (changed('"arg_nodes"', '"producer": {}, "arg_nodes"'), "the key 'producer' is not one that MXNet loads"),
        (changed('"arg_nodes": [0, 1, 2], ', ""), "the key 'arg_nodes' is missing"),
        (changed(', "inputs": [[3, 0, 0]]', ""), "node 4 ('act'): the key 'inputs' is missing"),
        (changed(ACT, '"name": "a\\u0000ct"'), "node 'a\\x00ct': 'a\\x00ct' has a NUL character"),
        (changed('"tanh"', '"tanh\\u0000"'), "node 'act': 'tanh\\x00' has a NUL character"),
        (changed(ACT, f'{ACT}, "control_deps": null'), "node 4 ('act'): control dependencies are not supported"),
        (changed(ACT, f'{ACT}, "backward_source_id": "0"'), "node 4 ('act'): backward_source_id is not an integer"),
        (changed("[3, 0, 0]", "[3.0, 0, 0]"), "node 4 ('act'): [3.0, 0, 0] does not name an earlier node"),
        (changed("[3, 0, 0]", "[3, 4294967296, 0]"), "node 4 ('act'): [3, 4294967296, 0] does not name"),
        (changed("[3, 0, 0]", "[3, 0, 4294967296]"), "node 4 ('act'): [3, 0, 4294967296] does not name"),
        (changed("10901", "10901.5"), "attrs: mxnet_version is not an integer such as 10901"),
        (changed("10901", "99999999999"), "attrs: mxnet_version is not an integer such as 10901"),
        (changed('"int", 10901', '"str", "1.9.1"'), "attrs: mxnet_version is not an integer such as 10901"),
        (changed(VERSION, '"attrs": null'), "attrs: not an object of pairs of type and value"),
        (changed("[3, 0, 0]", "[03, 0, 0]"), "not valid JSON"),
        (small() + small(), "not valid JSON: Extra data"),
    ],
)
def test_a_file_that_the_two_parsers_read_differently_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        SymbolGraph.parse(text, "m-symbol.json")
    assert f"m-symbol.json: {message}" in str(caught.value)


ACCEPTED = {
    "as MXNet writes it": small(),
    "parameters beside attributes": changed(FC, '"attr": {"__note__": "n"}, "param": {"num_hidden": "3"}'),
    "parameters replaced with attributes": changed(FC, '"attr": {"num_hidden": "3"}, "param": {"num_hidden": "5"}'),
    "parameters and attrs": changed(FC, '"attrs": {"num_hidden": "3"}, "param": {"num_hidden": "5", "no_bias": "0"}'),
    "parameters alone": changed(FC, '"param": {"num_hidden": "3"}'),
    "entries of two numbers": changed("[3, 0, 0]", "[3, 0]"),
    "a version of an entry": changed("[3, 0, 0]", "[3, 0, 7]"),
    "other argument nodes": changed('"arg_nodes": [0, 1, 2]', '"arg_nodes": [0]'),
    "other counts of outputs": changed("[0, 1, 2, 3, 4, 5]", "[0, 1, 2, 3, 6, 7]"),
    "counts of outputs that are none": changed("[0, 1, 2, 3, 4, 5]", "null"),
    "an output twice": changed("[[4, 0, 0]]", "[[4, 0, 0], [4, 0, 0]]"),
    "an output that is not the last node": changed("[[4, 0, 0]]", "[[3, 0, 0]]"),
    "a variable as output": changed("[[4, 0, 0]]", "[[0, 0, 0], [4, 0, 0]]"),
    "keys of MXNet 0.8": changed(ACT, f'{ACT}, "backward_source_id": -1, "control_deps": []'),
    "no version": changed(f", {VERSION}", ""),
    "other attributes of the graph": changed("10901]", '10901], "note": ["str", "n"], "sizes": ["list_int", [1]]'),
    "a name with escapes": changed(ACT, '"name": "a\\u0061\\/\\b\\f\\n\\r\\t\\"\\\\\\ud83d\\ude00\\u007f"'),
    "a name with control characters": changed(ACT, '"name": "a\n\r\t\x01"'),
    "a name with line separators": changed(ACT, '"name": "a\u2028\x85"'),
    "a key with escapes": changed('"heads"', '"h\\u0065ads"'),
    "a value with escapes": changed('"tanh"', '"t\\u0061nh"'),
    "two operators of one name": changed(ACT, '"name": "fc"'),
    "an operator named as a variable": changed(ACT, '"name": "x"'),
    "empty attributes": changed(ACT, f'{ACT}, "param": {{}}'),
    "a subgraph that nobody reads": changed(ACT, f'{ACT}, "subgraphs": [{small()}]'),
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=list(ACCEPTED))
def test_mxnet_loads_an_accepted_file_as_the_graph_that_was_parsed(text: str) -> None:
    ours = SymbolGraph.parse(text).to_json()
    assert facts(mxnet_json(ours)) == facts(text)
    try:
        theirs = mxnet_json(text)
    except mx.MXNetError:
        return  # such as \u, which our text does not contain
    assert theirs == mxnet_json(ours)


# The upgrade of old files, which MXNet does by the version in the text


def old(version: str) -> str:
    """A network with what MXNet 1.9.1 changes in files of 0.8 to 0.9: hidden attributes, the axis of argmax."""
    nodes: list[dict[str, Any]] = [
        {"op": "null", "param": {}, "name": "x", "inputs": [], "backward_source_id": -1},
        {"op": "null", "param": {}, "name": "w", "inputs": [], "backward_source_id": -1, "attr": {"lr_mult": "2"}},
        {"op": "null", "param": {}, "name": "b", "inputs": [], "backward_source_id": -1},
    ]
    dense = {"op": "FullyConnected", "param": {"no_bias": "False", "num_hidden": "3"}, "name": "fc"}
    hidden = {"ctx_group": "stage1", "weight_wd_mult": "0.5"}
    nodes.append({**dense, "inputs": [[0, 0], [1, 0], [2, 0]], "backward_source_id": -1, "attr": hidden})
    nodes.append(
        {"op": "argmax", "param": {"axis": "-1"}, "name": "best", "inputs": [[3, 0]], "backward_source_id": -1}
    )
    document = {"nodes": nodes, "arg_nodes": [0, 1, 2], "heads": [[4, 0]]}
    return json.dumps({**document, **json.loads(version)})


@pytest.mark.parametrize(
    "version", ["{}", *(f'{{"attrs": {{"mxnet_version": ["int", {number}]}}}}' for number in (900, 904, 905, 1000))]
)
def test_mxnet_upgrades_our_text_of_an_old_file_as_the_file(version: str) -> None:
    text = old(version)
    ours = SymbolGraph.parse(text).to_json()
    assert mxnet_json(ours) == mxnet_json(text)
    if version == "{}":
        upgraded = SymbolGraph.parse(mxnet_json(ours))
        assert upgraded.node("best").attrs == {}
        assert upgraded.node("w").attrs == {"__lr_mult__": "2", "__wd_mult__": "0.5"}


def test_an_edit_of_an_old_file_keeps_its_version() -> None:
    graph = SymbolGraph.parse(old('{"attrs": {"mxnet_version": ["int", 904]}}'))
    graph.insert_after(graph.node("fc"), "tanh", "new")
    assert SymbolGraph.parse(mxnet_json(graph.to_json())).node("best").attrs == {}
    assert json.loads(graph.to_json())["attrs"] == {"mxnet_version": ["int", 904]}
