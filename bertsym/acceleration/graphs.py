"""Rewrite graphs in memory to the operators that the installed MXNet computes fastest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.encoders.forms import Form
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.mxnet_runtime import mx, quiet_stderr
from bertsym.passes import apply_to_copy
from bertsym.passes.dropout_masks import feed_dropout_masks
from bertsym.passes.encoder_replacement import replace_encoder
from bertsym.passes.gelu import fuse_gelu
from bertsym.passes.input_guard import remove_input_guard
from bertsym.passes.layer_norm import decompose_layer_norm
from bertsym.symbol.attributes import RATE_MULTIPLIER, decimal
from bertsym.symbol.graph import SymbolGraph

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TrainingSymbol:
    """A symbol to train."""

    symbol: Any
    #: inputs that are dropout masks -> probability of a zero; empty where the graph has Dropout operators
    masks: Mapping[str, float]
    multipliers: Mapping[str, float]  #: factors of the learning rate, of the parameters that have one; 0: not trained

    @property
    def constants(self) -> frozenset[str]:
        """Parameters that are not trained."""
        return frozenset(name for name, multiplier in self.multipliers.items() if multiplier == 0)


def accelerate_graph(graph: SymbolGraph, shapes: Shapes, form: str) -> SymbolGraph:
    """Copy a graph, with its encoder in another form, gelu fused, and without the input guard.

    `shapes` are the shapes of the parameters, which stay the same. The caller must check the inputs. A graph without a
    BERT encoder that can be written in the form keeps its nodes.
    """
    graph = apply_to_copy(graph, remove_input_guard)
    try:
        encoder = require_encoder(graph, shapes)
        return rewrite_encoder(graph, encoder, shapes, extract_spec(graph, encoder, shapes), form)
    except ModelError:
        return apply_to_copy(graph, fuse_gelu)


def rewrite_encoder(
    graph: SymbolGraph, encoder: DetectedEncoder, shapes: Shapes, spec: EncoderSpec, form: str
) -> SymbolGraph:
    """Copy a graph, with its encoder, which `spec` describes, in another form and gelu fused; raises ModelError."""
    copy, copies = graph.copied()
    replace_encoder(copy, shapes, spec, Form(form, erf=False), encoder.mapped(copies))
    fuse_gelu(copy)
    return copy


def build_training_symbol(graph: SymbolGraph, shapes: Shapes, *, cpu: bool = True) -> TrainingSymbol:
    """The fastest symbol with the same outputs and gradients; other devices than a CPU keep MXNet's own operators."""
    multipliers = {
        node.name: decimal(node.attrs, RATE_MULTIPLIER, 1.0)
        for node in graph.nodes
        if node.is_variable and RATE_MULTIPLIER in node.attrs
    }
    if not cpu:
        return TrainingSymbol(to_symbol(apply_to_copy(graph, fuse_gelu)), {}, multipliers)
    graph = accelerate_graph(graph, shapes, "training")
    decompose_layer_norm(graph, shapes)
    masks = feed_dropout_masks(graph)
    return TrainingSymbol(to_symbol(graph), masks.probabilities, multipliers)


def to_symbol(graph: SymbolGraph) -> Any:
    """Convert a graph to an mx.sym.Symbol."""
    graph.toposort()
    with quiet_stderr():
        return mx.sym.load_json(graph.to_json())
