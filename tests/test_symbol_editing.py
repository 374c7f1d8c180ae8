"""Edits of a graph: each does what it says, mxnet computes the difference, and a refused one leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from symbol_values import FILES, Shapes, assert_equal, compute, label, load, random_array, random_values

from bertsym import BertsymError, ModelError, UsageError
from bertsym.array import Array
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import VARIABLE, Node, Output

SHAPES: Shapes = {"x": (2, 4)}


def small() -> SymbolGraph:
    """x -> first -> act -> drop -> second, a sum past them, and two halves of it of which one is multiplied."""
    x = mx.sym.var("x")
    first = mx.sym.FullyConnected(x, num_hidden=4, name="first")
    drop = mx.sym.Dropout(mx.sym.Activation(first, act_type="relu", name="act"), p=0.5, name="drop")
    second = mx.sym.FullyConnected(drop, num_hidden=4, no_bias=True, name="second")
    parts = mx.sym.SliceChannel(mx.sym.elemwise_add(second, first, name="sum"), num_outputs=2, name="parts")
    product = mx.sym.elemwise_mul(parts[0], parts[1], name="product")
    return SymbolGraph.parse(mx.sym.Group([product, parts[1]]).tojson())


VARIABLES = ["x", "first_weight", "first_bias", "second_weight"]
NAMES = ["x", "first_weight", "first_bias", "first", "act", "drop"]
NAMES += ["second_weight", "second", "sum", "parts", "product"]


def run(graph: SymbolGraph, **more: Array) -> list[Array]:
    """What mxnet computes from the same values for the same names."""
    graph.check()
    text = graph.to_json()
    assert SymbolGraph.parse(text).to_json() == text
    shapes = {**SHAPES, **{name: array.shape for name, array in more.items()}}
    return compute(text, {**random_values(text, shapes), **more})


def inside(graph: SymbolGraph, *names: str) -> list[Array]:
    """What mxnet computes in the middle of a graph, one tensor at a time.

    Where a graph ends in a FullyConnected and in its activation, oneDNN's fusion confuses the two.
    """
    symbol: Any = load(graph.to_json())
    values = random_values(graph.to_json(), SHAPES)
    return [compute(symbol.get_internals()[name].tojson(), values)[0] for name in names]


def assert_tanh(array: Array, of: Array) -> None:
    """The hyperbolic tangent, as near as mxnet's and numpy's are."""
    np.testing.assert_allclose(array, np.tanh(of), atol=1e-6)
    assert np.abs(array - of).max() > 1e-4


@contextmanager
def refused(graph: SymbolGraph, error: type[BertsymError], why: str) -> Iterator[None]:
    before, nodes, text = list(graph.nodes), [vars(node).copy() for node in graph.nodes], graph.to_json()
    with pytest.raises(error, match=why):
        yield
    assert graph.to_json() == text
    assert graph.nodes == before
    assert [vars(node) for node in graph.nodes] == nodes


def names(nodes: list[Node]) -> list[str]:
    return [node.name for node in nodes]


# Adding


def test_an_operator_that_was_added_is_computed_when_it_is_an_output() -> None:
    graph = small()
    before = inside(graph, "first_output")[0]
    node = graph.add("elemwise_add", "twice", [graph.node("first"), graph.output("first")])
    assert graph.consumers(node) == []
    assert_equal(run(graph), run(small()))
    graph.set_outputs([node])
    assert_equal(run(graph), [before + before])


def test_an_operator_of_several_outputs_is_added_with_their_number() -> None:
    graph = small()
    halves = graph.add("SliceChannel", "halves", [graph.node("first")], {"num_outputs": "2"}, num_outputs=2)
    graph.set_outputs([Output(halves, 1)])
    assert_equal(run(graph), [inside(small(), "first_output")[0][:, 2:]])
    with refused(graph, UsageError, r"^there is no halves:2: the outputs of halves are 0 to 1$"):
        graph.set_outputs([Output(halves, 2)])


def test_a_variable_that_was_added_is_an_argument_once_it_is_read() -> None:
    graph = small()
    scale = graph.add_variable("scale", {"__shape__": "(2, 4)"})
    graph.set_outputs([graph.add("elemwise_mul", "scaled", [graph.node("sum"), scale])])
    assert graph.variables == [*VARIABLES, "scale"]
    value = random_array("scale", (2, 4))
    assert_equal(run(graph, scale=value), [inside(small(), "sum_output")[0] * value])


def test_a_graph_can_be_built_from_nothing() -> None:
    x = Node(VARIABLE, "x")
    graph = SymbolGraph([x], [Output(x)])
    graph.set_outputs([graph.add("FullyConnected", "fc", [x, graph.add_variable("fc_weight")], {"num_hidden": "3"})])
    graph.set_attribute(graph.node("fc"), "no_bias", "True")
    weight = mx.sym.var("fc_weight")  # mxnet gives those that it adds itself the attributes of the operator
    expected = mx.sym.FullyConnected(mx.sym.var("x"), weight, num_hidden=3, no_bias=True, name="fc")
    assert graph.to_json() == expected.tojson()


# Inserting


def test_all_readers_of_the_output_read_the_inserted_node() -> None:
    graph = small()
    node = graph.insert_after(graph.node("first"), "tanh", "squashed")
    assert names(graph.producers(node)) == ["first"]
    assert names(graph.consumers(node)) == ["act", "sum"]
    assert names(graph.consumers(graph.node("first"))) == ["squashed"]
    squashed, act, total, second = inside(graph, "squashed_output", "act_output", "sum_output", "second_output")
    assert_tanh(squashed, inside(small(), "first_output")[0])
    assert_equal([act, total], [np.maximum(squashed, 0), second + squashed])


def test_a_node_inserted_after_a_graph_output_becomes_the_output() -> None:
    graph = small()
    product, part = run(graph)
    graph.insert_after(graph.node("product"), "tanh", "squashed")
    assert graph.output_names == ["squashed", "parts"]
    squashed, same = run(graph)
    assert_tanh(squashed, product)
    assert_equal([same], [part])


def test_only_readers_of_the_output_read_the_inserted_node() -> None:
    graph = small()
    graph.insert_after(graph.output("parts:1"), "negative", "negated")
    product, part = run(small())
    assert [str(entry) for entry in graph.node("product").inputs] == ["parts", "negated"]
    assert_equal(run(graph), [-product, -part])


def test_an_inserted_operator_may_read_what_depends_on_the_output() -> None:
    """A residual connection: what it adds still reads the output itself, else there was a cycle."""
    graph = small()
    graph.insert_after(graph.node("first"), "elemwise_add", "residual", inputs=[graph.node("act")])
    assert names(graph.consumers(graph.node("first"))) == ["act", "residual"]
    assert names(graph.consumers(graph.node("residual"))) == ["sum"]
    first, act, residual = inside(graph, "first_output", "act_output", "residual_output")
    assert_equal([residual], [first + act])


def test_an_edited_graph_is_what_mxnet_would_have_written() -> None:
    graph = small()
    graph.insert_after(graph.node("product"), "tanh", "squashed")
    graph.set_outputs([graph.node("squashed")])
    graph.cleanup()
    symbol: Any = load(small().to_json())
    assert graph.to_json() == mx.sym.tanh(symbol[0], name="squashed").tojson()


# Rewiring


def test_rewiring_changes_all_readers_and_the_outputs() -> None:
    graph = small()
    graph.rewire(graph.output("parts:1"), graph.output("parts:0"))
    assert [str(output) for output in graph.outputs] == ["product", "parts"]
    part = inside(small(), "parts_output0")[0]
    assert_equal(run(graph), [part * part, part])


def test_a_node_can_be_made_to_read_others() -> None:
    graph = small()
    graph.set_inputs(graph.node("sum"), [graph.node("act"), graph.output("act")])
    act = inside(small(), "act_output")[0]
    assert_equal(inside(graph, "sum_output"), [act + act])


def test_an_operator_without_inputs_can_be_given_some() -> None:
    zeros = '{"op": "_zeros", "name": "zeros", "attrs": {"shape": "(2,)"}, "inputs": []}'
    nodes = f'[{{"op": "null", "name": "x", "inputs": []}}, {zeros}]'
    graph = SymbolGraph.parse(f'{{"nodes": {nodes}, "arg_nodes": [0], "heads": [[1, 0, 0]]}}')
    graph.replace(graph.node("zeros"), "tanh")
    graph.set_inputs(graph.node("zeros"), [graph.node("x")])
    assert_tanh(run(graph)[0], random_array("x", (2, 4)))


def test_an_auxiliary_state_stays_one_when_another_variable_takes_its_place() -> None:
    graph = SymbolGraph.parse(mx.sym.BatchNorm(mx.sym.var("x"), name="norm").tojson())
    graph.rewire(graph.node("norm_moving_mean"), graph.add_variable("other_mean"))
    assert [entry.version for entry in graph.node("norm").inputs] == [0, 0, 0, 1, 1]
    assert {node.name for node in graph.cleanup()} == {"norm_moving_mean"}
    symbol: Any = load(graph.to_json())
    assert symbol.list_auxiliary_states() == ["other_mean", "norm_moving_var"]


# Replacing, removing


def test_an_operator_is_replaced_under_its_name() -> None:
    graph = small()
    graph.replace(graph.node("act"), "Activation", {"act_type": "tanh"})
    first, act = inside(graph, "first_output", "act_output")
    assert_tanh(act, first)
    graph.replace(graph.node("act"), "negative")
    assert graph.node("act").attrs == {}
    assert_equal(inside(graph, "act_output"), [-first])


def test_a_replaced_operator_loses_its_subgraph() -> None:
    path = next(path for path in FILES if label(path) == "mxnet-1.9.1/multi")
    graph = SymbolGraph.load(path)
    loop = graph.find(op="_foreach")[0]
    assert '"subgraphs"' in graph.to_json()
    graph.replace(loop, "Concat", {"num_args": "3", "dim": "0"}, num_outputs=2)
    assert '"subgraphs"' not in graph.to_json()
    with refused(graph, ModelError, "there is no output _foreach0:1"):
        graph.replace(loop, "_foreach", num_outputs=1)


def test_a_node_in_the_middle_is_bypassed() -> None:
    graph = small()
    graph.remove(graph.node("drop"), bypass=True)
    assert names(graph.nodes) == [name for name in NAMES if name != "drop"]
    assert names(graph.producers(graph.node("second"))) == ["act", "second_weight"]
    assert_equal(run(graph), run(small()))


def test_the_graph_ends_in_the_input_of_an_output_that_is_bypassed() -> None:
    graph = small()
    graph.remove(graph.node("product"), bypass=True)
    assert [str(output) for output in graph.outputs] == ["parts", "parts:1"]
    graph.add("tanh", "unread", [graph.node("x")])
    graph.remove(graph.node("unread"))
    assert "unread" not in names(graph.nodes)


# Names and attributes


def test_names_can_be_swapped() -> None:
    graph = small()
    graph.rename({"first": "second", "second": "first", "x": "data"})
    assert [graph.node(name).attrs.get("no_bias") for name in ("first", "second")] == ["True", None]
    x = random_array("x", SHAPES["x"])
    assert_equal(run(graph, data=x), run(small()))


def test_an_attribute_is_set_and_removed_in_the_order_of_mxnet() -> None:
    graph = small()
    dense = graph.node("first")
    graph.set_attribute(dense, "flatten", "False")
    graph.set_attribute(dense, "no_bias", "False")
    assert list(dense.attrs) == ["flatten", "no_bias", "num_hidden"]
    symbol: Any = load(graph.to_json())
    assert symbol.tojson() == graph.to_json()
    for key in ("flatten", "no_bias", "never there"):
        graph.set_attribute(dense, key, None)
    assert graph.to_json() == small().to_json()


# Outputs, cutting, joining


def test_the_graph_ends_in_the_outputs_that_are_set() -> None:
    graph = small()
    graph.set_outputs([graph.output("parts:1"), graph.node("act"), graph.node("x"), graph.node("act")])
    assert graph.output_names == ["parts", "act", "x", "act"]
    act = inside(small(), "act_output")[0]
    assert_equal(run(graph), [run(small())[1], act, random_array("x", SHAPES["x"]), act])


def test_a_tensor_that_was_cut_is_an_input_that_gives_the_old_output() -> None:
    graph = small()
    act = inside(graph, "act_output")[0]
    variable = graph.cut(graph.node("act"), "features", {"__shape__": "(2, 4)"})
    assert variable.is_variable
    assert graph.node("drop").inputs == (Output(variable),)
    assert names(graph.cleanup()) == ["act"]
    assert_equal(run(graph, features=act), run(small()))
    assert inside(small(), "sum_output")[0].shape == (2, 4)


def test_nodes_upstream_of_a_cut_are_removed() -> None:
    graph = small()
    total = inside(graph, "sum_output")[0]
    graph.cut(graph.node("sum"), "total")
    assert set(names(graph.cleanup())) == set(NAMES) - {"parts", "product"}
    assert names(graph.nodes) == ["total", "parts", "product"]
    assert_equal(run(graph, total=total), run(small()))


def test_merging_attaches_a_head_to_a_body() -> None:
    graph = small()
    head = mx.sym.FullyConnected(mx.sym.var("features"), num_hidden=3, name="head")
    head = mx.sym.Group([head, mx.sym.broadcast_add(head, mx.sym.sum(mx.sym.var("x"), name="all"), name="more")])
    other = SymbolGraph.parse(head.tojson())
    outputs = graph.merge(other, {"features": graph.node("sum")})
    assert [str(output) for output in outputs] == ["head", "more"]
    assert graph.output_names == ["product", "parts"]
    graph.set_outputs(outputs)
    assert graph.variables == [*VARIABLES, "head_weight", "head_bias"]
    alone = compute(
        head.tojson(),
        {**random_values(graph.to_json(), SHAPES), "features": inside(small(), "sum_output")[0]},
    )
    assert_equal(run(graph), alone)
    assert other.to_json() == head.tojson()


def test_a_merged_graph_may_end_in_its_input() -> None:
    graph = small()
    other = SymbolGraph.parse(mx.sym.Group([mx.sym.var("y"), mx.sym.tanh(mx.sym.var("x"), name="t")]).tojson())
    assert [str(output) for output in graph.merge(other, {"y": graph.output("parts:1")})] == ["parts:1", "t"]
    assert graph.producers(graph.node("t")) == [graph.node("x")]


# What is refused

Edit = Callable[[SymbolGraph], object]


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda g: g.add("tanh", "sum", [g.node("x")]), r"^the name 'sum' is taken$"),
        (lambda g: g.add_variable("sum"), r"^the name 'sum' is taken$"),
        (lambda g: g.insert_after(g.node("x"), "tanh", "sum"), r"^the name 'sum' is taken$"),
        (lambda g: g.cut(g.node("act"), "x"), r"^the name 'x' is taken$"),
        (lambda g: g.rename({"act": "x"}), r"^act can't be renamed to x: another node has that name$"),
        (lambda g: g.rename({"act": "new", "drop": "new"}), r"can't be renamed to new: another node has that name$"),
        (lambda g: g.rename({"act": ""}), r"^act needs a name$"),
        (lambda g: g.rename({"x": "new", "frist": "a"}), r"^no node is named 'frist'; did you mean first"),
        (lambda g: g.node("zzz"), r"^no node is named 'zzz'$"),
        (lambda g: g.output("act:1"), r"^there is no act:1: the outputs of act are 0 to 0$"),
        (lambda g: g.output("drop:²"), r"^no node is named 'drop:²'; did you mean drop"),
        (lambda g: g.remove(g.node("first")), r"^first is read by act, sum: it can't be removed$"),
        (lambda g: g.remove(g.node("x")), r"^x is read by first: it can't be removed$"),
        (lambda g: g.remove(g.node("product")), r"^product is read by the graph's outputs: it can't be removed$"),
        (lambda g: g.remove(g.node("x"), bypass=True), r"^x has no input that could be read instead of it$"),
        (lambda g: g.merge(small(), {"y": g.node("x")}), r"^no node is named 'y'$"),
        (lambda g: g.merge(small(), {}), r"^both graphs have a node 'first': rename it in one of them$"),
        (
            lambda g: g.merge(small(), {"first": g.node("x")}),
            r"^first is a FullyConnected: only a variable can be",
        ),
    ],
)
def test_an_edit_of_a_wrong_name_is_refused(edit: Edit, why: str) -> None:
    graph = small()
    with refused(graph, UsageError, why):
        edit(graph)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda g: g.rewire(g.node("first"), g.node("sum")), "would depend on itself$"),
        (lambda g: g.set_inputs(g.node("act"), [g.node("product")]), "would depend on itself$"),
        (lambda g: g.set_inputs(g.node("act"), [g.node("act")]), "would depend on itself$"),
        (lambda g: g.set_inputs(g.node("x"), [g.node("first_bias")]), "node 'x': a variable with inputs$"),
        (lambda g: g.replace(g.node("parts"), "tanh"), r"node 'product': there is no output parts:1$"),
        (lambda g: g.replace(g.node("act"), VARIABLE), "node 'act': a variable with inputs$"),
        (lambda g: g.replace(g.node("act"), "tanh", num_outputs=0), "node 'act': a tanh with 0 outputs$"),
        (lambda g: g.replace(g.node("x"), VARIABLE, num_outputs=2), "node 'x': a null with 2 outputs$"),
        (lambda g: g.replace(g.node("act"), "clip", {"a_min": 0}), "attribute a_min is 0, a string is needed$"),
        (lambda g: g.set_attribute(g.node("act"), "p", 0.5), "attribute p is 0.5, a string is needed$"),
        (lambda g: g.add("tanh", "", [g.node("x")]), "a tanh has no name$"),
        (lambda g: g.set_outputs([]), "no outputs$"),
    ],
)
def test_an_edit_that_would_corrupt_the_graph_is_refused(edit: Edit, why: str) -> None:
    graph = small()
    with refused(graph, ModelError, why):
        edit(graph)


@pytest.mark.parametrize(
    "edit",
    [
        lambda g, n: g.add("tanh", "t", [n]),
        lambda g, n: g.insert_after(n, "tanh", "t"),
        lambda g, n: g.insert_after(g.node("x"), "elemwise_add", "t", inputs=[n]),
        lambda g, n: g.rewire(n, g.node("x")),
        lambda g, n: g.rewire(g.node("x"), n),
        lambda g, n: g.set_inputs(g.node("act"), [n]),
        lambda g, n: g.set_outputs([n]),
        lambda g, n: g.cut(n, "t"),
        lambda g, n: g.merge(SymbolGraph.parse(mx.sym.tanh(mx.sym.var("y"), name="t").tojson()), {"y": n}),
    ],
)
@pytest.mark.parametrize(
    ("name", "index", "why"),
    [
        (None, 0, r"^act is not a node of this graph$"),
        ("act", 1, r"^there is no act:1: the outputs of act are 0 to 0$"),
        ("parts", 2, r"^there is no parts:2: the outputs of parts are 0 to 1$"),
        ("parts", -1, r"^there is no parts:-1: the outputs of parts are 0 to 1$"),
    ],
)
def test_an_unknown_output_is_refused(
    edit: Callable[[SymbolGraph, Output], object], name: str | None, index: int, why: str
) -> None:
    graph, other = small(), small()
    with refused(graph, UsageError, why):
        edit(graph, Output(graph.node(name) if name else other.node("act"), index))
    assert other.to_json() == small().to_json()


@pytest.mark.parametrize(
    "edit",
    [
        lambda g, n: g.set_inputs(n, [g.node("x")]),
        lambda g, n: g.replace(n, "tanh"),
        lambda g, n: g.remove(n),
        lambda g, n: g.remove(n, bypass=True),
        lambda g, n: g.set_attribute(n, "__note__", "a"),
    ],
)
def test_a_node_of_another_graph_is_not_edited(edit: Callable[[SymbolGraph, Node], object]) -> None:
    graph, other = small(), small()
    with refused(graph, UsageError, r"^act is not a node of this graph$"):
        edit(graph, other.node("act"))
    assert other.to_json() == small().to_json()


def test_a_refused_edit_is_rolled_back() -> None:
    """The first nodes of the other graph are joined already when the name that is taken is met."""
    graph = small()
    other = SymbolGraph.parse(mx.sym.tanh(mx.sym.exp(mx.sym.var("y"), name="e"), name="sum").tojson())
    with refused(graph, UsageError, "both graphs have a node 'sum'"):
        graph.merge(other, {})
    assert "e" not in names(graph.nodes)
