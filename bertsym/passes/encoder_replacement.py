"""An encoder in a graph replaced by one in another form, and the rest fitted to it."""

from __future__ import annotations

from collections.abc import Mapping

from bertsym.analysis.encoder_detection import DetectedEncoder, is_first, require_encoder
from bertsym.analysis.token_flow import exchanges, is_time_major
from bertsym.encoders.forms import TARGETS, Form
from bertsym.encoders.graph import encoder_symbol
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.passes.gelu import decompose_gelu
from bertsym.symbol.attributes import flag, integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.operators import oldest_mxnet

_OLDEST = TARGETS["1.4"].release
_PLACE = "encoder output: "  # no node of MXNet's is named so
# Attributes that newer MXNets write although they change nothing: operator -> attribute -> the value that does not.
_NEUTRAL = {
    "Dropout": {"cudnn_off": "False"},
    "Embedding": {"sparse_grad": "False"},
    "softmax": {"dtype": "None", "temperature": "None", "use_length": "False"},
    "log_softmax": {"dtype": "None", "temperature": "None", "use_length": "False"},
}


def replace_encoder(
    original: SymbolGraph, shapes: Mapping[str, tuple[int, ...]], spec: EncoderSpec, form: Form
) -> SymbolGraph:
    """A graph of the same function, with the encoder of `spec` in another form.

    `shapes` are those of the parameters. What reads outputs of layers keeps reading them; parameters keep their
    names. Raises ModelError for a node that reads something inside of a layer.
    """
    rest = original.copy()
    bert = require_encoder(rest, shapes)
    time_major = is_time_major(rest, bert)
    places = _cut(rest, bert)
    if time_major:
        for name in places.values():
            _read_batch_major(rest, rest.variable(name))
    last = places.get(spec.config.num_layers)
    first_only = bert.layers[-1].first_only
    if last is not None and not first_only:
        first_only = form.first_only and _only_first_is_read(rest, rest.variable(last))
    elif last is not None and not form.first_only:
        _read_first(rest, rest.variable(last))
    # Batch-major, whatever the form runs in.
    graph = SymbolGraph.parse(encoder_symbol(spec, form, list(places), first_only=first_only).tojson())
    _free_names(graph, rest)
    outputs = dict(zip(places.values(), graph.outputs))
    graph.set_outputs(graph.join(rest, outputs))
    graph.cleanup()
    graph.toposort()
    _keep_output_names(graph, original)
    _keep_attributes(graph, original)
    return graph


def _cut(rest: SymbolGraph, bert: DetectedEncoder) -> dict[int, str]:
    """Take the encoder out: place, as `encoder_symbol` counts them -> the variable that stands for it now."""
    boundary = [bert.embedded, *(layer.output for layer in bert.layers)]
    inside = {node for layer in bert.layers for node in layer.nodes}
    within = inside | {node for node in bert.embedding if not node.is_variable}
    places: dict[int, str] = {}
    with rest.edit():
        for place, output in enumerate(boundary):
            readers = [node for node in rest.consumers(output) if node not in within]
            if readers or output in rest.outputs:
                places[place] = f"{_PLACE}{place}"
                rest.cut(output, places[place])
        rest.cleanup()
    left = [node for node in rest.nodes if node in inside]
    if left:
        reader = next((f", {node.name} reads it" for node in rest.consumers(left[-1]) if node not in inside), "")
        raise ModelError(f"node {left[-1].name} ({left[-1].op}) lies inside of the encoder, and is needed{reader}")
    return places


def _read_batch_major(rest: SymbolGraph, place: Node) -> None:
    """Let the readers of what was (T, N, U) read (N, T, U)."""
    with rest.edit():
        waiting = [place]
        while waiting:
            source = waiting.pop()
            others = []
            for reader in rest.consumers(source):
                masks = reader.op == "SequenceMask" and reader.inputs[0].node is source
                if exchanges(reader) and Output(reader) in rest.outputs:
                    rest.replace(reader, "_copy")  # the output keeps its name
                elif exchanges(reader):
                    rest.rewire(reader, source)
                elif masks and integer(reader.attrs, "axis", 0) == 0 and Output(reader) not in rest.outputs:
                    rest.set_attribute(reader, "axis", "1")
                    waiting.append(reader)
                else:
                    others.append(reader)
            if others or Output(source) in rest.outputs:
                _insert_before(rest, source, others, "transpose", "time-major", {"axes": "(1, 0, 2)"})
        rest.cleanup()  # of exchanges that nothing reads now, and that are no readers therefore


