"""Change a signed bundle: inference symbol, training symbol and signature in the same way."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from signed_bundle import SYMBOL, TRAIN_SYMBOL, Document, SignedBundle, bypass, insert_after, operators, renumber

Mutation = Callable[[SignedBundle, random.Random], None]


def _same_choice(bundle: SignedBundle, rng: random.Random, change: Callable[[Document, random.Random], None]) -> None:
    """Change every graph with the same random numbers."""
    seed = rng.random()
    for graph in bundle.graphs:
        change(graph, random.Random(seed))


def _set(node: Document, **attrs: str) -> None:
    node.setdefault("attrs", {}).update(attrs)


# Structure


def swap_symbols(bundle: SignedBundle, rng: random.Random) -> None:
    """Swap the inference and the training symbol, or write one of them twice."""
    if TRAIN_SYMBOL in bundle.documents:
        inference, train = bundle.documents[SYMBOL], bundle.documents[TRAIN_SYMBOL]
        bundle.documents[SYMBOL] = train
        bundle.documents[TRAIN_SYMBOL] = rng.choice((inference, train))
    else:
        bundle.documents[TRAIN_SYMBOL] = copy.deepcopy(bundle.documents[SYMBOL])
        bundle.names.append(TRAIN_SYMBOL)


def remove_encoder_layer(bundle: SignedBundle, rng: random.Random) -> None:
    """Remove a layer from the graphs and the parameters, and at times from the config."""
    name = rng.choice(("transformer0_", "transformer1_"))
    for graph in bundle.graphs:
        layer = {i for i, node in enumerate(graph["nodes"]) if name in node["name"] and node["op"] != "null"}
        bypass(graph, layer)
    if rng.random() < 0.8:
        bundle.params = {key: array for key, array in bundle.params.items() if name not in key}
    if name == "transformer0_" and rng.random() < 0.5:  # the layer that is left becomes the first one
        _rename(bundle, lambda text: text.replace("transformer1_", "transformer0_"))
    if rng.random() < 0.7:
        bundle.config["num_layers"] = 1


def rename_inputs(bundle: SignedBundle, rng: random.Random) -> None:
    """Rename inputs in the graphs and the signature, at times to each other's names."""
    names = ["data0", "data1", "data2"]
    others = rng.choice(
        (["data1", "data0", "data2"], ["data0", "data2", "data1"], ["tokens", "types", "lengths"], ["data", *names[1:]])
    )
    renamed = dict(zip(names, others))
    _rename(bundle, lambda text: renamed.get(text, text))
    if rng.random() < 0.7:
        for tensor in bundle.signature["inputs"]:
            tensor["name"] = renamed.get(tensor["name"], tensor["name"])


def rename_nodes(bundle: SignedBundle, rng: random.Random) -> None:
    """Rename every node and parameter whose name contains some text."""
    old = rng.choice(("bertencoder0_", "bertmodel0_", "transformer1", "layernorm", "fc-finetune", "_weight", "ffn_1"))
    new = rng.choice(("bertencoder1_", "x", "", "é", "a b", "../", "%s", "a:b"))
    _rename(bundle, lambda text: text.replace(old, new), params=rng.random() < 0.8)


def _rename(bundle: SignedBundle, change: Callable[[str], str], params: bool = True) -> None:
    for graph in bundle.graphs:
        for node in graph["nodes"]:
            node["name"] = change(node["name"])
    if params:
        bundle.params = {change(name): array for name, array in bundle.params.items()}


def group_outputs(bundle: SignedBundle, rng: random.Random) -> None:
    """Add a second output, at times to the signature too."""
    _same_choice(bundle, rng, lambda graph, same: graph["heads"].append([same.randrange(len(graph["nodes"])), 0, 0]))
    if rng.random() < 0.5:
        bundle.signature["outputs"].append({"name": "other_output", "shape": ["batch", 32], "dtype": "float32"})


