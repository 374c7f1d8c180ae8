"""The BERT in a graph: found by what it computes, whatever its nodes are named; and not where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifier_cases import NETS, SYMBOLS, UNITS, ask, classified

from bertsym import BertConfig, output_symbol
from bertsym.analysis.detected_encoder import DetectedEncoder, DetectedForm
from bertsym.analysis.encoder_detection import detect_encoder
from bertsym.analysis.token_flow import trace_tokens
from bertsym.execution.values import tensor_values
from bertsym.mxnet_runtime import mx
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.params import ParamsFile

Shapes = dict[str, tuple[int, ...]]
FIXTURES = sorted(SYMBOLS.glob("gluonnlp-*/*-symbol.json"))
FIXTURE_NAMES = [f"{path.parent.name}/{path.name.removesuffix('-symbol.json')}" for path in FIXTURES]
OUTPUTS = ("cls", "pooled", "mean", "sequence")


def shapes_beside(path: Path) -> Shapes:
    """Shapes of the weights that a fixture's symbol reads."""
    read = SymbolGraph.load(path).variables
    return {
        name: shape for name, shape in ParamsFile(path.parent / "weights-0000.params").shapes.items() if name in read
    }


def ours(output: str = "sequence", **changes: int) -> tuple[SymbolGraph, BertConfig]:
    sizes: dict[str, Any] = {"num_layers": 2, "units": 8, "hidden_size": 16, "num_heads": 2, "vocab_size": 50}
    config = BertConfig(**{**sizes, "max_length": 12, **changes})
    return SymbolGraph.parse(output_symbol(config, output).tojson()), config


def found(graph: SymbolGraph, shapes: Shapes | None = None) -> DetectedEncoder:
    encoder = detect_encoder(graph, shapes)
    assert encoder is not None
    return encoder


def numbers(encoder: DetectedEncoder) -> tuple[object, ...]:
    """The detected facts of a BERT, without names."""
    sizes = (
        len(encoder.layers),
        encoder.units,
        encoder.num_heads,
        encoder.hidden_size,
        encoder.vocab_size,
        encoder.max_length,
    )
    return (*sizes, encoder.token_type_vocab_size, encoder.length, encoder.layer_norm_eps, encoder.form)


def without_names(graph: SymbolGraph, shapes: Shapes) -> tuple[SymbolGraph, Shapes, dict[str, str]]:
    """The same graph with nodes n0, n1, ...; its shapes; and the new names."""
    names = {node.name: f"n{i}" for i, node in enumerate(graph.nodes)}
    graph = graph.copy()
    graph.rename(names)
    return graph, {names[name]: shape for name, shape in shapes.items()}, names


# What GluonNLP wrote


@pytest.mark.parametrize("path", FIXTURES, ids=FIXTURE_NAMES)
def test_gluonnlp_s_encoders_have_their_numbers(path: Path) -> None:
    encoder = found(SymbolGraph.load(path), shapes_beside(path))
    kind = path.name.removesuffix("-symbol.json")
    assert (len(encoder.layers), encoder.units, encoder.num_heads, encoder.hidden_size) == (2, 16, 4, 32)
    assert (encoder.vocab_size, encoder.max_length) == (50, 24)
    assert encoder.layer_norm_eps == (1e-5 if kind == "relu" else 1e-12)
    reads = json.loads((path.parent / "expected.json").read_text())[kind]["reads"]
    roles = {role: name for name, role in reads.items()}
    assert encoder.token_ids == roles["words"]
    assert encoder.token_types == roles.get("types")
    assert encoder.valid_length == roles.get("valid_length")
    assert encoder.token_type_vocab_size == (2 if "types" in roles else None)


@pytest.mark.parametrize("path", FIXTURES, ids=FIXTURE_NAMES)
def test_only_the_static_berts_take_one_length(path: Path) -> None:
    static = path.parent.name in ("gluonnlp-0.6.0", "gluonnlp-0.7.1") or path.name.startswith("static")
    assert found(SymbolGraph.load(path)).length == (8 if static else None)


