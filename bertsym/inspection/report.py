"""Inspect a symbol: its encoder, inputs, outputs and parameters, and what its classifiers read."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsym.analysis.classifier_report import ClassifierReport
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.known_defects import Defect, known_defects
from bertsym.analysis.sentences import classifier_sentence, form_text, step_text
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes
from bertsym.bundle import TOKENIZER, Bundle
from bertsym.encoders.sentence_embedding import SentenceEmbedding
from bertsym.inspection.parts import Part, group_parameters
from bertsym.model import Model, ModelSource
from bertsym.signature import embedding_json
from bertsym.symbol.attributes import integers
from bertsym.symbol.node import Node, Output
from bertsym.symbol.node_names import references
from bertsym.symbol.operator_versions import Oldest, oldest_mxnet
from bertsym.symbol.quantized_layers import quantized_layers
from bertsym.symbol.variable_roles import auxiliary_states

Shape = tuple[int, ...]
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class TensorFact:
    """An input, a label or an output; the shape is None where it is unknown."""

    name: str
    shape: Axes | None
    meaning: str = ""


@dataclass(frozen=True)
class NodeFact:
    """A node of the graph."""

    name: str  #: the second node with a repeated name is ``NAME#2``
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, str]
    shape: Axes | None


@dataclass(frozen=True)
class ArrayFact:
    """An array of the parameter file."""

    name: str
    kind: str  #: ``arg`` or ``aux`` by the graph; as in the file where the graph does not read the array
    shape: Shape
    dtype: str
    bytes: int
    read: bool  #: whether the graph reads it


@dataclass(frozen=True)
class InspectResult:
    """What `inspect` finds; docs/inspect.schema.json describes the result of `to_json`."""

    name: str
    symbol: str
    params: str | None
    bundle: str | None  #: kind of bundle, such as ``classifier``; None for other files
    family: str | None  #: from the signature of a BERT bundle, as the next five
    task: str | None
    dataset: str | None
    class_names: tuple[str, ...]
    embedding: SentenceEmbedding | None
    encoder_trained: bool | None
    trained: bool | None  #: from the signature of any bundle
    texts: str | None  #: how a BERT's bundle tokenizes texts
    special_tokens: Mapping[str, str] | None  #: role -> token, of a BERT's bundle
    special_ids: Mapping[str, int] | None  #: role -> id of that token
    written_by: str | None  #: version of MXNet that wrote the symbol
    encoder: DetectedEncoder | None
    inputs: list[TensorFact]
    label_inputs: list[TensorFact]
    outputs: list[TensorFact]
    parts: list[Part]
    missing: list[str]
    superfluous: list[str]
    misshapen: list[str]  #: parameters whose shape differs from the graph's
    operators: dict[str, int]
    oldest: Oldest
    defects: list[Defect]  #: nodes that a release of MXNet computes wrong
    classifiers: list[ClassifierReport]  #: also of outputs without a classifier
    int8: list[str]  #: FullyConnecteds that are computed in int8
    int8_for: str | None  #: a key of INT8_PROCESSORS, from the signature of a bundle that quantize wrote
    nodes: list[NodeFact]
    arrays: list[ArrayFact]
    path: list[NodeFact] | None
    notes: list[str]  #: such as why the parameters were not read

    @property
    def sentences(self) -> list[str]:
        """One sentence for each of `classifiers`."""
        return [classifier_sentence(report) for report in self.classifiers]

    def to_json(self, *, nodes: bool = False, params: bool = False) -> dict[str, Any]:
        """Convert to JSON types; with all nodes and all parameters on request."""
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
            "embedding": embedding_json(self.embedding),
            "trained": self.trained,
            "encoder_trained": self.encoder_trained,
            "texts": self.texts,
            "special_tokens": None if self.special_tokens is None else dict(self.special_tokens),
            "special_ids": None if self.special_ids is None else dict(self.special_ids),
            "written_by_mxnet": self.written_by,
            "bert": None
            if encoder is None
            else {
                "layers": len(encoder.layers),
                "units": encoder.units,
                "heads": encoder.num_heads,
                "hidden_size": encoder.hidden_size,
                "embedding_size": encoder.embedding_size,
                "shares_layers": encoder.shares_layers,
                "vocab_size": encoder.vocab_size,
                "token_type_vocab_size": encoder.token_type_vocab_size,
                "max_length": encoder.max_length,
                "length": encoder.length,
                "layer_norm_eps": encoder.layer_norm_eps,
                "form": form_text(encoder.form),
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
                "numbers": sum(part.elements for part in self.parts),
                "bytes": sum(part.bytes for part in self.parts),
                "parts": [part.to_json() for part in self.parts],
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
            "answers": [_report_json(report) for report in self.classifiers],
            "int8": self.int8,
            "int8_for": self.int8_for,
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
    source: str | Path | ModelSource,
    *,
    path: tuple[str, str] | None = None,
    infer_shapes: bool = False,
) -> InspectResult:
    """Inspect the symbol of a bundle, of a checkpoint, or of a symbol file.

    `path` are two nodes; the result lists the nodes between them. With `infer_shapes`, or where the source gives shapes
    of inputs, MXNet infers the shapes of all tensors; without given shapes the batch size N and the length T of a BERT
    stay free. Otherwise mxnet is not imported. The digests of a bundle's large files are not compared; `verify`
    compares them. If the source is a symbol file and its parameters can't be read, the symbol is inspected without
    them; `notes` state the reason.

    Raises UsageError and ModelError.
    """
    source = ModelSource.of(source)
    model = source.open(digests=False, symbol_alone=True)
    return report(model, path=path, shapes=source.shapes or {} if source.shapes or infer_shapes else None)


def report(
    model: Model, *, path: tuple[str, str] | None = None, shapes: Mapping[str, Shape] | None = None
) -> InspectResult:
    """Inspect an opened model, as `inspect` does."""
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
    nodes_between = None
    if path is not None:
        nodes_between = [facts[node] for node in graph.between(*(model.output(name).node for name in path))]
    variables = {node.name: node for node in graph.nodes if node.is_variable}
    inputs = [_input_fact(variables[name], encoder, known) for name in model.inputs]
    oldest = oldest_mxnet(graph.nodes)
    return InspectResult(
        name=model.name,
        symbol=str(model.symbol_path),
        params=str(model.params_path) if model.params_path is not None else None,
        bundle=_bundle_kind(bundle) if bundle is not None else None,
        family=signature.family if signature is not None else None,
        task=signature.task if signature is not None else None,
        dataset=signature.dataset if signature is not None else None,
        class_names=signature.class_names if signature is not None else (),
        embedding=signature.embedding if signature is not None else None,
        encoder_trained=signature.encoder_trained if signature is not None else None,
        trained=bundle.signature.trained if bundle is not None else None,
        texts=_describe_texts(bundle) if isinstance(bundle, Bundle) else None,
        special_tokens=signature.special_tokens if signature is not None else None,
        special_ids=signature.special_ids if signature is not None else None,
        written_by=graph.mxnet_version,
        encoder=encoder,
        inputs=inputs,
        label_inputs=[
            _tensor_fact(variables[name], known, "label, read by the loss only") for name in model.label_inputs
        ],
        outputs=[TensorFact(output.text(names), known.get(output)) for output in graph.outputs],
        parts=group_parameters(model),
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
        classifiers=model.classifier_reports,
        int8=quantized_layers(graph),
        int8_for=signature.int8_for if signature is not None else None,
        nodes=list(facts.values()),
        arrays=_list_arrays(model),
        path=nodes_between,
        notes=list(model.notes),
    )


def _describe_texts(bundle: Bundle) -> str:
    signature = bundle.signature
    max_length = signature.max_length if bundle.has(TOKENIZER) else None
    return signature.tokenizer.describe(max_length, bundle.config.vocab_size)


def _bundle_kind(bundle: Any) -> str:
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
    """Describe a variable by its known shape, or by the shape that it declares."""
    declared: Axes = tuple(size if size else "?" for size in integers(node.attrs, "__shape__"))
    return TensorFact(node.name, known.get(Output(node), declared or None), meaning)


def _list_arrays(model: Model) -> list[ArrayFact]:
    if model.params is None:
        return []
    states = set(auxiliary_states(model.graph))
    kinds = {name: "aux" if name in states else "arg" for name in model.graph.variables}
    return [
        ArrayFact(name, kinds.get(name, info.kind), info.shape, _dtype_name(info.dtype), info.nbytes, name in kinds)
        for name, info in model.params.infos.items()
    ]


def _report_json(report: ClassifierReport) -> dict[str, Any]:
    """What docs/inspect.schema.json calls an answer."""
    return {
        "output": report.output.node.name,
        "classifier": report.classifier.name if report.classifier else None,
        "num_outputs": report.num_outputs,
        "reads": str(report.reads),
        "kind": report.kind.value,
        "position": report.position,
        "steps": [step_text(step) for step in report.steps],
        "shape": report.shape,
        "locked_length": report.locked_length,
        "sentence": classifier_sentence(report),
        "nodes": [node.name for node in report.nodes],
    }


def _dtype_name(code: str) -> str:
    import numpy as np

    return str(np.dtype(code))
