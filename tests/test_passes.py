"""All passes follow the convention that the docstring of bertsym.passes states."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from checkpoints import SYMBOLS

from bertsym import passes
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import Form
from bertsym.encoders.graph import encoder_graph
from bertsym.encoders.graph_heads import graft_onto_graph
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.passes import apply_to_copy
from bertsym.passes.attention_interleaving import interleave_attention
from bertsym.passes.class_loss import replace_softmax_loss
from bertsym.passes.dropout_insertion import insert_dropout
from bertsym.passes.dropout_masks import feed_dropout_masks
from bertsym.passes.embedding_rows import keep_used_rows
from bertsym.passes.encoder_replacement import replace_encoder
from bertsym.passes.gelu import decompose_gelu, fuse_gelu
from bertsym.passes.inferred_ranges import resolve_inferred_ranges
from bertsym.passes.input_guard import add_input_guard, remove_input_guard
from bertsym.passes.layer_norm import decompose_layer_norm
from bertsym.passes.masked_positions import read_all_tokens
from bertsym.passes.qkv_folding import fold_qkv, unfold_qkv
from bertsym.passes.release_adaptation import adapt_to_release
from bertsym.passes.single_precision import compute_in_float32
from bertsym.passes.token_pooling import pool_tokens
from bertsym.passes.token_types import drop_token_types
from bertsym.symbol.graph import SymbolGraph

SPEC = EncoderSpec(BertConfig(num_layers=2, units=8, hidden_size=16, num_heads=2, vocab_size=30, max_length=16))
SHAPES = SPEC.shapes
PARAMS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
PLAIN, ERF = Form(erf=False), Form(erf=True)

MODULES = {
    info.name: importlib.import_module(f"bertsym.passes.{info.name}") for info in pkgutil.iter_modules(passes.__path__)
}
PASSES: dict[str, Callable[..., Any]] = {
    f"{module}.{name}": value
    for module, contents in MODULES.items()
    for name, value in vars(contents).items()
    if inspect.isfunction(value) and value.__module__ == contents.__name__ and not name.startswith("_")
}


def encoder(form: Form = PLAIN) -> SymbolGraph:
    return encoder_graph(SPEC, form)


def without_dropout() -> SymbolGraph:
    config = dataclasses.replace(SPEC.config, dropout=0.0, attention_dropout=0.0)
    return encoder_graph(dataclasses.replace(SPEC, config=config), PLAIN)


ONE_TYPE = dataclasses.replace(SPEC, config=dataclasses.replace(SPEC.config, token_type_vocab_size=1))


def one_type() -> SymbolGraph:
    return encoder_graph(ONE_TYPE, PLAIN)


def classifier() -> SymbolGraph:
    """A training graph."""
    graph = encoder()
    return graft_onto_graph(graph, graph.outputs[0], "classification", 3, 0.1, SPEC.config.units)[1]


def guarded() -> SymbolGraph:
    return apply_to_copy(encoder(), lambda graph: add_input_guard(graph, *INPUT_NAMES))


def folded() -> SymbolGraph:
    return apply_to_copy(encoder(), lambda graph: fold_qkv(graph, PARAMS))


def folded_for_inference() -> SymbolGraph:
    config = dataclasses.replace(SPEC.config, dropout=0.0, attention_dropout=0.0)
    graph = encoder_graph(dataclasses.replace(SPEC, config=config), Form("fast", erf=False))
    return apply_to_copy(graph, lambda graph: fold_qkv(graph, PARAMS))


FOLDED_SHAPES = {name: array.shape for name, array in fold_qkv(encoder(), PARAMS).arg_params.items()}


def gluonnlp_08() -> SymbolGraph:
    return SymbolGraph.parse((SYMBOLS / "gluonnlp-0.8.3" / "sequence-symbol.json").read_text())


def pretraining() -> SymbolGraph:
    return SymbolGraph.parse((SYMBOLS / "gluonnlp-0.10.0" / "pretraining-symbol.json").read_text())


def in_float16() -> SymbolGraph:
    graph = encoder()
    for name in graph.variables[:2]:
        graph.set_attribute(graph.variable(name), "__dtype__", "2")
    return graph


# Pass -> graphs that it changes, its further arguments, and the number of places that it says it changed.
RUNS: dict[Callable[..., Any], tuple[Callable[[], SymbolGraph], tuple[Any, ...], Callable[[Any], int], int]] = {
    insert_dropout: (without_dropout, (SHAPES, 0.1), lambda result: len(result.sources), 7),
    feed_dropout_masks: (encoder, (), lambda result: len(result.probabilities), 7),
    keep_used_rows: (encoder, ("data0", np.arange(5), PARAMS), lambda result: len(result.initial), 5),
    replace_encoder: (encoder, (SHAPES, SPEC, Form("gluonnlp")), int, 2),
    decompose_gelu: (encoder, (), int, 2),
    fuse_gelu: (partial(encoder, ERF), (), int, 2),
    resolve_inferred_ranges: (gluonnlp_08, (), int, 1),
    add_input_guard: (encoder, INPUT_NAMES, int, 3),
    remove_input_guard: (guarded, (), int, 3),
    decompose_layer_norm: (encoder, (SHAPES,), int, 5),
    fold_qkv: (encoder, (PARAMS,), lambda result: result.layers, 2),
    unfold_qkv: (folded, (SPEC.config,), int, 2),
    interleave_attention: (folded_for_inference, (FOLDED_SHAPES,), lambda result: len(result.derived), 4),
    adapt_to_release: (encoder, (ERF, "1.5.1"), int, 2),
    pool_tokens: (encoder, (SHAPES, "mean"), int, 1),
    replace_softmax_loss: (classifier, (3, (1.0, 2.0, 0.5), 0.1), int, 1),
    drop_token_types: (one_type, (ONE_TYPE.shapes, PLAIN), int, 1),
    compute_in_float32: (in_float16, (), int, 2),
    read_all_tokens: (pretraining, ({"bertmodel0_transpose1"},), lambda result: int(result.variable == "data3"), 1),
}


def test_the_table_in_the_docstring_lists_all_passes() -> None:
    rows = re.findall(r"^(\w+) +(\w+_\w+) {2,}\w", passes.__doc__ or "", re.MULTILINE)
    assert [f"{module}.{name}" for module, name in rows] == sorted(PASSES)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 can't evaluate the annotation X | None")
@pytest.mark.parametrize("name", PASSES)
def test_a_pass_takes_a_graph_and_returns_a_small_result(name: str) -> None:
    function = PASSES[name]
    hints = typing.get_type_hints(function)
    assert next(iter(inspect.signature(function).parameters)) == "graph"
    assert hints["graph"] is SymbolGraph
    assert " in place" in " ".join((function.__doc__ or "").lower().split())
    results = {*typing.get_args(hints["return"])} - {type(None)} or {hints["return"]}
    assert all(result is int or result.__module__ == function.__module__ for result in results)


# Quantized graphs, which the other passes need, are made in test_quantize.py and test_onnx_int8.py.
def test_all_other_passes_are_run_here() -> None:
    assert {function.__name__ for function in PASSES.values()} - {function.__name__ for function in RUNS} == {
        "dequantize_layers",
        "unfuse_float32_layers",
    }


@pytest.mark.parametrize("function", RUNS, ids=lambda function: function.__name__)
def test_a_pass_changes_the_graph_itself_and_counts_its_changes(function: Callable[..., Any]) -> None:
    make, arguments, count, expected = RUNS[function]
    graph = make()
    before = graph.to_json()
    keywords = {"divides": True} if function is replace_softmax_loss else {}
    assert apply_to_copy(graph, lambda copy: function(copy, *arguments, **keywords)).to_json() != before
    assert graph.to_json() == before
    assert count(function(graph, *arguments, **keywords)) == expected
    assert graph.to_json() != before


def too_new() -> SymbolGraph:
    graph = encoder()
    graph.set_outputs([graph.add("_contrib_arange_like", "positions", [graph.outputs[0]], {"axis": "1"})])
    return graph


def read_inside() -> SymbolGraph:
    graph = encoder()
    scores = graph.find(op="softmax")[0]
    graph.set_outputs([*graph.outputs, scores])
    return graph


@pytest.mark.parametrize(
    ("make", "run", "why"),
    [
        (read_inside, partial(replace_encoder, shapes=SHAPES, spec=SPEC, form=PLAIN), "is inside the encoder but"),
        (too_new, partial(adapt_to_release, form=ERF, release="1.4.1"), "positions, outside the encoder: MXNet 1.4.1"),
        (encoder, partial(drop_token_types, shapes=SHAPES, form=PLAIN), "2 token types, which data1 selects"),
        (folded, partial(fold_qkv, arg_params=PARAMS), "nothing to fold"),
    ],
)
def test_a_pass_that_raises_leaves_the_graph_as_it_was(
    make: Callable[[], SymbolGraph], run: Callable[[SymbolGraph], object], why: str
) -> None:
    graph = make()
    before = graph.to_json()
    with pytest.raises(ModelError, match=why):
        run(graph)
    assert graph.to_json() == before