@pytest.mark.parametrize("path", FIXTURES, ids=FIXTURE_NAMES)
def test_the_form_is_that_of_the_attention(path: Path) -> None:
    interleaved = path.parent.name in ("gluonnlp-0.9.2", "gluonnlp-0.10.0")
    assert found(SymbolGraph.load(path)).form == DetectedForm("gluonnlp", is_interleaved=interleaved)


@pytest.mark.parametrize("path", FIXTURES, ids=FIXTURE_NAMES)
def test_names_do_not_matter(path: Path) -> None:
    graph, shapes = SymbolGraph.load(path), shapes_beside(path)
    encoder = found(graph, shapes)
    renamed, new_shapes, names = without_names(graph, shapes)
    other = found(renamed, new_shapes)
    assert numbers(other) == numbers(encoder)
    for role in ("token_ids", "token_types", "valid_length"):
        name = getattr(encoder, role)
        assert getattr(other, role) == (None if name is None else names[name])
    assert str(other.output) == names[str(encoder.output)]


@pytest.mark.parametrize("path", [path for path in FIXTURES if path.name.startswith("sequence")], ids=str)
def test_the_output_of_the_encoder_is_that_of_gluonnlp(path: Path) -> None:
    graph = SymbolGraph.load(path)
    params = ParamsFile(path.parent / "weights-0000.params")
    encoder = found(graph, params.shapes)
    expected = json.loads((path.parent / "expected.json").read_text())[path.name.removesuffix("-symbol.json")]
    inputs = {name: np.array(values, np.float32) for name, values in expected["inputs"].items()}
    (encoded,) = tensor_values(graph, params, inputs, [encoder.output], where="the test")
    if trace_tokens(graph, encoder, params)[encoder.output].axes == ("T", "N", 16):
        encoded = encoded.swapaxes(0, 1)
    lengths = expected["inputs"].get("data2", [8, 8])
    for row, (length, wanted) in enumerate(zip(lengths, expected["outputs"][0])):
        np.testing.assert_allclose(encoded[row, :length], np.array(wanted)[:length], atol=2e-5)


# What bertsym writes


@pytest.mark.parametrize("output", OUTPUTS)
def test_our_encoders_have_their_numbers(output: str) -> None:
    graph, config = ours(output)
    encoder = found(graph)
    assert (len(encoder.layers), encoder.units, encoder.num_heads, encoder.hidden_size) == (2, 8, 2, 16)
    assert (encoder.vocab_size, encoder.max_length, encoder.token_type_vocab_size, encoder.length) == (50, 12, 2, None)
    assert (encoder.token_ids, encoder.token_types, encoder.valid_length) == ("data0", "data1", "data2")
    assert (encoder.form.name, encoder.layer_norm_eps) == ("portable", config.layer_norm_eps)
    assert str(encoder) == "BERT of 2 layers, 8 units, 2 heads, vocabulary 50, max length 12"


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 1},
        {"num_layers": 5},
        {"num_heads": 1},
        {"num_heads": 8},
        {"hidden_size": 8},
        {"vocab_size": 6, "max_length": 40},
        {"max_length": 50},
        {"token_type_vocab_size": 1},
    ],
    ids=str,
)
def test_sizes_are_formatted(changes: dict[str, int]) -> None:
    graph, config = ours("sequence", **changes)
    encoder = found(graph)
    assert (len(encoder.layers), encoder.num_heads, encoder.hidden_size) == (
        config.num_layers,
        config.num_heads,
        config.hidden_size,
    )
    assert (encoder.vocab_size, encoder.max_length) == (config.vocab_size, config.max_length)
    assert encoder.token_type_vocab_size == config.token_type_vocab_size
    assert str(encoder).startswith(f"BERT of {config.num_layers} layer{'s' if config.num_layers > 1 else ''}, ")


@pytest.mark.parametrize("output", OUTPUTS)
def test_names_do_not_matter_to_ours_either(output: str) -> None:
    graph, _ = ours(output)
    renamed, _, names = without_names(graph, {})
    other = found(renamed)
    assert numbers(other) == numbers(found(graph))
    assert (other.token_ids, other.token_types, other.valid_length) == (names["data0"], names["data1"], names["data2"])


