"""Symbols rewritten in memory to what the installed MXNet computes quickest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertsym.bert.forms import Form
from bertsym.errors import ModelError
from bertsym.recognition.matching import match
from bertsym.recognition.recognise import find_bert
from bertsym.runtime import mx, quiet_stderr
from bertsym.surgery.replacing import replace_encoder
from bertsym.symbol import gelu
from bertsym.symbol.graph import SymbolGraph

_FAST = Form("fast", erf=False)


def fast_graph(graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]]) -> SymbolGraph:
    """The same function of the same parameters, whose `shapes` are given, with the encoder in the fast form.

    Gelu is one operator. A graph without a BERT that can be written in another form keeps its encoder.
    """
    try:
        graph = replace_encoder(graph, shapes, match(graph, find_bert(graph, shapes), shapes), _FAST)
    except ModelError:
        graph = graph.copy()
    gelu.join(graph)
    return graph


def fast_symbol(symbol: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """`fast_graph` of an mx.sym.Symbol."""
    return to_symbol(fast_graph(SymbolGraph.parse(symbol.tojson()), shapes))


def to_symbol(graph: SymbolGraph) -> Any:
    """The graph as an mx.sym.Symbol."""
    with quiet_stderr():
        return mx.sym.load_json(graph.to_json())
