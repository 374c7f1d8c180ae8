"""What looks like a BERT and computes something else is refused, in one line that names the node; nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import bundle_bytes, gluonnlp_checkpoint
from conftest import Result
from refusals import refusal
from symbol_values import SYMBOLS
from third_party import CONFIG, Change, checkpoint, save, some_graph

from bertsym import BertConfig, lower
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.encoders.spec import EncoderSpec
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import ParamsFile

Cli = Callable[..., Result]
LAYER = "bertencoder0_transformer1_"


# What a specification says


@pytest.mark.parametrize("form", ["portable", "fast", "gluonnlp"])
@pytest.mark.parametrize("output", ["cls", "sequence"])
def test_our_own_encoder_has_the_specification_that_it_was_written_from(form: str, output: str) -> None:
    config = BertConfig(3, 8, 12, 2, 30, token_type_vocab_size=3, max_length=20, dropout=0.2, attention_dropout=0.3)
    assert match_with_shapes(some_graph(output, form, config)) == EncoderSpec(config)


def match_with_shapes(graph: SymbolGraph) -> EncoderSpec:
    shapes = {
        node.name: tuple(int(size) for size in node.attrs["__shape__"].strip("()").split(",") if size)
        for node in graph.nodes
        if "__shape__" in node.attrs
    }
    return extract_spec(graph, require_encoder(graph, shapes), shapes)


def test_a_spec_without_dropout_adds_no_dropout() -> None:
    config = BertConfig(1, 8, 12, 2, 30, max_length=20, dropout=0.0, attention_dropout=0.0)
    assert match_with_shapes(some_graph(config=config)).config == config


def test_the_specification_has_the_names_of_the_graph() -> None:
    graph = some_graph()
    graph.rename({node.name: f"n{i}" for i, node in enumerate(graph.nodes)})
    spec = match_with_shapes(graph)
    assert spec.config == CONFIG
    assert set(spec.shapes) == set(EncoderSpec(CONFIG).shapes)
    assert {spec.name(parameter) for parameter in spec.shapes} <= set(graph.variables)
    assert len(set(spec.names.values())) == len(spec.shapes)


# What no specification says


def set_eps(graph: SymbolGraph) -> None:
    graph.set_attribute(graph.node(f"{LAYER}layernorm0_fwd"), "eps", "1e-5")


def set_last_eps(graph: SymbolGraph) -> None:
    graph.set_attribute(graph.node(f"{LAYER}positionwiseffn0_layernorm0_fwd"), "eps", "0.01")


def set_axis(graph: SymbolGraph) -> None:
    graph.set_attribute(graph.node(f"{LAYER}layernorm0_fwd"), "axis", "1")


def use_tanh(graph: SymbolGraph) -> None:
    for node in graph.find(op="LeakyReLU"):
        graph.replace(node, "Activation", {"act_type": "tanh"})


def use_no_activation(graph: SymbolGraph) -> None:
    for node in graph.find(op="LeakyReLU"):
        graph.remove(node, bypass=True)


def use_erf_alone(graph: SymbolGraph) -> None:
    """No gelu, but nothing that a gelu is not made of either."""
    for node in graph.find(op="LeakyReLU"):
        graph.replace(node, "erf")


def use_gelu_and_relu(graph: SymbolGraph) -> None:
    graph.replace(graph.node(f"{LAYER}positionwiseffn0_gelu"), "Activation", {"act_type": "relu"})


def add_third_table(graph: SymbolGraph) -> None:
    """As Hugging Face's RoBERTa has one: token types that are always 0."""
    with graph.edit():
        ids = graph.add("zeros_like", "always_zero", [graph.node("data0")])
        table = graph.add_variable("third_weight", {"__shape__": "(1, 8)"})
        rows = graph.add("Embedding", "third", [ids, table], {"input_dim": "1", "output_dim": "8"})
        graph.insert_after(graph.node("bertmodel0_embed"), "elemwise_add", "with_third", inputs=[rows])


def scale_words(graph: SymbolGraph) -> None:
    graph.insert_after(graph.node("bertmodel0_word_embed"), "_mul_scalar", "scaled_words", {"scalar": "2.0"})


def leave_positions_out(graph: SymbolGraph) -> None:
    graph.remove(graph.node("bertencoder0_embed"), bypass=True)