def test_inputs_that_carry_their_shapes_are_still_inputs() -> None:
    graph, _ = ours()
    for name, shape in (("data0", "(2, 8)"), ("data1", "(2, 8)"), ("data2", "(2,)")):
        graph.set_attribute(graph.node(name), "__shape__", shape)
    encoder = found(graph)
    assert (encoder.token_ids, encoder.token_types, encoder.valid_length) == ("data0", "data1", "data2")


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_layers_divide_the_encoder_among_them(output: str) -> None:
    graph, _ = ours(output, num_layers=3)
    encoder = found(graph)
    seen: set[Node] = set(encoder.embedding_nodes)
    for layer in encoder.layers:
        assert not seen & layer.nodes
        seen |= layer.nodes
        assert [node.op for node in graph.nodes if node in layer.nodes].count("FullyConnected") == 6
        assert layer.softmax in layer.nodes
        assert layer.output.node in layer.nodes
    inside = {node for node in graph.ancestors(encoder.output.node) if not node.is_variable}
    assert inside == {node for node in seen if not node.is_variable}


# Whether the batch or the time comes first


def test_the_layout_is_found_in_the_graph() -> None:
    for name, axes in (("ours", ("N", "T", UNITS)), ("gluonnlp", ("T", "N", UNITS))):
        subject = ask(classified(NETS[name]().sequence))
        assert trace_tokens(subject.graph, subject.encoder)[subject.encoder.output].axes == axes


def test_exchanged_token_ids_leave_the_encoder_as_it_is() -> None:
    symbol = NETS["ours"]().sequence
    exchanged = {name: mx.sym.swapaxes(mx.sym.var(f"time_{name}"), dim1=0, dim2=1) for name in ("data0", "data1")}
    graph = SymbolGraph.parse(symbol(**exchanged).tojson())
    encoder = found(graph)
    assert (encoder.token_ids, encoder.token_types) == ("time_data0", "time_data1")
    assert trace_tokens(graph, encoder)[encoder.output].axes == ("N", "T", UNITS)


# Graphs that are not a BERT


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SYMBOLS.glob("mxnet-*/*.json")) if path.name != "README.md"],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_other_networks_have_no_bert(path: Path) -> None:
    assert detect_encoder(SymbolGraph.load(path)) is None


def residual(graph: SymbolGraph, layer: int) -> None:
    addition = graph.node(f"bertencoder0_transformer{layer}_proj_residual")
    graph.rewire(Output(addition), addition.inputs[0])


def attention(graph: SymbolGraph, layer: int) -> None:
    graph.replace(graph.node(f"bertencoder0_transformer{layer}_attention"), "_copy")


def norm(graph: SymbolGraph, layer: int) -> None:
    node = graph.node(f"bertencoder0_transformer{layer}_layernorm0_fwd")
    graph.rewire(Output(node), node.inputs[0])


@pytest.mark.parametrize("corrupt", [residual, attention, norm])
def test_the_encoder_ends_before_a_subgraph_that_is_not_a_layer(corrupt: Callable[[SymbolGraph, int], None]) -> None:
    for layer in (0, 1, 2):
        graph, _ = ours(num_layers=3)
        corrupt(graph, layer)
        graph.cleanup()
        encoder = detect_encoder(graph)
        assert (0 if encoder is None else len(encoder.layers)) == layer


def test_a_graph_without_layer_norm_is_not_a_bert() -> None:
    graph, _ = ours()
    for node in graph.find(op="LayerNorm"):
        graph.rewire(Output(node), node.inputs[0])
    graph.cleanup()
    assert detect_encoder(graph) is None


def test_embeddings_alone_are_not_a_bert() -> None:
    graph, _ = ours()
    graph.set_outputs([graph.node("bertencoder0_embed_dropout")])
    graph.cleanup()
    assert detect_encoder(graph) is None


def test_layers_without_a_token_embedding_are_not_a_bert() -> None:
    graph, _ = ours()
    graph.cut(graph.node("bertencoder0_embed_dropout"), "embeddings")
    graph.cleanup()
    assert detect_encoder(graph) is None
