"""Pictures for tests: a small BERT, and chains of operators with any names."""

from __future__ import annotations

from bertsym import BertConfig, graft, output_symbol
from bertsym.drawing.picture import Group, Picture, Shape
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

LAYERS = 5
HOSTILE = (
    "</script><script>alert(1)</script>",
    'a "quoted" \\N \\G name',
    "a&amp;b<i>'",
    "two\nlines\t\x07",
    "{{data}}",
    "日本",
)


def bert_picture() -> Picture:
    """A small BERT with a classifier on [CLS], ready for training."""
    symbol = graft(output_symbol(BertConfig(LAYERS, 8, 16, 2, 30), "cls"), 3)
    graph = SymbolGraph.parse(symbol.tojson())
    groups = []
    for number in range(LAYERS):
        nodes = frozenset(graph.find(f"bertencoder0_transformer{number}_*"))
        groups.append(Group(number, f"layer {number}", "attention of 2 heads", nodes))
    inputs = {"data0", "data1", "data2", "softmax_label"}
    shapes: dict[Output, Shape] = {Output(graph.node("data0")): ("N", "T"), Output(graph.node("cls")): ("N", 8)}
    shapes.update((Output(node), ("N", "T", 8)) for node in graph.find("bertencoder0_transformer*_layernorm0_fwd"))
    return Picture(
        title="A small BERT",
        sentence="`fc-finetune` reads `cls` = [CLS]",
        graph=graph,
        groups=tuple(groups),
        shapes=shapes,
        highlighted=frozenset({graph.node("cls_slice"), graph.node("cls")}),
        path=frozenset(graph.between(graph.node("bertmodel0_word_embed"), graph.node("softmax"))),
        parameters=frozenset(set(graph.variables) - inputs),
    )


def plain_picture(*names: str) -> Picture:
    """A chain of operators of these names, with a weight each; nothing is known about it."""
    nodes = [Node("null", "data")]
    for name in names:
        weight = Node("null", f"{name}_weight", {"__shape__": "(4, 2)"})
        dense = Node("FullyConnected", name, {"num_hidden": "4", "note": name}, (Output(nodes[-1]), Output(weight)))
        nodes += [weight, dense]
    graph = SymbolGraph(nodes, [Output(nodes[-1])])
    graph.check()
    return Picture("plain", graph=graph, parameters=frozenset(f"{name}_weight" for name in names))