def count_positions_by_ids(graph: SymbolGraph) -> None:
    """As Hugging Face's RoBERTa does: padding has no position of its own."""
    with graph.edit():
        is_token = graph.add("_not_equal_scalar", "is_token", [graph.node("data0")], {"scalar": "1"})
        counted = graph.add("cumsum", "counted", [is_token], {"axis": "1"})
        steps = graph.add("_minus_scalar", "steps", [counted], {"scalar": "1"})
        table = graph.node("bertencoder0_position_weight")
        rows = graph.add("Embedding", "rows", [steps, table], {"input_dim": "20", "output_dim": "8"})
        graph.rewire(graph.node("bertencoder0_position_embed"), rows)


def mask_by(name: str) -> Change:
    """Leave out tokens by their ids, or their types; beside the padding."""

    def change(graph: SymbolGraph) -> None:
        with graph.edit():
            is_left = graph.add("_not_equal_scalar", "is_left", [graph.node(name)], {"scalar": "30000"})
            less = graph.add("_minus_scalar", "less", [is_left], {"scalar": "1"})
            large = graph.add("_mul_scalar", "large", [less], {"scalar": "1e9"})
            graph.insert_after(graph.node("bertencoder0_mask_padding"), "elemwise_add", "both", inputs=[large])

    return change


def end_in_weights_too(graph: SymbolGraph) -> None:
    graph.set_outputs([*graph.outputs, graph.node(f"{LAYER}attention")])


def read_values(graph: SymbolGraph) -> None:
    """A head on a tensor inside of a layer."""
    with graph.edit():
        inner = graph.add("sum", "inner", [graph.node(f"{LAYER}value")], {"axis": "1"})
        graph.set_outputs([graph.add("elemwise_add", "head", [*graph.outputs, inner])])


def compute_weight(graph: SymbolGraph) -> None:
    graph.insert_after(graph.node(f"{LAYER}proj_weight"), "_mul_scalar", "halved", {"scalar": "0.5"})


def leave_bias_out(graph: SymbolGraph) -> None:
    node = graph.node(f"{LAYER}proj")
    graph.set_inputs(node, node.inputs[:2])
    graph.set_attribute(node, "no_bias", "True")


def read_the_layer_before(graph: SymbolGraph) -> None:
    """Values that are not computed of what the layer reads."""
    before = graph.node("bertencoder0_embed_dropout")
    node = graph.node(f"{LAYER}value")
    graph.set_inputs(node, [before, *node.inputs[1:]])


def read_positive(graph: SymbolGraph) -> None:
    node = graph.node(f"{LAYER}query")
    with graph.edit():
        positive = graph.add("relu", "positive", node.inputs[:1])
        graph.set_inputs(node, [positive, *node.inputs[1:]])


def add_position_bias(graph: SymbolGraph) -> None:
    """Scores with a parameter added, as relative positions are."""
    bias = graph.add_variable("position_bias", {"__shape__": "(1, 2, 1, 1)"})
    graph.insert_after(graph.node(f"{LAYER}scores_masked"), "broadcast_add", "biased", inputs=[bias])


def skip_attention(graph: SymbolGraph) -> None:
    """The feed-forward layer reads what the layer reads."""
    node = graph.node(f"{LAYER}positionwiseffn0_ffn_1")
    before = graph.node("bertencoder0_transformer0_positionwiseffn0_layernorm0_fwd")
    graph.set_inputs(node, [before, *node.inputs[1:]])


