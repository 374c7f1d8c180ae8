"""Graphs of an encoder with a trained head of its own family, without mxnet."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_NORM, HEAD_TRANSFORM
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import Form
from bertsym.encoders.graph.base import record_activation
from bertsym.encoders.graph_heads import graft_onto_graph
from bertsym.encoders.outputs import output_graph, record_output
from bertsym.encoders.parameters import TOKEN_EMBEDDING, head_shapes
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.recorder import sym


def headed_graphs(
    config: BertConfig, task: str, reads: str, num_outputs: int, dropout: float, form: Form
) -> tuple[SymbolGraph, SymbolGraph | None]:
    """The graphs for inference and for training of an encoder with a head for `task`.

    The head reads the encoder's output `reads`. For ``classification`` both graphs are those that fine-tuning makes;
    other tasks have no graph for training yet. ``masked_lm`` ends in the logits (N, T, V) of the tokens, the others in
    what `graft_onto_graph` adds.
    """
    if task == "masked_lm":
        return _masked_lm(config, form), None
    encoder = output_graph(config, reads, form)
    inference, training, _ = graft_onto_graph(encoder, encoder.outputs[0], task, num_outputs, dropout, config.units)
    return inference, training if task == "classification" else None


def _masked_lm(config: BertConfig, form: Form) -> SymbolGraph:
    """Dense, activation and LayerNorm of each token, then products with the token embedding (Devlin et al. 2018)."""
    shapes = head_shapes("masked_lm", config.vocab_size, config.units, config.units)

    def parameters(name: str, *parts: str) -> list[Any]:
        return [sym.var(f"{name}_{part}", shape=shapes[f"{name}_{part}"]) for part in parts]

    encoded = record_output(config, "sequence", form)
    dense = sym.FullyConnected(
        encoded,
        *parameters(HEAD_TRANSFORM, "weight", "bias"),
        num_hidden=config.units,
        flatten=False,
        name=HEAD_TRANSFORM,
    )
    activated = record_activation(config.activation, dense, f"{HEAD_TRANSFORM}-{config.activation}", form)
    normal = sym.LayerNorm(
        activated, *parameters(HEAD_NORM, "gamma", "beta"), eps=config.layer_norm_eps, name=HEAD_NORM
    )
    logits = sym.FullyConnected(
        normal,
        encoded.get_internals()[TOKEN_EMBEDDING],
        *parameters(FULLY_CONNECTED, "bias"),
        num_hidden=config.vocab_size,
        flatten=False,
        name=FULLY_CONNECTED,
    )
    graph: SymbolGraph = logits.graph()
    return graph
