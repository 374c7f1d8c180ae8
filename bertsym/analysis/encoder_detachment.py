"""A graph without its encoder: what reads the encoder's outputs reads placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import selects_first_token
from bertsym.analysis.token_flow import is_time_major, swaps_batch_and_length
from bertsym.errors import ModelError
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.operator_traits import flag_of, integer_of
from bertsym.symbol.structure import readers_by_node

_PLACEHOLDER = "encoder output: "  # MXNet gives no node such a name


@dataclass(frozen=True)
class DetachedEncoder:
    """A graph without its encoder."""

    rest: SymbolGraph  #: a copy of the graph, in which placeholders stand for outputs of the encoder, (N, T, U)
    placeholders: dict[int, str]  #: number of a layer's output, as in `encoder_graph` -> variable
    num_layers: int
    first_only: bool  #: whether the last layer's placeholder is position 0 alone, (N, 1, U)


def detach_encoder(graph: SymbolGraph, encoder: DetectedEncoder, *, first_only: bool) -> DetachedEncoder:
    """Copy a graph without its encoder.

    With `first_only`, the last layer's output is position 0 alone if no other is read. Raises ModelError for a node
    outside the encoder that reads a tensor inside a layer.
    """
    rest, copies = graph.copied()
    encoder = encoder.mapped(copies)
    time_major = is_time_major(rest, encoder)
    placeholders = _cut(rest, encoder)
    if time_major:
        for name in placeholders.values():
            _read_batch_major(rest, rest.variable(name))
    last, is_first = placeholders.get(len(encoder.layers)), encoder.layers[-1].first_only
    if last is not None and not is_first:
        is_first = first_only and _reads_only_first(rest, rest.variable(last))
    elif last is not None and not first_only:
        _read_first(rest, rest.variable(last))
    return DetachedEncoder(rest, placeholders, len(encoder.layers), first_only and is_first)


def _cut(rest: SymbolGraph, encoder: DetectedEncoder) -> dict[int, str]:
    """Remove the encoder. Returns: number of a layer's output, as in `encoder_graph` -> its placeholder variable."""
    boundary = [encoder.embedding_output, *(layer.output for layer in encoder.layers)]
    inside = {node for layer in encoder.layers for node in layer.nodes}
    encoder_nodes = inside | {node for node in encoder.embedding_nodes if not node.is_variable}
    placeholders: dict[int, str] = {}
    with rest.edit():
        outside = readers_by_node(node for node in rest.nodes if node not in encoder_nodes)
        for number, output in enumerate(boundary):
            reads = any(output in reader.inputs for reader in outside.get(output.node, ()))
            if reads or output in rest.outputs:
                placeholders[number] = f"{_PLACEHOLDER}{number}"
                rest.cut(output, placeholders[number])
        rest.cleanup()
    left = [node for node in rest.nodes if node in inside]
    if left:
        reader = next((node.name for node in rest.consumers(left[-1]) if node not in inside), "an output of the graph")
        raise ModelError(
            f"node {left[-1].name} ({left[-1].op}) is inside the encoder but {reader} reads it: "
            "only outputs of layers can be read"
        )
    return placeholders


def _read_batch_major(rest: SymbolGraph, placeholder: Node) -> None:
    """Let the readers of a tensor that was (T, N, U) read (N, T, U)."""
    with rest.edit():
        waiting = [placeholder]
        while waiting:
            source = waiting.pop()
            others = []
            for reader in rest.consumers(source):
                masks = reader.op == "SequenceMask" and reader.inputs[0].node is source
                if swaps_batch_and_length(reader) and Output(reader) in rest.outputs:
                    rest.replace(reader, "_copy")  # the output keeps its name
                elif swaps_batch_and_length(reader):
                    rest.rewire(reader, source)
                elif masks and integer_of(reader, "axis") == 0 and Output(reader) not in rest.outputs:
                    rest.set_attribute(reader, "axis", "1")
                    waiting.append(reader)
                else:
                    others.append(reader)
            if others or Output(source) in rest.outputs:
                _insert_before(rest, source, others, "transpose", "time-major", {"axes": "(1, 0, 2)"})
        rest.cleanup()  # transposes that nothing reads any more would count as readers


def _insert_before(
    rest: SymbolGraph, source: Node, readers: list[Node], op: str, suffix: str, attrs: Mapping[str, str]
) -> None:
    """Insert an operator between `source` and some of its readers, and the outputs of the graph that are `source`."""
    name = f"{readers[0].name if readers else source.name.replace(_PLACEHOLDER, 'encoder')}-{suffix}"
    node = rest.add(op, free_name(name, {node.name for node in rest.nodes}), [source], attrs)
    for reader in readers:
        rest.set_inputs(reader, [Output(node) if entry == Output(source) else entry for entry in reader.inputs])
    rest.set_outputs([Output(node) if entry == Output(source) else entry for entry in rest.outputs])


def _read_first(rest: SymbolGraph, placeholder: Node) -> None:
    """Let the readers of a tensor that was position 0 alone, (N, 1, U), slice it from (N, T, U)."""
    readers = [node for node in rest.consumers(placeholder) if not selects_first_token(node)]
    if readers or Output(placeholder) in rest.outputs:
        with rest.edit():
            attrs = {"axis": "1", "begin": "0", "end": "1"}
            _insert_before(rest, placeholder, readers, "slice_axis", "first", attrs)


def _reads_only_first(rest: SymbolGraph, placeholder: Node) -> bool:
    """Whether position 0 is all that is read of (N, T, U); masks of the padding are then removed."""
    readers = rest.consumers(placeholder)
    masks = [node for node in readers if _masks_padding(node, placeholder)]
    slices = [node for reader in readers for node in (rest.consumers(reader) if reader in masks else [reader])]
    if Output(placeholder) in rest.outputs or any(Output(mask) in rest.outputs for mask in masks):
        return False
    if not slices or not all(selects_first_token(node) for node in slices):
        return False
    for mask in masks:  # position 0 is never padding
        rest.rewire(mask, placeholder)
    return True


def _masks_padding(node: Node, source: Node) -> bool:
    if node.op != "SequenceMask" or node.inputs[0].node is not source:
        return False
    return integer_of(node, "axis") == 1 and flag_of(node, "use_sequence_length")
