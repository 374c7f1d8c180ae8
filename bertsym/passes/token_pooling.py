"""End a graph in one vector for each text, which is pooled from the encodings of the text's tokens."""

from __future__ import annotations

from collections.abc import Mapping

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.analysis.token_flow import is_time_major
from bertsym.encoders.forms import Form
from bertsym.encoders.parameters import POOLER
from bertsym.errors import ModelError
from bertsym.passes.encoder_replacement import replace_encoder
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name

Shapes = Mapping[str, tuple[int, ...]]


def pool_tokens(graph: SymbolGraph, shapes: Shapes, pooling: str) -> int:
    """End a graph in one vector for each text, (N, U), in place; `pooling` is a key of ``catalogue.POOLINGS``.

    `shapes` are the shapes of the parameters. What the vector does not need is removed, such as a head. Raises
    ModelError for a graph without what the pooling reads: an encoder, its lengths, the encodings of all tokens, or the
    pooler. Returns 1, the number of outputs.
    """
    pooled = graph.copy()
    end = _find_pooler(pooled) if pooling == "pooled" else _pool(pooled, shapes, pooling)
    pooled.set_outputs([end])
    pooled.cleanup()
    pooled.toposort()
    graph.assign(pooled)
    return 1


def _find_pooler(graph: SymbolGraph) -> Node:
    """Find the tanh of BERT's pooler, by the names of its parameters."""
    waiting = [node for node in graph.nodes if node.name in POOLER]
    while waiting:
        node = waiting.pop()
        if node.op == "Activation" and node.attrs.get("act_type") == "tanh":
            return node
        waiting += graph.consumers(node)
    raise ModelError("does not have a float32 pooler: use the pooling cls, mean or max")


def _pool(graph: SymbolGraph, shapes: Shapes, pooling: str) -> Node:
    encoder = require_encoder(graph, shapes)
    if encoder.layers[-1].first_only and pooling != "cls":
        encoder = _compute_all_tokens(graph, shapes, encoder)
    units, taken = encoder.units, {node.name for node in graph.nodes}

    def add(op: str, name: str, inputs: list[Output | Node], **attrs: object) -> Node:
        attributes = {key: str(value) for key, value in attrs.items()}
        return graph.add(op, free_name(name, taken), inputs, attributes)

    tokens: Output | Node = encoder.output
    if is_time_major(graph, encoder):
        tokens = add("transpose", "pooling_batch_major", [tokens], axes=(1, 0, 2))
    if pooling == "cls":
        first = add("slice_axis", "pooling_first", [tokens], axis=1, begin=0, end=1)
        return add("Reshape", "pooling_cls", [first], shape=(-1, units))
    lengths = _lengths(graph, encoder)
    padding = {"max": {"value": _LOWEST}}.get(pooling, {})
    valid = add("SequenceMask", "pooling_valid", [tokens, lengths], axis=1, use_sequence_length=True, **padding)
    if pooling == "max":
        return add("max", "pooling_max", [valid], axis=1)
    total = add("sum", "pooling_total", [valid], axis=1)
    # As in `encoders.outputs`, a caller may bind integer lengths.
    count = add("Cast", "pooling_count", [lengths], dtype="float32")
    return add("broadcast_div", "pooling_mean", [total, add("expand_dims", "pooling_counts", [count], axis=1)])


def _compute_all_tokens(graph: SymbolGraph, shapes: Shapes, encoder: DetectedEncoder) -> DetectedEncoder:
    """Let the last layer of an encoder, which computes position 0 only, compute all tokens."""
    try:
        spec = extract_spec(graph, encoder, shapes)
    except ModelError as error:  # such as int8
        raise ModelError(f"the last layer computes only the [CLS] token: use the pooling cls ({error})") from None
    replace_encoder(graph, shapes, spec, Form("portable", erf=False), encoder)
    return require_encoder(graph, shapes)


_LOWEST = -1e9  # less than any element of a LayerNorm's output


def _lengths(graph: SymbolGraph, encoder: DetectedEncoder) -> Node:
    if encoder.valid_length is None:
        raise ModelError("does not have the input valid_length, without which padding can't be left out of the pooling")
    return graph.variable(encoder.valid_length)
