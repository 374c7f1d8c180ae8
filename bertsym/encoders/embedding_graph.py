"""Graphs that end in a sentence embedding."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import Form
from bertsym.encoders.graph.base import record_activation
from bertsym.encoders.outputs import record_output
from bertsym.encoders.sentence_embedding import EMBEDDING, DenseLayer, SentenceEmbedding, layer_name
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.recorder import sym

_LOWEST = -1e9  # less than any element of a LayerNorm's output
# Under the root, and so torch's 1e-12, below which torch.nn.functional.normalize does not divide by the length.
_SHORTEST_SQUARE = 1e-24


def embedding_graph(config: BertConfig, embedding: SentenceEmbedding, form: Form = Form()) -> SymbolGraph:
    """Build the encoder's graph, ending in the node ``embedding``, (N, D) float32."""
    x = _pooled(config, embedding, form)
    shapes = embedding.shapes(config.units)
    for i, layer in enumerate(embedding.layers):
        name = layer_name(i)
        if isinstance(layer, DenseLayer):
            x = _dense(x, layer, name, shapes, form)
        else:
            x = sym.L2Normalization(x, mode="instance", eps=_SHORTEST_SQUARE, name=name)
    graph: SymbolGraph = x.graph()
    (end,) = graph.outputs
    graph.rename({end.node: EMBEDDING})
    return graph


def _dense(x: Any, layer: DenseLayer, name: str, shapes: dict[str, tuple[int, ...]], form: Form) -> Any:
    names = [f"{name}_{part}" for part in ("weight", "bias")[: 1 + layer.bias]]
    parameters = [sym.var(parameter, shape=shapes[parameter]) for parameter in names]
    without_bias = {} if layer.bias else {"no_bias": True}
    x = sym.FullyConnected(x, *parameters, num_hidden=layer.units, flatten=False, name=name, **without_bias)
    if layer.activation == "identity":
        return x
    return record_activation(layer.activation, x, f"{name}_{layer.activation}", form)


def _pooled(config: BertConfig, embedding: SentenceEmbedding, form: Form) -> Any:
    """Pool the tokens: (N, U), or (N, modes * U)."""
    if embedding.pooling == ("cls",):
        return record_output(config, "cls", form)  # its last layer need not compute the other tokens
    sequence = record_output(config, "sequence", form)  # 0 at padding
    valid_length = sequence.get_internals()["data2"]
    needed = set(embedding.pooling)
    found = {}
    if "cls" in needed:
        first = sym.slice_axis(sequence, axis=1, begin=0, end=1, name="embedding_first")
        found["cls"] = sym.reshape(first, shape=(-1, config.units), name="embedding_cls")
    if "max" in needed:
        masked = sym.SequenceMask(
            sequence, valid_length, use_sequence_length=True, value=_LOWEST, axis=1, name="embedding_valid"
        )
        found["max"] = sym.max(masked, axis=1, name="embedding_max")
    if needed & {"mean", "mean_sqrt_len_tokens"}:
        total = sym.sum(sequence, axis=1, name="embedding_total")
        # The cast lets callers bind integer lengths.
        count = sym.Cast(valid_length, dtype="float32", name="embedding_count_float")
        count = sym.expand_dims(count, axis=1, name="embedding_count")
        if "mean" in needed:
            found["mean"] = sym.broadcast_div(total, count, name="embedding_mean")
        if "mean_sqrt_len_tokens" in needed:
            root = sym.sqrt(count, name="embedding_count_root")
            found["mean_sqrt_len_tokens"] = sym.broadcast_div(total, root, name="embedding_mean_sqrt_len")
    vectors = [found[mode] for mode in embedding.pooling]
    return vectors[0] if len(vectors) == 1 else sym.Concat(*vectors, dim=1, name="embedding_pooled")