def move_output(bundle: SignedBundle, rng: random.Random) -> None:
    """Make another node the output, and name it in the signature."""
    graph = bundle.documents[SYMBOL]
    index = rng.choice([i for i, node in enumerate(graph["nodes"]) if node["op"] != "null"][-8:])
    graph["heads"] = [[index, 0, 0]]
    bundle.signature["outputs"][0]["name"] = f"{graph['nodes'][index]['name']}_output"
    if rng.random() < 0.5:
        renumber(graph, list(range(index + 1)))


def remove_guard(bundle: SignedBundle, rng: random.Random) -> None:
    """Remove the clipping of inputs that the signature declares."""
    for graph in bundle.graphs:
        guards = {i for i, node in enumerate(graph["nodes"]) if node["op"] == "clip"}
        bypass(graph, {index for index in guards if rng.random() < 0.6})


def bypass_operators(bundle: SignedBundle, rng: random.Random) -> None:
    """Remove one kind of operator, as if it returned its first input."""
    op = rng.choice(("SequenceMask", "softmax", "LayerNorm", "Dropout", "transpose", "_mul_scalar", "erf", "Cast"))
    count = rng.choice((1, 1000))
    for graph in bundle.graphs:
        found = [i for i, node in enumerate(graph["nodes"]) if node["op"] == op]
        bypass(graph, set(found[:count]))


def insert_operator(bundle: SignedBundle, rng: random.Random) -> None:
    """Insert an operator of one input between two others."""
    op, attrs = rng.choice(
        (
            ("_copy", {}),
            ("BlockGrad", {}),
            ("Dropout", {"p": "0.5"}),
            ("_mul_scalar", {"scalar": "1.0"}),
            ("_mul_scalar", {"scalar": "3.0"}),
            ("relu", {}),
            ("abs", {}),
            ("negative", {}),
            ("round", {}),
            ("zeros_like", {}),
            ("softmax", {"axis": "-1"}),
            ("transpose", {}),
            ("Flatten", {}),
            ("Cast", {"dtype": rng.choice(("float16", "float64", "int32", "int8"))}),
            ("clip", {"a_min": "0", "a_max": rng.choice(("1", "52", "1e30"))}),
            ("make_loss", {}),
        )
    )

    def insert(graph: Document, same: random.Random) -> None:
        insert_after(graph, same.randrange(len(graph["nodes"])), op, "inserted", **attrs)

    _same_choice(bundle, rng, insert)


def move_input(bundle: SignedBundle, rng: random.Random) -> None:
    """Let an input of an operator come from another node of the same kind."""

    def move(graph: Document, same: random.Random) -> None:
        nodes = graph["nodes"]
        index = same.choice([i for i, node in enumerate(nodes) if node["inputs"]])
        place = same.randrange(len(nodes[index]["inputs"]))
        op = nodes[nodes[index]["inputs"][place][0]]["op"]
        nodes[index]["inputs"][place] = [same.choice([i for i in range(index) if nodes[i]["op"] == op]), 0, 0]

    _same_choice(bundle, rng, move)


def reorder_nodes(bundle: SignedBundle, rng: random.Random) -> None:
    """Write the same graph in another topological order."""

    def reorder(graph: Document, same: random.Random) -> None:
        waiting = list(range(len(graph["nodes"])))
        order: list[int] = []
        while waiting:
            ready = [i for i in waiting if all(entry[0] in order for entry in graph["nodes"][i]["inputs"])]
            order.append(same.choice(ready))
            waiting.remove(order[-1])
        renumber(graph, order)

    _same_choice(bundle, rng, reorder)


def add_unread_nodes(bundle: SignedBundle, rng: random.Random) -> None:
    """Add nodes that no output needs, at times many."""
    op = rng.choice(("null", "zeros_like", "erf", "_Native", "Custom"))
    count = rng.choice((1, 3, 2000))
    for graph in bundle.graphs:
        for i in range(count):
            graph["nodes"].append({"op": op, "name": f"unread{i}", "inputs": [] if op == "null" else [[0, 0, 0]]})
        renumber(graph, list(range(len(graph["nodes"]))))


# Attributes


