"""Looking at a graph, ordering it, and dropping what no output needs, compared with what mxnet does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from symbol_values import FILES, label, load

from bertsym import ModelError, UsageError
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.validation import check_symbol


def graph_of(name: str) -> SymbolGraph:
    return SymbolGraph.load(next(path for path in FILES if label(path) == name))


def diamond() -> SymbolGraph:
    """x -> a -> b and c -> d, and e that only x leads to."""
    x = mx.sym.var("x")
    a = mx.sym.exp(x, name="a")
    d = mx.sym.elemwise_add(mx.sym.tanh(a, name="b"), mx.sym.negative(a, name="c"), name="d")
    return SymbolGraph.parse(mx.sym.Group([d, mx.sym.tanh(x, name="e")]).tojson())


def names(nodes: list[Node]) -> list[str]:
    return [node.name for node in nodes]


# Finding


def test_nodes_are_found_by_operator_pattern_and_name() -> None:
    graph = graph_of("mxnet-1.9.1/ssd")
    assert names(graph.find(op="Pooling")) == ["pool1"]
    assert names(graph.find("scale?_boxes")) == ["scale1_boxes", "scale2_boxes"]
    assert names(graph.find("*_norm", op="BatchNorm")) == ["body1_norm", "scale1_norm", "scale2_norm"]
    assert names(graph.find("scale[12]_norm_gamma")) == ["scale1_norm_gamma", "scale2_norm_gamma"]
    assert graph.find("SCALE*") == graph.find("scale1_norm", op="Pooling") == []
    assert graph.find() == graph.nodes


def test_a_name_that_looks_like_a_pattern_is_found_as_a_name() -> None:
    graph = SymbolGraph.parse(mx.sym.exp(mx.sym.var("x[0]"), name="e*").tojson())
    assert names(graph.find("x[0]")) == ["x[0]"]
    assert names(graph.find("e*")) == ["e*"]


@pytest.mark.parametrize(
    ("text", "name", "index"),
    [
        ("target", "target", 0),
        ("target:0", "target", 0),
        ("target:2", "target", 2),
        ("found_output", "found", 0),
        ("found_output:0", "found", 0),
        ("label", "label", 0),
    ],
)
def test_an_output_is_named_by_node_and_number(text: str, name: str, index: int) -> None:
    graph = graph_of("mxnet-1.9.1/ssd")
    assert graph.output(text) == Output(graph.node(name), index)


def test_an_exact_name_takes_precedence_over_other_references() -> None:
    x = mx.sym.var("x")
    group = mx.sym.Group([mx.sym.exp(x, name="e"), mx.sym.exp(x, name="e:0"), mx.sym.exp(x, name="e_output")])
    graph = SymbolGraph.parse(group.tojson())
    assert [graph.output(text).node.name for text in ("e", "e:0", "e_output")] == ["e", "e:0", "e_output"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("target:3", "^there is no target:3: the outputs of target are 0 to 2$"),
        ("label:1", "^there is no label:1: the outputs of label are 0 to 0$"),
        ("targte:1", "^no node is named 'targte'; did you mean target"),
        ("target:-1", "^no node is named 'target:-1'; did you mean target"),
        ("target:x", "^no node is named 'target:x'; did you mean target"),
        ("nothing like it", "^no node is named 'nothing like it'$"),
        ("", "^no node is named ''$"),
    ],
)
def test_an_unknown_output_is_refused_with_suggestions(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        graph_of("mxnet-1.9.1/ssd").output(text)


def test_every_output_that_mxnet_counts_is_there() -> None:
    graph = graph_of("mxnet-1.9.1/ssd")
    assert {node.name: node.num_outputs for node in graph.find("*") if node.num_outputs > 1} == {
        **dict.fromkeys(["body1_norm", "scale1_norm", "scale2_norm"], 3),
        "pool1": 2,
        "target": 3,
    }


# Neighbours


def test_consumers_and_producers() -> None:
    graph = diamond()
    assert names(graph.consumers(graph.node("a"))) == ["b", "c"]
    assert names(graph.consumers(graph.node("x"))) == ["a", "e"]
    assert graph.consumers(graph.node("d")) == graph.producers(graph.node("x")) == []
    assert names(graph.producers(graph.node("d"))) == ["b", "c"]
    twice = graph.add("elemwise_mul", "square", [graph.node("d"), graph.node("d")])
    assert names(graph.producers(twice)) == ["d"]


def test_consumers_of_one_output_of_several() -> None:
    graph = graph_of("mxnet-1.9.1/ssd")
    target = graph.node("target")
    assert names(graph.consumers(Output(target, 2))) == ["chances", "classes"]
    assert len(graph.consumers(target)) == 4


def test_ancestors_and_descendants_of_a_node() -> None:
    graph = diamond()

    def of(*wanted: str) -> set[Node]:
        return {graph.node(name) for name in wanted}

    assert graph.ancestors(graph.node("b")) == of("x", "a", "b")
    assert graph.ancestors(graph.node("b"), graph.node("e")) == of("x", "a", "b", "e")
    assert graph.descendants(graph.node("a")) == of("a", "b", "c", "d")
    assert graph.descendants(graph.node("b"), graph.node("e")) == of("b", "d", "e")
    assert names(graph.between(graph.node("a"), graph.node("d"))) == ["a", "b", "c", "d"]
    assert names(graph.between(graph.node("a"), graph.node("a"))) == ["a"]
    assert graph.between(graph.node("d"), graph.node("a")) == graph.between(graph.node("b"), graph.node("e")) == []


def test_operators_that_are_not_expected_are_refused() -> None:
    graph = diamond()
    check_symbol(graph, "it", {"exp", "tanh", "negative", "elemwise_add"})
    with pytest.raises(ModelError, match=r"^it: node 'c' has the operator 'negative', which is not expected$"):
        check_symbol(graph, "it", {"exp", "tanh", "elemwise_add"})


# Copies


def test_a_copy_is_edited_for_itself() -> None:
    graph = diamond()
    text = graph.to_json()
    copy = graph.copy()
    assert not {*copy.nodes} & {*graph.nodes}
    assert copy.ancestors(*copy.nodes) == {*copy.nodes}
    copy.insert_after(copy.node("a"), "tanh", "new")
    copy.rename({"x": "y"})
    copy.set_attribute(copy.node("y"), "__note__", "b")
    copy.set_outputs([copy.node("b")])
    copy.cleanup()
    assert graph.to_json() == text


# Order and cleanup


def internals(path: Path) -> Iterator[tuple[str, int, str]]:
    """Every output of every node that has a name for itself: node, index, and the JSON of what it needs."""
    symbol: Any = load(path.read_text())
    every = symbol.get_internals()
    counts = names(SymbolGraph.load(path).nodes)
    for i in range(len(every.list_outputs())):
        text = every[i].tojson()
        document = json.loads(text)
        node, index, _ = document["heads"][0]
        name = document["nodes"][node]["name"]
        if counts.count(name) == 1:
            yield name, index, text


@pytest.mark.parametrize(
    # Not numpy_shape: of what it loads, mxnet forgets that.
    "path",
    [path for path in FILES if path.parent.name == "mxnet-1.9.1" and path.stem not in ("resnet50", "numpy_shape")]
    + [path for path in FILES if label(path) == "gluonnlp-0.10.0/pretraining-symbol"],
    ids=label,
)
def test_cleanup_keeps_what_mxnet_finds_upstream_of_an_internal_output(path: Path) -> None:
    for name, index, text in internals(path):
        graph = SymbolGraph.load(path)
        before = list(graph.nodes)
        graph.set_outputs([Output(graph.node(name), index)])
        dropped = graph.cleanup()
        assert [node for node in before if node not in dropped] == graph.nodes
        graph.toposort()
        assert graph.to_json() == text


def test_cleanup_of_a_graph_that_needs_all_drops_nothing() -> None:
    graph = diamond()
    assert graph.cleanup() == []
    assert graph.to_json() == diamond().to_json()


def test_nodes_that_no_output_needs_come_last() -> None:
    graph = diamond()
    graph.set_outputs([graph.node("e"), graph.node("b")])
    graph.toposort()
    assert names(graph.nodes) == ["x", "e", "a", "b", "c", "d"]
    assert names(graph.cleanup()) == ["c", "d"]


def test_a_cycle_can_t_be_ordered_and_is_named() -> None:
    graph = diamond()
    graph.node("a").inputs = (Output(graph.node("d")),)
    before = list(graph.nodes)
    with pytest.raises(ModelError, match=r"^node '[abcd]' would depend on itself$"):
        graph.toposort()
    assert graph.nodes == before
    with pytest.raises(ModelError, match="node 'a': reads d, which does not come before it"):
        graph.check()


def test_a_node_that_is_not_in_the_list_can_t_be_ordered() -> None:
    graph = diamond()
    graph.nodes.remove(graph.node("a"))
    with pytest.raises(ModelError, match=r"^node '[bc]' reads a, which is not in this graph$"):
        graph.toposort()


def test_a_graph_that_is_deeper_than_python_s_stack_is_ordered_and_edited() -> None:
    graph = diamond()
    last = graph.node("d")
    chain = [Node("negative", f"n{i}") for i in range(5000)]
    for node, before in zip(chain, [last, *chain]):
        node.inputs = (Output(before),)
    graph = SymbolGraph([*reversed(chain), *graph.nodes], [Output(chain[-1])])
    graph.toposort()
    graph.check()
    assert names(graph.cleanup()) == ["e"]
    assert len(graph.ancestors(chain[-1])) == len(graph.nodes) == 5005
    assert SymbolGraph.parse(graph.copy().to_json()).output_names == ["n4999"]
