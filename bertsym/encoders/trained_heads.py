"""Graphs of an encoder with a trained head of its own family, without mxnet."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_NORM, HEAD_TRANSFORM, HeadTransform
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import Form
from bertsym.encoders.graph.base import record_activation
from bertsym.encoders.graph_heads import HEADS, graft_onto_graph
from bertsym.encoders.outputs import record_output
from bertsym.encoders.parameters import TOKEN_EMBEDDING, head_shapes
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.recorder import sym


def headed_graphs(
    config: BertConfig,
    task: str,
    reads: str,
    num_outputs: int,
    dropout: float,
    form: Form,
    transform: HeadTransform | None = None,
) -> tuple[SymbolGraph, SymbolGraph | None]:
    """The graphs for inference and for training of an encoder with a head for `task`.

    The head reads the encoder's output `reads`, through a layer of its own where there is a `transform`. For
    ``masked_lm``, which ends in the logits (N, T, V) of the tokens, and for ``tagging`` and ``qa`` there is no graph
    for training; otherwise both graphs are those that fine-tuning makes with `graft_onto_graph`.
    """
    read = record_read(config, task, reads, form, transform)
    if task == "masked_lm":
        return _masked_lm(read, config), None
    graph = read.graph()
    inference, training, _ = graft_onto_graph(graph, graph.outputs[0], task, num_outputs, dropout, config.units)
    return inference, training if not HEADS[task].reads_tokens else None


def record_read(config: BertConfig, task: str, reads: str, form: Form, transform: HeadTransform | None = None) -> Any:
    """The RecordedSymbol of what the last layer of a head reads: an output of the encoder, or the layer on it."""
    read = record_output(config, reads, form)
    return read if transform is None else _transformed(read, config, task, transform, form)


def _parameters(config: BertConfig, task: str, name: str, *parts: str) -> list[Any]:
    shapes = head_shapes(config, task, config.vocab_size, has_transform=True)
    return [sym.var(f"{name}_{part}", shape=shapes[f"{name}_{part}"]) for part in parts]


def _transformed(encoded: Any, config: BertConfig, task: str, transform: HeadTransform, form: Form) -> Any:
    """A dense layer and its activation."""
    if transform.dropout:
        encoded = sym.Dropout(encoded, p=transform.dropout, name=f"{HEAD_TRANSFORM}-dropout")
    weight, bias = _parameters(config, task, HEAD_TRANSFORM, "weight", "bias")
    width = config.embedding_width if task == "masked_lm" else config.units
    dense = sym.FullyConnected(encoded, weight, bias, num_hidden=width, flatten=False, name=HEAD_TRANSFORM)
    return record_activation(transform.activation, dense, f"{HEAD_TRANSFORM}-{transform.activation}", form)


def _masked_lm(transformed: Any, config: BertConfig) -> SymbolGraph:
    """LayerNorm of each token, then products with the token embedding (Devlin et al. 2018)."""
    gamma, beta = _parameters(config, "masked_lm", HEAD_NORM, "gamma", "beta")
    normal = sym.LayerNorm(transformed, gamma, beta, eps=config.layer_norm_eps, name=HEAD_NORM)
    logits = sym.FullyConnected(
        normal,
        transformed.get_internals()[TOKEN_EMBEDDING],
        *_parameters(config, "masked_lm", FULLY_CONNECTED, "bias"),
        num_hidden=config.vocab_size,
        flatten=False,
        name=FULLY_CONNECTED,
    )
    graph: SymbolGraph = logits.graph()
    return graph