def change_head_attributes(bundle: SignedBundle, rng: random.Random) -> None:
    """Change the attributes of the head in both graphs."""
    attrs, ops = rng.choice(
        (
            ({"flatten": "False"}, ("FullyConnected",)),
            ({"no_bias": "True"}, ("FullyConnected",)),
            ({"num_hidden": rng.choice(("1", "3", "2147483647", "0"))}, ("FullyConnected",)),
            ({"axis": rng.choice(("0", "1", "-2", "5"))}, ("softmax",)),
            ({"temperature": rng.choice(("0", "2.0", "-1", "1e-30"))}, ("softmax",)),
            ({"dtype": rng.choice(("float16", "float64"))}, ("softmax",)),
            ({"multi_output": "True"}, ("SoftmaxOutput",)),
            ({"preserve_shape": "True"}, ("SoftmaxOutput",)),
            ({"grad_scale": "nan", "ignore_label": "0", "use_ignore": "True"}, ("SoftmaxOutput",)),
            ({"p": rng.choice(("1.0", "0.999", "nan"))}, ("Dropout",)),
            ({"mode": "always"}, ("Dropout",)),
        )
    )
    for graph in bundle.graphs:
        for node in operators(graph, *ops)[-1:]:
            _set(node, **attrs)


def change_numbers(bundle: SignedBundle, rng: random.Random) -> None:
    """Change a number of an operator, in every layer or in one, and in both graphs."""
    op, key, value = rng.choice(
        (
            ("LayerNorm", "eps", rng.choice(("1e-5", "0", "1", "-1e-12", "nan"))),
            ("LayerNorm", "axis", rng.choice(("1", "-2", "0"))),
            ("_mul_scalar", "scalar", rng.choice(("0.5", "1e30", "0", "nan", "0.35"))),
            ("_div_scalar", "scalar", rng.choice(("0", "1.41", "1e-38", "2.0"))),
            ("_plus_scalar", "scalar", rng.choice(("0.0", "2.0", "-1"))),
            ("SequenceMask", "value", rng.choice(("0", "-1e30", "-10", "nan", "1e9"))),
            ("SequenceMask", "axis", "0"),
            ("SequenceMask", "use_sequence_length", "False"),
            ("slice_axis", "begin", rng.choice(("1", "-1", "-2", "4"))),
            ("slice_axis", "end", rng.choice(("2", "None", "-1", "0"))),
            ("transpose", "axes", rng.choice(("(0, 1, 2, 3)", "(0, 3, 1, 2)", "(2, 0, 1, 3)", "()"))),
            ("batch_dot", "transpose_b", rng.choice(("True", "False"))),
            ("Reshape", "shape", rng.choice(("(0, 0, 2, -1)", "(0, 0, -1)", "(-1, 32)", "(0, -1, 4, 8)"))),
            ("Reshape", "reverse", rng.choice(("True", "False"))),
            ("Embedding", "input_dim", rng.choice(("52", "54", "1", "1000000000"))),
            ("Embedding", "sparse_grad", "True"),
            ("softmax", "axis", rng.choice(("-2", "0", "1"))),
            ("expand_dims", "axis", rng.choice(("0", "1", "-1"))),
            ("slice_like", "axes", rng.choice(("(0,)", "()", "(0, 1)"))),
            ("Dropout", "p", rng.choice(("0", "0.5", "0.9"))),
            ("Dropout", "axes", rng.choice(("(0,)", "(1,)", "(7,)"))),
        )
    )
    once = rng.random() < 0.5

    def change(graph: Document, same: random.Random) -> None:
        found = operators(graph, op)
        for node in same.sample(found, 1) if once and found else found:
            _set(node, **{key: value})

    _same_choice(bundle, rng, change)


def declare_wrongly(bundle: SignedBundle, rng: random.Random) -> None:
    """Declare a shape, dtype or other hint of variables that is not theirs."""
    key, value = rng.choice(
        (
            ("__shape__", rng.choice(("(1, 1)", "(0, 0)", "(53, 32, 1)", "(1000000, 1000000)", "()", "[32]", "(32,)"))),
            ("__dtype__", rng.choice(("0", "1", "2", "4", "6", "float16", "99"))),
            ("__storage_type__", rng.choice(("1", "2", "csr"))),
            ("__init__", rng.choice(('["zero", {}]', '["x", {"a": 1}]', "x"))),
            ("__lr_mult__", rng.choice(("0", "nan", "x"))),
            ("ctx_group", "gpu"),
        )
    )
    kind = rng.choice(("data0", "data2", "_weight", "_bias", "position_weight", "softmax_label", ""))
    for graph in bundle.graphs:
        for node in graph["nodes"]:
            if node["op"] == "null" and kind in node["name"]:
                _set(node, **{key: value})


