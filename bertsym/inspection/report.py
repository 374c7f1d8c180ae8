"""The facts of a symbol: what it is, its inputs and outputs, its parameters, and what its classifier reads."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.analysis.classifier_report import Answer
from bertsym.analysis.encoder_detection import DetectedEncoder
from bertsym.analysis.known_defects import Defect, known_defects
from bertsym.analysis.token_flow import BATCH, LENGTH, Axes
from bertsym.bundle import Bundle
from bertsym.model import Model, open_model
from bertsym.symbol.attributes import integers
from bertsym.symbol.names import references
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operators import Oldest, oldest_mxnet
from bertsym.symbol.quantized_layers import quantized_layers
from bertsym.symbol.variable_roles import auxiliary_states

Shape = tuple[int, ...]
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Part:
    """The parameters of one part of the graph: the embeddings, a layer, the pooler, what stands on top."""

    name: str
    arrays: int
    numbers: int
    bytes: int


@dataclass(frozen=True)
class TensorFact:
    """An input, a label or an output; the shape is None where the graph does not tell it."""

    name: str
    shape: Axes | None
    meaning: str = ""


@dataclass(frozen=True)
class NodeFact:
    """One node, for the list of nodes."""

    name: str  #: ``NAME#2`` of the second node of a name that repeats
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, str]
    shape: Axes | None


@dataclass(frozen=True)
class ArrayFact:
    """One parameter of the file."""

    name: str
    kind: str  #: ``arg`` or ``aux`` by the graph; of an array that the graph does not read, what the file says
    shape: Shape
    dtype: str
    bytes: int
    read: bool  #: whether the graph reads it


@dataclass(frozen=True)
class InspectResult:
    """All that `inspect` finds; `to_json` is the documented form (docs/inspect.schema.json)."""

    name: str
    symbol: str
    params: str | None
    bundle: str | None  #: the kind that the signature tells, such as ``classifier``; None for other files
    family: str | None  #: of a BERT's bundle, as the next four are in its signature
    task: str | None
    dataset: str | None
    class_names: tuple[str, ...]
    encoder_trained: bool | None
    trained: bool | None  #: as in the signature of any bundle
    written_by: str | None  #: version of MXNet
    encoder: DetectedEncoder | None
    inputs: list[TensorFact]
    label_inputs: list[TensorFact]
    outputs: list[TensorFact]
    parts: list[Part]
    missing: list[str]
    superfluous: list[str]
    misshapen: list[str]  #: parameters whose shape is not the one that their variable carries
    operators: dict[str, int]
    oldest: Oldest
    defects: list[Defect]  #: nodes that a release computes wrong
    answers: list[Answer]
    int8: list[str]  #: FullyConnecteds that compute in int8
    nodes: list[NodeFact]
    arrays: list[ArrayFact]
    path: list[NodeFact] | None
    notes: list[str]  #: such as why the parameters beside the symbol were not read

    def to_json(self, *, nodes: bool = False, params: bool = False) -> dict[str, Any]:
        """The facts for JSON; the lists of all nodes and all parameters where they are asked for."""
        encoder = self.encoder
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "symbol": self.symbol,
            "params": self.params,
            "bundle": self.bundle,
            "family": self.family,
            "task": self.task,
            "dataset": self.dataset,
            "class_names": list(self.class_names),
            "trained": self.trained,
            "encoder_trained": self.encoder_trained,
            "written_by_mxnet": self.written_by,
            "bert": None
            if encoder is None
            else {
                "layers": len(encoder.layers),
                "units": encoder.units,
                "heads": encoder.num_heads,
                "hidden_size": encoder.hidden_size,
                "vocab_size": encoder.vocab_size,
                "token_type_vocab_size": encoder.token_type_vocab_size,
                "max_length": encoder.max_length,
                "length": encoder.length,
                "layer_norm_eps": encoder.layer_norm_eps,
                "form": encoder.form,
                "guarded": encoder.guarded,
                "encoder_output": str(encoder.output),
                "layer_outputs": [str(layer.output) for layer in encoder.layers],
            },
            "inputs": [vars(fact) for fact in self.inputs],
            "label_inputs": [vars(fact) for fact in self.label_inputs],
            "outputs": [vars(fact) for fact in self.outputs],
            "parameters": None
            if self.params is None
            else {
                "arrays": sum(part.arrays for part in self.parts),
                "numbers": sum(part.numbers for part in self.parts),
                "bytes": sum(part.bytes for part in self.parts),
                "parts": [vars(part) for part in self.parts],
                "missing": self.missing,
                "superfluous": self.superfluous,
                "misshapen": self.misshapen,
            },
            "operators": self.operators,
            "oldest_mxnet": {
                "version": self.oldest.version,
                "because": [dataclasses.asdict(requirement) for requirement in self.oldest.requirements],
                "unknown": [dataclasses.asdict(unknown) for unknown in self.oldest.unknown],
            },
            "defects": [dataclasses.asdict(defect) for defect in self.defects],
            "answers": [answer.to_json() for answer in self.answers],
            "int8": self.int8,
            "notes": self.notes,
        }
        if nodes:
            document["nodes"] = [vars(fact) for fact in self.nodes]
        if params:
            document["arrays"] = [vars(fact) for fact in self.arrays]
        if self.path is not None:
            document["path"] = [vars(fact) for fact in self.path]
        return document


def inspect(
    symbol: str | Path,
    params: str | Path | None = None,
    *,
    epoch: int | None = None,
    path: tuple[str, str] | None = None,
    shapes: Mapping[str, Shape] | None = None,
) -> InspectResult:
    """Tell what a symbol is: of a bundle, of a checkpoint's PREFIX, or of any symbol file.

    `path` are two nodes between which the way of the data is wanted. With `shapes`, those of the inputs, mxnet
    computes the shapes of all tensors; an empty mapping leaves the batch size N and the length T of a BERT free.
    Without it mxnet is not imported. The digests of a bundle's large files are not compared (`verify` does that). A
    symbol that is named by its own path is inspected alone where the files beside it can't be read; `notes` say why.

    Raises UsageError and ModelError.
    """
    return report(open_model(symbol, params, epoch=epoch, digests=False, symbol_alone=True), path=path, shapes=shapes)


def report(
    model: Model, *, path: tuple[str, str] | None = None, shapes: Mapping[str, Shape] | None = None
) -> InspectResult:
    """The facts of an opened model, as `inspect`."""
    graph, encoder, bundle = model.graph, model.encoder, model.bundle
    signature = bundle.signature if isinstance(bundle, Bundle) else None
    known: dict[Output, Axes] = {output: trace.axes for output, trace in model.traces.items()}
    if encoder is not None and encoder.length is not None:
        known = {key: tuple(encoder.length if axis == LENGTH else axis for axis in axes) for key, axes in known.items()}
    for node in graph.nodes:
        if node.is_variable and node.name in model.param_shapes:
            known[Output(node)] = model.param_shapes[node.name]
    if shapes is not None:
        from bertsym.execution import all_shapes

        known.update(all_shapes(model, shapes))
    known = {**model.signature_axes, **known}
    names = references(graph.nodes)
    facts = {node: _node_fact(node, names, known) for node in graph.nodes}
    way = None
    if path is not None:
        way = [facts[node] for node in graph.between(*(model.output(name).node for name in path))]
    variables = {node.name: node for node in graph.nodes if node.is_variable}
    inputs = [_input_fact(variables[name], encoder, known) for name in model.inputs]
    oldest = oldest_mxnet(graph.nodes)
    return InspectResult(
        name=model.name,
        symbol=str(model.symbol_path),
        params=str(model.params_path) if model.params_path is not None else None,
        bundle=_kind(bundle) if bundle is not None else None,
        family=signature.family if signature is not None else None,
        task=signature.task if signature is not None else None,
        dataset=signature.dataset if signature is not None else None,
        class_names=signature.class_names if signature is not None else (),
        encoder_trained=signature.encoder_trained if signature is not None else None,
        trained=bundle.signature.trained if bundle is not None else None,
        written_by=graph.mxnet_version,
        encoder=encoder,
        inputs=inputs,
        label_inputs=[
            _tensor_fact(variables[name], known, "label, read by the loss only") for name in model.label_inputs
        ],
        outputs=[TensorFact(output.text(names), known.get(output)) for output in graph.outputs],
        parts=_parts(model),
        missing=model.missing,
        superfluous=model.superfluous,
        misshapen=model.misshapen,
        operators=dict(
            sorted(
                collections.Counter(node.op for node in graph.nodes if not node.is_variable).items(),
                key=lambda item: (-item[1], item[0]),
            )
        ),
        oldest=oldest,
        defects=[defect for defect in known_defects(graph) if defect.loads_from(oldest.version)],
        answers=model.answers,
        int8=quantized_layers(graph),
        nodes=list(facts.values()),
        arrays=_arrays(model),
        path=way,
        notes=list(model.notes),
    )


def _kind(bundle: Any) -> str:
    return bundle.signature.kind if isinstance(bundle, Bundle) else "symbol"


def _node_fact(node: Node, names: Mapping[Node, str], known: Mapping[Output, Axes]) -> NodeFact:
    inputs = tuple(entry.text(names) for entry in node.inputs)
    return NodeFact(names[node], node.op, inputs, dict(node.attrs), known.get(Output(node)))


def _input_fact(node: Node, encoder: DetectedEncoder | None, known: Mapping[Output, Axes]) -> TensorFact:
    length = (encoder.length if encoder else None) or LENGTH
    if encoder is not None and node.name in encoder.inputs:
        shape: Axes = (BATCH,) if node.name == encoder.valid_length else (BATCH, length)
        return TensorFact(node.name, known.get(Output(node), shape), encoder.inputs[node.name])
    return _tensor_fact(node, known)


def _tensor_fact(node: Node, known: Mapping[Output, Axes], meaning: str = "") -> TensorFact:
    """With the shape that is known, or that the variable itself carries."""
    carried: Axes = tuple(size if size else "?" for size in integers(node.attrs, "__shape__"))
    return TensorFact(node.name, known.get(Output(node), carried or None), meaning)


def _parts(model: Model) -> list[Part]:
    """Parameters by the part of the graph that reads them; those that nothing reads are left out."""
    if model.params is None:
        return []
    places: dict[str, list[str]] = {}
    for name, part in _part_of_parameters(model).items():
        if name in model.param_shapes:
            places.setdefault(part, []).append(name)
    infos = model.params.infos
    return [_part(name, (infos[array] for array in arrays)) for name, arrays in places.items()]


def _part(name: str, infos: Iterable[Any]) -> Part:
    found = list(infos)
    sizes = [info.nbytes for info in found]
    return Part(name, len(found), sum(size // _width(info.dtype) for size, info in zip(sizes, found)), sum(sizes))


def _width(dtype: str) -> int:
    return {"<f8": 8, "<i8": 8, "<f4": 4, "<i4": 4, "<f2": 2}.get(dtype, 1)


def _part_of_parameters(model: Model) -> dict[str, str]:
    """Parameter -> name of its part, in the order of the graph."""
    encoder, graph = model.encoder, model.graph
    if encoder is None:
        return dict.fromkeys(model.parameters, "all")
    inside = {node: f"layer {i}" for i, layer in enumerate(encoder.layers) for node in layer.nodes}
    inside.update(dict.fromkeys(encoder.embedding_nodes, "embeddings"))
    first = graph.ancestors(encoder.layers[0].output.node)
    found: dict[str, str] = {}
    found_answers = model.answers
    pooler = {answer.read.node for answer in found_answers if answer.kind == "pooled"}
    pooled = {node for end in pooler for node in graph.between(encoder.output.node, end)}
    wanted = set(model.parameters)
    for node in graph.nodes:
        part = inside.get(node) or ("pooler" if node in pooled else "embeddings" if node in first else "head")
        for entry in node.inputs:
            if entry.node.is_variable and entry.node.name in wanted:
                found.setdefault(entry.node.name, part)
    return found


def _arrays(model: Model) -> list[ArrayFact]:
    if model.params is None:
        return []
    states = set(auxiliary_states(model.graph))
    kinds = {name: "aux" if name in states else "arg" for name in model.graph.variables}
    return [
        ArrayFact(name, kinds.get(name, info.kind), info.shape, _dtype(info.dtype), info.nbytes, name in kinds)
        for name, info in model.params.infos.items()
    ]


def _dtype(code: str) -> str:
    import numpy as np

    return str(np.dtype(code))
