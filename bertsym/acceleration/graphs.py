"""Symbols rewritten in memory to what the installed MXNet computes quickest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.acceleration import layer_norm, masks
from bertsym.bert.encoder_spec import EncoderSpec
from bertsym.bert.forms import Form
from bertsym.errors import ModelError
from bertsym.recognition.matching import match
from bertsym.recognition.recognise import find_bert
from bertsym.runtime import mx, quiet_stderr
from bertsym.surgery.replacing import replace_encoder
from bertsym.symbol import gelu, guard
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
    graph = guard.removed(graph)
    try:
        return rewritten(graph, shapes, match(graph, find_bert(graph, shapes), shapes), name)
    except ModelError:
        return joined(graph)


def rewritten(graph: SymbolGraph, shapes: Shapes, spec: EncoderSpec, name: str) -> SymbolGraph:
    """A graph with its encoder, of `spec`, in another form and gelu as one operator; raises ModelError."""
    return joined(replace_encoder(graph, shapes, spec, Form(name, erf=False)))


def joined(graph: SymbolGraph) -> SymbolGraph:
    """The same with gelu as one operator."""
    graph = graph.copy()
    gelu.join(graph)
    return graph


def training_symbol(graph: SymbolGraph, shapes: Shapes, *, cpu: bool = True) -> TrainingSymbol:
    """The same function and gradients; on another device than a CPU with MXNet's own operators."""
    if not cpu:
        return TrainingSymbol(to_symbol(joined(graph)), {})
    graph = in_form(graph, shapes, "training")
    layer_norm.spell_out(graph, shapes)
    inputs = masks.feed(graph)
    return TrainingSymbol(to_symbol(graph), inputs)


def to_symbol(graph: SymbolGraph) -> Any:
    """The graph as an mx.sym.Symbol."""
    graph.toposort()
    with quiet_stderr():
        return mx.sym.load_json(graph.to_json())