@pytest.mark.parametrize(
    ("change", "node", "why"),
    [
        (set_eps, f"{LAYER}layernorm0_fwd", "its eps differs from 1e-12"),
        (set_last_eps, f"{LAYER}positionwiseffn0_layernorm0_fwd", "its eps differs from 1e-12"),
        (set_axis, f"{LAYER}layernorm0_fwd", "it does not normalise the last axis"),
        (use_tanh, "bertencoder0_transformer0_positionwiseffn0_gelu", "expected gelu or relu"),
        (use_no_activation, "bertencoder0_transformer0_positionwiseffn0_ffn_1", "expected gelu or relu"),
        (use_gelu_and_relu, f"{LAYER}positionwiseffn0_gelu", "all layers need the same"),
        (add_third_table, "third", "the sum of embeddings may only have token, segment and position embeddings"),
        (scale_words, "scaled_words", "the sum of embeddings may only have token, segment and position embeddings"),
        (leave_positions_out, "bertencoder0_layernorm0_fwd", "no position embedding is added"),
        (count_positions_by_ids, "rows", "the sum of embeddings may only have token, segment and position embeddings"),
        (mask_by("data0"), "data0", "layer 0 depends on it"),
        (mask_by("data1"), "data1", "layer 0 depends on it"),
        (end_in_weights_too, f"{LAYER}attention", "is inside the encoder but an output of the graph reads it"),
        (read_values, f"{LAYER}value", "is inside the encoder but inner reads it"),
        (compute_weight, f"{LAYER}proj", "its parameter is computed by halved"),
        (leave_bias_out, f"{LAYER}proj", "it has no bias"),
        (
            read_the_layer_before,
            f"{LAYER}value_batched",
            "expected exactly one input that depends on the layer's input",
        ),
        (read_positive, f"{LAYER}query", "the input of its layer"),
        (add_position_bias, "position_bias", "layer 1 depends on it"),
        (skip_attention, f"{LAYER}positionwiseffn0_ffn_1", "does not read"),
    ],
)
def test_an_encoder_that_no_form_computes_is_refused_at_its_node(
    cli: Cli, tmp_path: Path, change: Change, node: str, why: str
) -> None:
    old = checkpoint(tmp_path / "old", change, graph=some_graph("sequence"))
    line = refusal(cli("lower", old, tmp_path / "new"), tmp_path / "new-symbol.json")
    assert line.startswith(f"Error: {old}: ")
    assert f"node {node} " in line or f" {node} is relu" in line
    assert why in line
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("old-")] == []


def test_layers_that_differ_in_heads_are_refused(cli: Cli, tmp_path: Path) -> None:
    def change(graph: SymbolGraph) -> None:
        for part in ("query", "key", "value"):
            graph.set_attribute(graph.node(f"{LAYER}{part}_split"), "shape", "(0, 0, 4, -1)")
        for node in ("scores_heads", "context_heads"):
            graph.set_attribute(graph.node(f"{LAYER}{node}"), "shape", "(-1, 4, 0, 0)")

    old = checkpoint(tmp_path / "old", change)
    line = refusal(cli("lower", old, tmp_path / "new"), tmp_path / "new-symbol.json")
    assert line.endswith("the graph does not determine a single number of heads of all layers")


# Changes that only a comparison of outputs finds


def change_scale(graph: SymbolGraph) -> None:
    node = graph.node(f"{LAYER}query_scaled")
    graph.set_attribute(node, "scalar", str(1.1 * float(node.attrs["scalar"])))


def leave_mask_out(graph: SymbolGraph) -> None:
    graph.remove(graph.node(f"{LAYER}scores_masked"), bypass=True)


def turn_softmax(graph: SymbolGraph) -> None:
    graph.set_attribute(graph.node(f"{LAYER}attention"), "axis", "2")


def exchange_query_and_key(graph: SymbolGraph) -> None:
    """The scores of a token and another one are those of the other and the one."""
    node = graph.node(f"{LAYER}scores")
    graph.set_inputs(node, reversed(node.inputs))


def shift_positions(graph: SymbolGraph) -> None:
    with graph.edit():
        table = graph.node("bertencoder0_position_table")
        graph.insert_after(table, "reverse", "turned", {"axis": "1"})


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (change_scale, "layer 1"),
        (leave_mask_out, "layer 1"),
        (turn_softmax, "layer 1"),
        (use_erf_alone, "layer 0"),
        (shift_positions, "embeddings"),
    ],
)
def test_different_outputs_are_refused_naming_the_first_layer(
    cli: Cli, tmp_path: Path, change: Change, first: str
) -> None:
    old = checkpoint(tmp_path / "old", change, graph=some_graph("sequence"))
    line = refusal(cli("lower", old, tmp_path / "new"), tmp_path / "new-symbol.json")
    assert "the outputs of the new form differ" in line
    assert line.endswith(f"; the first difference is in {first}")