def _insert_before(
    rest: SymbolGraph, source: Node, readers: list[Node], op: str, suffix: str, attrs: Mapping[str, str]
) -> None:
    """Put an operator between `source` and some of its readers, and the graph's outputs where it is one."""
    name = f"{readers[0].name if readers else source.name.replace(_PLACE, 'encoder')}-{suffix}"
    node = rest.add(op, free_name(name, {node.name for node in rest.nodes}), [source], attrs)
    for reader in readers:
        rest.set_inputs(reader, [Output(node) if entry == Output(source) else entry for entry in reader.inputs])
    rest.set_outputs([Output(node) if entry == Output(source) else entry for entry in rest.outputs])


def _read_first(rest: SymbolGraph, place: Node) -> None:
    """Let the readers of what was position 0 alone, (N, 1, U), take it from (N, T, U)."""
    readers = [node for node in rest.consumers(place) if not is_first(node)]
    if readers or Output(place) in rest.outputs:
        with rest.edit():
            attrs = {"axis": "1", "begin": "0", "end": "1"}
            _insert_before(rest, place, readers, "slice_axis", "first", attrs)


def _only_first_is_read(rest: SymbolGraph, place: Node) -> bool:
    """Whether position 0 is all that is read of (N, T, U); a mask of the padding before it is then left out."""
    readers = rest.consumers(place)
    masks = [node for node in readers if _masks_padding(node, place)]
    slices = [node for reader in readers for node in (rest.consumers(reader) if reader in masks else [reader])]
    if Output(place) in rest.outputs or any(Output(mask) in rest.outputs for mask in masks):
        return False
    if not slices or not all(is_first(node) for node in slices):
        return False
    for mask in masks:  # position 0 is no padding
        rest.rewire(mask, place)
    return True


def _masks_padding(node: Node, source: Node) -> bool:
    along = integer(node.attrs, "axis", 0) == 1 and flag(node.attrs, "use_sequence_length", False)
    return node.op == "SequenceMask" and node.inputs[0].node is source and along


def _free_names(graph: SymbolGraph, rest: SymbolGraph) -> None:
    """Rename operators of the new encoder whose names the rest has."""
    taken = {node.name for node in rest.nodes}
    names = {node.name for node in graph.nodes} | taken
    shared = [node.name for node in graph.nodes if node.name in taken and not node.is_variable]
    graph.rename({name: free_name(name, names) for name in shared})


def _keep_output_names(graph: SymbolGraph, original: SymbolGraph) -> None:
    """Let tensors of the encoder that the graph ends in keep their names, by which they are asked for."""
    names = {
        entry.node: old.node.name
        for entry, old in zip(graph.outputs, original.outputs)
        if entry.node.name != old.node.name
    }
    every = {node.name for node in graph.nodes}
    others = [node for node in graph.nodes if node.name in names.values() and node not in names]
    graph.rename({**{node: free_name(f"{node.name}_", every) for node in others}, **names})


def _keep_attributes(graph: SymbolGraph, original: SymbolGraph) -> None:
    """Let variables keep what they carried: initialisers, learning rates, types."""
    before = {node.name: node.attrs for node in original.nodes if node.is_variable}
    with graph.edit():
        for node in graph.nodes:
            if node.is_variable:
                node.attrs = dict(sorted({**before.get(node.name, {}), **node.attrs}.items()))


def fit_to(graph: SymbolGraph, form: Form, release: str | None) -> None:
    """Change operators outside of the encoder, in place, so that the MXNet `release` loads them and computes right.

    The file then says that this release wrote it. Raises ModelError for a node that it does not load all the same.
    Without a release, only what hinders the oldest one for no reason is left out.
    """
    if form.erf:
        decompose_gelu(graph)
    if release is not None:
        graph.set_mxnet_version(release)
    with graph.edit():
        for node in graph.nodes:
            if _missing(node, release or _OLDEST):
                neutral = _NEUTRAL.get(node.op, {})
                node.attrs = {key: value for key, value in node.attrs.items() if neutral.get(key) != value}
                if release is not None and (missing := _missing(node, release)):
                    where = f"node {node.name}, outside of the encoder"
                    raise ModelError(f"{where}: MXNet {release} does not load {missing[0]}")


def _missing(node: Node, release: str) -> list[str]:
    """What a node has that the MXNet `release` does not load."""
    found = oldest_mxnet([node])
    missing = [fact.reason for fact in found.unknown]
    if _numbers(found.version) > _numbers(release):
        missing += [fact.reason for fact in found.requirements]
    return missing


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