def replace_activations(bundle: SignedBundle, rng: random.Random) -> None:
    """Replace the erf of gelu in some or all layers."""
    op, attrs = rng.choice(
        (("tanh", {}), ("sigmoid", {}), ("relu", {}), ("Activation", {"act_type": "tanh"}), ("erfinv", {}), ("exp", {}))
    )
    first = rng.random() < 0.5
    for graph in bundle.graphs:
        found = operators(graph, "erf")
        for node in found[:1] if first else found:
            node["op"], node["attrs"] = op, attrs


# Dtypes and the text of the file


def change_dtype(bundle: SignedBundle, rng: random.Random) -> None:
    """Change the dtype of parameters, in the graphs and at times in the signature too."""
    dtype, flag = rng.choice((("float16", "2"), ("float64", "1"), ("int8", "5"), ("int32", "4"), ("uint8", "3")))
    part = rng.choice(("", "embed", "fc-finetune", "layernorm", "_bias"))
    for name, array in bundle.params.items():
        if part in name:
            bundle.params[name] = array.astype(np.dtype(dtype))
    for graph in bundle.graphs:
        for node in graph["nodes"]:
            if node["name"] in bundle.params and part in node["name"]:
                _set(node, __dtype__=flag)
    if rng.random() < 0.5:
        for tensor in [*bundle.signature["inputs"], *bundle.signature["outputs"]]:
            tensor["dtype"] = dtype


def change_metadata(bundle: SignedBundle, rng: random.Random) -> None:
    """Change the version of MXNet, or lists that the format allows to differ."""
    change = rng.randrange(6)
    for graph in bundle.graphs:
        if change == 0:
            graph["attrs"]["mxnet_version"] = ["int", rng.choice((800, 10300, 20000, -1, 2**40))]
        elif change == 1:
            graph["attrs"] = rng.choice(({}, {"mxnet_version": ["str", "1"]}, {"x": ["int", 1]}, []))
        elif change == 2:
            del graph[rng.choice(("arg_nodes", "node_row_ptr", "attrs"))]
        elif change == 3:
            graph["arg_nodes"] = graph["arg_nodes"][::-1]
        elif change == 4:
            for node in graph["nodes"]:
                if "attrs" in node:
                    node[rng.choice(("attr", "param"))] = node.pop("attrs")
        else:
            graph["heads"] = [entry[:2] for entry in graph["heads"]]


def repeat_key(bundle: SignedBundle, rng: random.Random) -> None:
    """Repeat a key of a node with another value: parsers disagree on which one counts."""
    key, value = rng.choice(
        (
            ("attrs", {"num_hidden": "999"}),
            ("attr", {"eps": "1"}),
            ("op", "erf"),
            ("inputs", [[0, 0, 0]]),
            ("name", "data0"),
        )
    )
    nodes = [node["name"] for node in bundle.documents[SYMBOL]["nodes"] if node["op"] != "null"]
    line = f'"name": {json.dumps(rng.choice(nodes))}'
    pair = f'"{key}": {json.dumps(value)}'
    text = rng.choice((f"{pair}, {line}", f"{line}, {pair}"))
    names: Any = rng.choice(((SYMBOL,), (SYMBOL, TRAIN_SYMBOL)))
    for name in names:
        bundle.texts[name] = lambda content: content.replace(line, text, 1)


GRAPH_MUTATIONS: tuple[Mutation, ...] = (
    *(swap_symbols, remove_encoder_layer, rename_inputs, rename_nodes, group_outputs, move_output),
    *(remove_guard, bypass_operators, insert_operator, move_input, reorder_nodes, add_unread_nodes),
    *(change_head_attributes, change_numbers, declare_wrongly, replace_activations, change_dtype, change_metadata),
    repeat_key,
)
