"""Symbols rewritten in memory to what the installed MXNet computes quickest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import match
from bertsym.encoders.forms import Form
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.passes.dropout_masks import feed_dropout_masks
from bertsym.passes.encoder_replacement import replace_encoder
from bertsym.passes.gelu import fuse_gelu
from bertsym.passes.input_guard import without_input_guard
from bertsym.passes.layer_norm import decompose_layer_norm
from bertsym.runtime import mx, quiet_stderr
from bertsym.symbol.graph import SymbolGraph

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TrainingSymbol:
    """A symbol to train."""

    symbol: Any
    #: inputs that are masks of dropout -> their probability of a zero; none where the graph drops by itself
    masks: Mapping[str, float]


def in_form(graph: SymbolGraph, shapes: Shapes, name: str) -> SymbolGraph:
    """The same function of the same parameters, whose `shapes` are given, with the encoder in another form.

    Gelu is one operator, and inputs are not clipped: they were checked. A graph without a BERT that can be written in
    another form keeps its encoder.
    """
    graph = without_input_guard(graph)
    try:
        return rewritten(graph, shapes, match(graph, require_encoder(graph, shapes), shapes), name)
    except ModelError:
        return joined(graph)


def rewritten(graph: SymbolGraph, shapes: Shapes, spec: EncoderSpec, name: str) -> SymbolGraph:
    """A graph with its encoder, of `spec`, in another form and gelu as one operator; raises ModelError."""
    return joined(replace_encoder(graph, shapes, spec, Form(name, erf=False)))


def joined(graph: SymbolGraph) -> SymbolGraph:
    """The same with gelu as one operator."""
    graph = graph.copy()
    fuse_gelu(graph)
    return graph


def training_symbol(graph: SymbolGraph, shapes: Shapes, *, cpu: bool = True) -> TrainingSymbol:
    """The same function and gradients; on another device than a CPU with MXNet's own operators."""
    if not cpu:
        return TrainingSymbol(to_symbol(joined(graph)), {})
    graph = in_form(graph, shapes, "training")
    decompose_layer_norm(graph, shapes)
    inputs = feed_dropout_masks(graph)
    return TrainingSymbol(to_symbol(graph), inputs)


def to_symbol(graph: SymbolGraph) -> Any:
    """The graph as an mx.sym.Symbol."""
    graph.toposort()
    with quiet_stderr():
        return mx.sym.load_json(graph.to_json())
