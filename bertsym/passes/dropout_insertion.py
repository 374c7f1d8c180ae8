"""Insert Dropout where the training graph of a BERT has it and a graph does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bertsym.analysis.detected_encoder import DetectedEncoder, Layer
from bertsym.analysis.encoder_detection import ADDITIONS, PASSING, require_encoder, skip_passthrough
from bertsym.encoders.catalogue import FULLY_CONNECTED
from bertsym.encoders.graph_heads import DROPOUT
from bertsym.families import FAMILIES, text_head
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.operator_traits import Effect, operators_with

_SHAPED = PASSING | operators_with(Effect.RESHAPE)  # operators whose elements are those of their first input
_PRODUCTS = operators_with(Effect.BATCHED_PRODUCT) | {"_contrib_interleaved_matmul_selfatt_valatt"}

_Place = tuple[Output, list[Node]]  # a tensor, and the nodes that shall read it through Dropout


@dataclass(frozen=True)
class InsertedDropout:
    """The new nodes of a graph."""

    sources: Mapping[str, str]  #: name of the Dropout -> the tensor that it reads


def insert_dropout(
    graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]], p: float, last_layers: Collection[str] = ()
) -> InsertedDropout:
    """Insert Dropout with the probability `p` where a BERT lacks it, in place.

    The places are those of transformers: the normalised embeddings, the attention probabilities, the attention's
    projection and the end of the feed-forward network of each layer, and what the `last_layers` of heads read. Dropout
    before the LayerNorm of the embeddings, as in GluonNLP, counts. `shapes` are the shapes of the parameters. Raises
    ModelError for a graph without an encoder.
    """
    encoder = require_encoder(graph, shapes)
    sources = {}
    with graph.edit():
        for source, readers in _places(graph, encoder, last_layers):
            if not readers or _is_dropped(source):
                continue
            name = DROPOUT if readers[0].name == FULLY_CONNECTED else f"{source.node.name}_dropout"
            name = free_name(name, {node.name for node in graph.nodes})
            dropped = Output(graph.add("Dropout", name, [source], {"p": str(p)}, num_outputs=2))
            for reader in readers:
                graph.set_inputs(reader, [dropped if entry == source else entry for entry in reader.inputs])
            sources[name] = str(source)
        graph.toposort()
    return InsertedDropout(sources)


def _places(graph: SymbolGraph, encoder: DetectedEncoder, last_layers: Collection[str]) -> list[_Place]:
    found, state = [_embeddings(graph, encoder)], encoder.embedding_output
    for layer in encoder.layers:
        found += [_attention(graph, layer), *_branches(layer, state)]
        state = layer.output
    for last in graph.nodes:
        if last.name in last_layers and not last.is_variable:
            found += [(node.inputs[0], [node]) for node in _head_layers(last, encoder)]
    return found


def _is_dropped(entry: Output) -> bool:
    """Whether a tensor is the output of a Dropout, but for its shape."""
    while entry.node.op in _SHAPED and entry.node.op != "Dropout":
        entry = entry.node.inputs[0]
    return entry.node.op == "Dropout"


def _embeddings(graph: SymbolGraph, encoder: DetectedEncoder) -> _Place:
    """The normalised embeddings; no readers where Dropout precedes the LayerNorm, or follows it."""
    end = encoder.embedding_output
    if encoder.embedding_size is not None:
        return end.node.inputs[0], [end.node]  # the projection
    waiting, readers = [end.node], graph.consumers(end)
    while waiting:
        for reader in graph.consumers(waiting.pop()):
            if reader.op == "Dropout":
                return end, []
            if reader.op in _SHAPED:
                waiting.append(reader)
    return end, [] if _is_dropped(end.node.inputs[0]) else readers


def _attention(graph: SymbolGraph, layer: Layer) -> _Place:
    """The attention probabilities; no readers where Dropout precedes the product with the values."""
    probabilities = Output(layer.softmax)
    first = readers = [node for node in graph.consumers(probabilities) if node in layer.nodes]
    while len(readers) == 1 and readers[0].op not in _PRODUCTS:  # after a mask, as in GluonNLP 0.6
        if readers[0].op == "Dropout":
            return probabilities, []
        readers = graph.consumers(readers[0])
    return probabilities, first


def _branches(layer: Layer, state: Output) -> list[_Place]:
    """The attention's projection and the end of the feed-forward network; `state` is the input of the layer."""
    found: list[_Place] = []
    norm: Node | None = layer.output.node
    while norm is not None:
        addition, norm = skip_passthrough(norm.inputs[0]).node, None
        for entry in addition.inputs if addition.op in ADDITIONS else ():
            source = skip_passthrough(entry)
            if source != state and source.node.op == "FullyConnected":
                found.insert(0, (entry, [addition]))
            elif source.node.op == "LayerNorm" and source.node in layer.nodes:
                norm = source.node
    return found


def _head_layers(last: Node, encoder: DetectedEncoder) -> list[Node]:
    """The last layer of a head and, where the family drops the input of the layer before it too, that layer."""
    layers, node = [last], last.inputs[0].node
    while text_head(FAMILIES[encoder.family]).drops_input and node is not encoder.output.node and node.inputs:
        layers += [node] if node.op == "FullyConnected" else []
        node = node.inputs[0].node
    return layers