def test_query_and_key_are_distinguished_by_the_graph(tmp_path: Path) -> None:
    """Which FullyConnected is which follows from what the scores multiply."""
    old = checkpoint(tmp_path / "old", exchange_query_and_key, graph=some_graph("sequence"))
    written = lower(old, tmp_path / "new", form="gluonnlp")
    assert written.verified
    joined = SymbolGraph.load(f"{tmp_path / 'new'}-symbol.json").node(f"{LAYER}weights")
    assert [entry.node.inputs[0].node.name.split("_")[-2] for entry in joined.inputs] == ["key", "query", "value"]


# Graphs that are not a BERT, or only part of one


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("resnet50", "no Embedding reads token ids, the graph begins with resnet50_conv0_fwd (Convolution)"),
        ("lstm", "no LayerNorm follows the token embedding words: split0 (SliceChannel) reads it"),
        ("lstm_gluon", "no Embedding reads token ids, the graph begins with lstm_reshape0 (Reshape)"),
    ],
)
def test_another_network_is_refused_at_its_beginning(cli: Cli, tmp_path: Path, name: str, why: str) -> None:
    path = SYMBOLS / "mxnet-1.9.1" / f"{name}.json"
    line = refusal(cli("lower", path, tmp_path / "new"), tmp_path / "new-symbol.json")
    assert line == f"Error: {path}: no BERT: {why}"


def test_missing_parameters_are_refused(cli: Cli, tmp_path: Path) -> None:
    old = checkpoint(tmp_path / "old")
    params = dict(ParamsFile(f"{old}-0000.params"))
    del params["bertencoder0_layernorm0_gamma"]
    save(old, SymbolGraph.load(f"{old}-symbol.json"), params)
    line = refusal(cli("lower", old, tmp_path / "new"), tmp_path / "new-symbol.json")
    missing = f"1 parameters of the graph are missing in {old}-0000.params: bertencoder0_layernorm0_gamma"
    assert line == f"Error: {old}: {missing}"
    Path(f"{old}-0000.params").unlink()
    line = refusal(cli("lower", old, tmp_path / "new"), tmp_path / "new-symbol.json")
    assert line == f"Error: {old}: there are no parameters beside old-symbol.json; name their file"


def test_an_output_that_can_t_be_compared_is_not_written(cli: Cli, tmp_path: Path) -> None:
    """Scales and masks are only checked by comparing outputs."""
    old = gluonnlp_checkpoint(tmp_path / "old", "pretraining")
    line = refusal(cli("lower", old, tmp_path / "new"), tmp_path / "new-symbol.json", code=2)
    assert line.startswith(f"Error: {old} can't be compared")
    assert line.endswith("the shape of data3 is unknown: give it with --shape data3=2,3,...")


def test_a_shape_that_token_ids_cannot_have_is_refused(cli: Cli, tmp_path: Path) -> None:
    line = refusal(cli("lower", checkpoint(tmp_path / "old"), tmp_path / "new", "--shape", "data0=16"), code=2)
    assert line.endswith("data0 can't have the shape (16,): token ids and types are (N, T), lengths (N,)")


def test_a_downstream_graph_that_the_target_does_not_load_is_refused(cli: Cli, tmp_path: Path) -> None:
    old = gluonnlp_checkpoint(tmp_path / "old", "pretraining")
    line = refusal(
        cli("lower", old, tmp_path / "new", "--target-mxnet", "1.4", "--shape", "data3=2,2"),
        tmp_path / "new-symbol.json",
    )
    why = "outside the encoder: MXNet 1.4.1 does not load _contrib_arange_like"
    assert line == f"Error: {old}: node bertmodel0_arange_like0, {why}"


def test_a_refusal_leaves_the_old_bundle(cli: Cli, bundles: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("lower", bundles["cls"], out).code == 0
    before = bundle_bytes(out)
    old = checkpoint(tmp_path / "old", change_scale)
    assert cli("lower", old, out, "--force").code == 1
    assert bundle_bytes(out) == before


def test_parameters_in_float64_are_refused(cli: Cli, tmp_path: Path) -> None:
    old = checkpoint(tmp_path / "old", graph=some_graph())
    params = {name: array.astype(np.float64) for name, array in ParamsFile(f"{old}-0000.params").items()}
    save(old, SymbolGraph.load(f"{old}-symbol.json"), params)
    line = refusal(cli("lower", old, tmp_path / "new"), tmp_path / "new-symbol.json")
    assert "only models in float32 or float16 can be lowered" in line
