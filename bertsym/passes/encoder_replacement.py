"""Replace the encoder of a graph with the same encoder in another form."""

from __future__ import annotations

from collections.abc import Mapping

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detachment import detach_encoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.encoders.forms import Form
from bertsym.encoders.graph import encoder_graph
from bertsym.encoders.spec import EncoderSpec
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import free_name


def replace_encoder(
    graph: SymbolGraph,
    shapes: Mapping[str, tuple[int, ...]],
    spec: EncoderSpec,
    form: Form,
    encoder: DetectedEncoder | None = None,
) -> int:
    """Replace the encoder, which `spec` describes, with the same encoder in another form, in place.

    `shapes` are the shapes of the parameters, `encoder` is the encoder in `graph` if it was detected before. Nodes that
    read outputs of layers still read them; parameters keep their names. Node objects of the graph from before are not
    in it afterwards. Returns the number of layers. Raises ModelError for a node outside the encoder that reads a tensor
    inside a layer.
    """
    detached = detach_encoder(graph, encoder or require_encoder(graph, shapes), first_only=form.first_only)
    rest, placeholders = detached.rest, detached.placeholders
    # Its outputs are batch-major in every form.
    replaced = encoder_graph(spec, form, list(placeholders), first_only=detached.first_only)
    _rename_duplicates(replaced, rest)
    outputs = dict(zip(placeholders.values(), replaced.outputs))
    replaced.set_outputs(replaced.merge(rest, outputs))
    replaced.cleanup()
    replaced.toposort()
    _keep_output_names(replaced, graph)
    _keep_attributes(replaced, graph)
    graph.assign(replaced)
    return detached.num_layers


def _rename_duplicates(encoder: SymbolGraph, rest: SymbolGraph) -> None:
    """Rename operators of the new encoder whose names the rest of the graph uses."""
    taken = {node.name for node in rest.nodes}
    names = {node.name for node in encoder.nodes} | taken
    shared = [node.name for node in encoder.nodes if node.name in taken and not node.is_variable]
    encoder.rename({name: free_name(name, names) for name in shared})


def _keep_output_names(graph: SymbolGraph, original: SymbolGraph) -> None:
    """Give outputs of the graph that the encoder computes their names from before: callers select outputs by name."""
    names = {
        entry.node: old.node.name
        for entry, old in zip(graph.outputs, original.outputs)
        if entry.node.name != old.node.name
    }
    every = {node.name for node in graph.nodes}
    others = [node for node in graph.nodes if node.name in names.values() and node not in names]
    graph.rename({**{node: free_name(f"{node.name}_", every) for node in others}, **names})


def _keep_attributes(graph: SymbolGraph, original: SymbolGraph) -> None:
    """Keep the attributes of variables: initializers, learning rates, dtypes."""
    before = {node.name: node.attrs for node in original.nodes if node.is_variable}
    with graph.edit():
        for node in graph.nodes:
            if node.is_variable:
                node.attrs = dict(sorted({**before.get(node.name, {}), **node.attrs}.items()))
