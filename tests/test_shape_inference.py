"""The shapes of a bundle's tensors without mxnet: those that mxnet infers, or the node at which they don't fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Tables

from bertsym import ModelError, QuantizeOptions, SymbolGraph, output_symbol, quantize
from bertsym.bundle import SYMBOL
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import FORMS, Form
from bertsym.encoders.graph_heads import graft_onto_graph
from bertsym.encoders.inputs import INPUT_NAMES, input_shapes
from bertsym.encoders.parameters import parameter_shapes
from bertsym.execution import tensor_shapes
from bertsym.passes.input_guard import add_input_guard
from bertsym.symbol.shape_inference import Shape, infer_tensor_shapes

CONFIG = BertConfig(num_layers=2, units=8, hidden_size=12, num_heads=2, vocab_size=30, max_length=20)


def check_shapes_equal_mxnets(graph: SymbolGraph, known: dict[str, Shape]) -> None:
    """Each tensor has the shape that mxnet infers; outputs that nothing reads need none."""
    mine, theirs = infer_tensor_shapes(graph, known, "it"), tensor_shapes(graph, known, "it", trusted=True)
    assert {output: shape for output, shape in mine.items() if output in theirs} == theirs


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("output", ["cls", "pooled", "mean", "sequence"])
@pytest.mark.parametrize("form", FORMS)
def test_shapes_are_those_that_mxnet_infers(form: str, output: str, guarded: bool) -> None:
    graph = SymbolGraph.parse(output_symbol(CONFIG, output, Form(form)).tojson())
    if guarded:
        add_input_guard(graph, *INPUT_NAMES)
    graphs = [graph]
    known = {**parameter_shapes(CONFIG), **dict(input_shapes(3, 7))}
    if output != "sequence":
        graphs += graft_onto_graph(graph, graph.outputs[0], "classification", 5, 0.1, CONFIG.units)[:2]
        known.update({"fc-finetune_weight": (5, 8), "fc-finetune_bias": (5,), "softmax_label": (3,)})
    for each in graphs:
        check_shapes_equal_mxnets(each, {name: shape for name, shape in known.items() if name in each.variables})


@pytest.mark.parametrize("granularity", ["channel-wise", "tensor-wise"])
def test_shapes_of_int8_layers_are_those_that_mxnet_infers(
    classifier: Path, tables: Tables, tmp_path: Path, granularity: str
) -> None:
    done = quantize(classifier, tmp_path / "m", tables.train, QuantizeOptions(granularity=granularity, max_drop=1.0))
    graph = SymbolGraph.load(done.bundle.path(SYMBOL))
    check_shapes_equal_mxnets(graph, {**done.bundle.params().shapes, **dict(input_shapes(3, 7))})


def single(op: str, attrs: dict[str, str], shapes: Sequence[Shape]) -> None:
    """Follow the shapes of one operator that reads inputs of these."""
    nodes = [{"op": "null", "name": f"x{i}", "inputs": []} for i in range(len(shapes))]
    node = {"op": op, "name": "node", "attrs": attrs, "inputs": [[i, 0, 0] for i in range(len(shapes))]}
    variables = list(range(len(shapes)))
    document = {"nodes": [*nodes, node], "arg_nodes": variables, "heads": [[len(shapes), 0, 0]]}
    graph = SymbolGraph.parse(json.dumps(document))
    infer_tensor_shapes(graph, {f"x{i}": shape for i, shape in enumerate(shapes)}, "it")


@pytest.mark.parametrize(
    ("op", "attrs", "shapes"),
    [
        ("Reshape", {"shape": "(-1, 5)"}, [(4, 3)]),
        ("Reshape", {"shape": "(0, 1)"}, [(4, 3)]),
        ("Reshape", {"shape": "(0, 0, 4, -1)"}, [(4, 3)]),
        ("Reshape", {"shape": "(0, 0, 0)"}, [(4, 3)]),
        ("Reshape", {"shape": "(-2,)"}, [(4, 3)]),
        ("Reshape", {}, [(4, 3)]),
        ("transpose", {"axes": "(0, 0)"}, [(4, 3)]),
        ("transpose", {"axes": "(0, 2)"}, [(4, 3)]),
        ("where", {}, [(2, 3), (4, 3), (4, 3)]),
        ("where", {}, [(4, 1), (4, 3), (4, 3)]),
        ("_contrib_interleaved_matmul_selfatt_qk", {"heads": "7"}, [(5, 2, 24)]),
        ("_contrib_interleaved_matmul_selfatt_valatt", {"heads": "2"}, [(5, 2, 24), (2, 5, 5)]),
        ("softmax", {"use_length": "True"}, [(4, 3), (3,)]),
        ("softmax", {"use_length": "True"}, [(4, 3)]),
        ("SequenceMask", {"use_sequence_length": "True", "axis": "1"}, [(4, 3), (3,)]),
        ("SequenceMask", {"use_sequence_length": "True"}, [(4, 3)]),
        ("LeakyReLU", {"act_type": "prelu"}, [(4, 3)]),
        ("FullyConnected", {"num_hidden": "5"}, [(4, 3), (5, 4), (5,)]),
        ("FullyConnected", {"num_hidden": "5"}, [(4, 3), (5, 3)]),
        ("Embedding", {"input_dim": "9", "output_dim": "3"}, [(4, 3), (8, 3)]),
        ("LayerNorm", {}, [(4, 3), (4,), (4,)]),
        ("batch_dot", {}, [(2, 4, 3), (2, 4, 3)]),
        ("slice_axis", {"axis": "1", "begin": "0", "end": "4"}, [(4, 3)]),
        ("slice_axis", {"axis": "1", "begin": "2", "end": "1"}, [(4, 3)]),
        ("slice_like", {"axes": "(1,)"}, [(4, 3), (4, 5)]),
        ("broadcast_axis", {"axis": "0", "size": "5"}, [(4, 3)]),
        ("broadcast_add", {}, [(4, 3), (3, 4)]),
        ("elemwise_add", {}, [(4, 3), (4, 1)]),
        ("stack", {"num_args": "2"}, [(4, 3), (4, 4)]),
        ("Concat", {"dim": "0", "num_args": "2"}, [(4, 3), (4, 4)]),
        ("SoftmaxOutput", {}, [(4, 3), (5,)]),
        ("sum", {"axis": "2"}, [(4, 3)]),
        ("_contrib_arange_like", {"axis": "2"}, [(4, 3)]),
        ("scatter_nd", {"shape": "(4,)"}, [(2,), (1, 2)]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(op: str, attrs: dict[str, str], shapes: list[Shape]) -> None:
    with pytest.raises(ModelError) as caught:
        single(op, attrs, shapes)
    assert str(caught.value) == f"it: node 'node': a {op} does not take {' and '.join(map(str, shapes))}"
