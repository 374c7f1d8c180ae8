"""Write the result of surgery: as a BERT bundle if it still is an exported BERT, as a symbol bundle otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes, rename_axes
from bertsym.array import Array
from bertsym.bundle import (
    SYMBOL,
    TRAIN_SYMBOL,
    Bundle,
    BundleContent,
    SymbolBundle,
    SymbolContent,
    bundle_paths,
    check_bert,
    stage_bundle,
)
from bertsym.datasets.columns import Columns
from bertsym.encoders.catalogue import FULLY_CONNECTED, OUTPUTS
from bertsym.encoders.config import BertConfig
from bertsym.errors import ModelError, UsageError
from bertsym.execution import Shape, UnknownShapeError, input_axes, known_shapes, listed_outputs, sizes_of
from bertsym.execution.engines import engine_name, engine_version, is_verifying
from bertsym.json_reader import JsonValue
from bertsym.model import Model
from bertsym.signature import Signature, SymbolSignature, Tensor, bert_inputs
from bertsym.surgery.bundle_options import BertOrigin, BundleOptions, apply_options
from bertsym.surgery.completion import Completed, EncoderForm, complete
from bertsym.surgery.output_comparison import DEFAULT_RTOL, Difference, NotComparableError, find_fusion_faults
from bertsym.surgery.reloading import reload_written
from bertsym.symbol.attributes import integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_versions import oldest_mxnet
from bertsym.symbol.params import NewParameters
from bertsym.symbol.validation import DTYPES


@dataclass(frozen=True)
class Changed:
    """A changed model, before it is written."""

    model: Model
    train_graph: SymbolGraph | None = None
    #: inputs that only the training graph has
    label_inputs: tuple[Tensor, ...] = ()
    #: signature for a BERT bundle; form, oldest MXNet and guard are taken from the graph
    signature: Signature | None = None
    config: BertConfig | None = None
    #: as in `SymbolSignature`; None keeps the value of the original
    trained: bool | None = None
    is_bert: bool = True  #: False if the result can't be a BERT bundle
    target: str | None = None  #: MXNet release that the graph was adapted to, a key of `encoders.forms.TARGETS`
    #: known shapes of the model's inputs and outputs
    shapes: Mapping[Output, Axes] = field(default_factory=dict)
    #: what the bundle of a BERT has and the model may lack
    options: BundleOptions = BundleOptions()
    written: EncoderForm = EncoderForm()  #: of a bundle that is completed with the options
    #: input shapes that the user gave
    given_shapes: Mapping[str, Shape] | None = None


@dataclass(frozen=True)
class SurgeryResult:
    """The bundle that `extract`, `graft_head`, `lower` or `edit` wrote, with its verification."""

    bundle: Bundle | SymbolBundle
    checks: list[Difference]  #: outputs compared with the original
    notes: list[str]
    loaders: list[str]  #: MXNet loaders whose outputs from the written files equal those of the graph

    @property
    def verified(self) -> bool:
        """Whether the outputs were compared with the original and are equal within tolerance."""
        return bool(self.checks) and all(found.relative <= DEFAULT_RTOL for found in self.checks)


def changed_model(
    original: Model,
    graph: SymbolGraph,
    params: Mapping[str, Array],
    *,
    names: Mapping[str, str] | None = None,
    axes: Mapping[str, Axes] | None = None,
) -> Model:
    """Build the model of a changed graph, with the parameters of `params` that the graph reads.

    `names` maps old names of inputs to new names; `axes` are the shapes of inputs that the original does not have.
    """
    variables = set(graph.variables)
    kept = {name: array for name, array in params.items() if name in variables}  # in the order of the file
    known = {(names or {}).get(name, name): shape for name, shape in input_axes(original).items()}
    known = {name: shape for name, shape in {**known, **(axes or {})}.items() if name in variables}
    name = f"{original.name} as changed"
    new = NewParameters(kept)
    return Model(name, original.symbol_path, graph, new, None, None, original.trusted, known)


def write(
    original: Model,
    changed: Changed,
    out: str | Path,
    check: Callable[[], list[Difference]],
    *,
    force: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> SurgeryResult:
    """Write a changed model as a bundle at `out`, after `check` has compared it with the original.

    UnknownShapeError and NotComparableError of `check` become notes. A model whose outputs differ from those of the
    original is no longer an exported BERT.

    Raises UsageError, ModelError or VerificationError; `out` is then unchanged.
    """
    notes = [*original.notes]
    with stage_bundle(out, force) as stage:
        if {path.resolve() for path in bundle_paths(Path(out))} & _files(original):
            raise UsageError(f"{out} is the input of this command: choose another PREFIX")
        names = listed_outputs(changed.model.graph, str(out), trusted=original.trusted)
        if changed.train_graph is not None:
            listed_outputs(changed.train_graph, str(out), trusted=original.trusted)
        try:
            checks = check() if is_verifying() else []
        except (UnknownShapeError, NotComparableError) as error:
            checks = []
            notes.append(f"not compared with the original: {error}")
        for name in find_fusion_faults(changed.model, _sizes(changed.model, changed.shapes)) if is_verifying() else ():
            notes.append(f"MXNet 1.9.1 computes {name} incorrectly unless MXNET_SUBGRAPH_BACKEND=NONE is set")
        same = all(found.relative <= DEFAULT_RTOL for found in checks)
        origin = _bert_origin(original.bundle) if same and changed.is_bert else None
        every = {**_provenance(original, origin), **(facts or {})}
        content, written = _as_bert(origin, changed, every, notes), changed.model
        bundle: Bundle | SymbolBundle
        if content is None and changed.options.is_given:
            completed = _complete(original, changed, every)
            content, written = completed.content, completed.model
            notes += completed.notes
            checks += completed.compare(changed.model, changed.given_shapes, original.name) if is_verifying() else []
        if content is not None:
            bundle = stage.write(content)
        else:
            bundle = stage.write_symbol(_as_symbol(original, changed, names, every))
            if isinstance(original.bundle, Bundle):
                notes.append("no longer an exported BERT: finetune, evaluate, predict and verify don't take it")
        if is_verifying():
            loaders, reasons = reload_written(bundle, written, _sizes(written, changed.shapes), str(out))
            if checks or loaders:
                bundle = stage.add_facts(bundle, {"verification": _record(checks, loaders)})
        else:
            loaders, reasons = [], ["not verified: the outputs were not computed"]
    return SurgeryResult(bundle.moved_to(out), checks, [*notes, *reasons], loaders)


def _record(checks: Sequence[Difference], loaders: Sequence[str]) -> dict[str, Any]:
    """Describe the comparisons for the manifest."""
    return {
        "engine": engine_version(engine_name()),
        "reference": "the original" if checks else None,
        "loaders": list(loaders),
        "rtol": DEFAULT_RTOL,
    }


def _files(model: Model) -> set[Path]:
    """Return the files that a model was read from."""
    paths = [path for path in (model.symbol_path, model.params_path) if path is not None]
    return {path.resolve() for path in (*paths, *(bundle_paths(model.bundle.prefix) if model.bundle else ()))}


def _bert_origin(bundle: Bundle | SymbolBundle | None) -> BertOrigin | None:
    if isinstance(bundle, Bundle):
        return BertOrigin(bundle.config, bundle.signature, bundle.vocabulary(), bundle.tokenizer_json())
    if bundle is None or bundle.signature.origin is None:
        return None
    config = bundle.manifest.get("base", {}).get("config")
    if config is None:
        return None
    signature = Signature.from_json(JsonValue(bundle.signature.origin, "origin"))
    return BertOrigin(BertConfig.from_dict(config), signature, bundle.vocabulary(), bundle.tokenizer_json())


def _provenance(original: Model, origin: BertOrigin | None) -> dict[str, Any]:
    """Describe the origin of the symbol for the manifest."""
    if original.bundle is not None:
        manifest = original.bundle.manifest
        config = origin.config.to_dict() if origin is not None else None
        base = {"files": manifest["files"], "command": manifest["command"], "config": config}
        return {"source": manifest["source"], "base": base, "seed": manifest.get("seed")}
    return {"source": {"spec": original.name, "files": original.digests}, "seed": None}


def _complete(original: Model, changed: Changed, facts: Mapping[str, Any]) -> Completed:
    """Make the bundle of a BERT of a changed model that is not one, with what the options name."""
    trained = changed.trained if changed.trained is not None else _trained(original, changed.model.graph)
    return complete(
        changed.model,
        changed.options,
        changed.written,
        origin=_bert_origin(original.bundle),
        trained=trained is not False,
        where=original.name,
        facts=facts,
    )


def _as_bert(
    source: BertOrigin | None, changed: Changed, facts: Mapping[str, Any], notes: list[str]
) -> BundleContent | None:
    """Return the content of a BERT bundle, or None if the result is not an exported BERT; adds to the `notes`."""
    model = changed.model
    if source is None or model.encoder is None or model.params is None:
        return None
    config = changed.config or dataclasses.replace(source.config, num_layers=len(model.encoder.layers))
    graphs = {SYMBOL: model.graph}
    if changed.train_graph is not None:
        graphs[TRAIN_SYMBOL] = changed.train_graph
    signature = changed.signature or _headless(model, source.signature, config)
    if signature is None:
        return None
    signature = dataclasses.replace(
        signature,
        target_mxnet=changed.target or signature.target_mxnet,
        label_inputs=signature.label_inputs if changed.train_graph is not None else (),
    )
    try:
        check_bert(config, signature, model.params.infos, graphs, str)
    except ModelError:
        return None
    vocabulary, document = source.vocabulary, source.tokenizer_json
    if changed.options.is_given:
        signature, chosen = apply_options(changed.options, source, signature)
        vocabulary, document = chosen.vocabulary, chosen.document
        notes += chosen.notes
    return BundleContent(
        config,
        signature,
        model.graph.to_json(),
        model.params,
        vocabulary,
        facts,
        changed.train_graph.to_json() if changed.train_graph is not None else None,
        document,
        model.encoder,
    )


def known_output(model: Model) -> str | None:
    """Return the key in `OUTPUTS` of the model's only output, or of its classifier's input; None for another tensor."""
    if len(model.classifier_reports) != 1:
        return None
    (report,) = model.classifier_reports
    output, trace = report.kind.value, model.traces.get(report.reads)
    if output not in OUTPUTS or trace is None:
        return None
    # The exported sequence has its padding zeroed, and the exported mean is over the valid tokens.
    if (output == "sequence" and not trace.masked) or (output == "mean" and not trace.counted):
        return None
    return None if report.steps and output != "pooled" else output


def _headless(model: Model, source: Signature, config: BertConfig) -> Signature | None:
    """Build the signature of an encoder that ends in one of the outputs of `export`; None for any other graph."""
    output = known_output(model)
    if output is None or any(node.name == FULLY_CONNECTED for node in model.graph.nodes):
        return None
    shape: tuple[Any, ...] = ("batch", "length") if output == "sequence" else ("batch",)
    return dataclasses.replace(
        encoder_signature(source),
        output=output,
        output_name=f"{model.graph.output_names[0]}_output",
        output_shape=(*shape, config.units),
        max_length=config.max_length,
    )


def encoder_signature(source: Signature) -> Signature:
    """Return the signature of a bundle without the fields of its head and of the head's training."""
    return dataclasses.replace(
        source,
        kind="encoder",
        inputs=bert_inputs(names=source.input_names, segments=source.tokenizer.segments),
        embedding=None,
        task=None,
        dataset=None,
        task_settings={},
        class_names=(),
        label_inputs=(),
        trained=source.encoder_trained,
        pair=False,
        columns=Columns(),
        header=True,
        column_names=Columns(),
        dropped_labels=(),
        precision="float32",
        int8_for=None,
    )


def _as_symbol(original: Model, changed: Changed, names: list[str], facts: Mapping[str, Any]) -> SymbolContent:
    model, source = changed.model, original.bundle
    assert model.params is not None
    meanings = model.encoder.inputs if model.encoder is not None else {}
    origin = None
    if source is not None:
        meanings = {**meanings, **{tensor.name: tensor.meaning for tensor in source.signature.inputs}}
        origin = source.signature.origin if isinstance(source, SymbolBundle) else source.signature.to_json()
    inputs = tuple(
        Tensor(node.name, _shape(changed.shapes.get(Output(node))), _dtype(node), meanings.get(node.name, ""))
        for node in map(model.graph.variable, model.inputs)
    )
    outputs = tuple(
        Tensor(name, _shape(changed.shapes.get(output))) for name, output in zip(names, model.graph.outputs)
    )
    # A training symbol of another program has its label in its only graph.
    known = {tensor.name for tensor in changed.label_inputs}
    label_inputs = (*changed.label_inputs, *(Tensor(name) for name in model.label_inputs if name not in known))
    longest = (
        model.encoder.max_length if model.encoder is not None and model.encoder.token_ids in model.inputs else None
    )
    oldest = oldest_mxnet(model.graph.nodes).version or None
    guarded = model.encoder is not None and model.encoder.guarded
    trained = changed.trained if changed.trained is not None else _trained(original, model.graph)
    signature = SymbolSignature(inputs, outputs, label_inputs, trained, longest, oldest, guarded, origin)
    return SymbolContent(
        signature,
        model.graph.to_json(),
        model.params,
        source.vocabulary() if source is not None else None,
        facts,
        changed.train_graph.to_json() if changed.train_graph is not None else None,
        source.tokenizer_json() if source is not None else None,
    )


def _trained(original: Model, graph: SymbolGraph) -> bool | None:
    """Whether the head of a changed graph was trained or, without a head, the encoder."""
    if original.bundle is None:
        return None
    signature = original.bundle.signature
    classifiers = {report.classifier.name for report in original.classifier_reports if report.classifier}
    if original.encoder is None or any(node.name in classifiers for node in graph.nodes):
        return signature.trained
    if isinstance(signature, Signature):
        return signature.encoder_trained
    return signature.trained if signature.origin is None else bool(signature.origin["encoder_trained"])


def label_inputs(model: Model, names: Mapping[str, str] = MappingProxyType({})) -> tuple[Tensor, ...]:
    """Return the inputs that only the training graph of a bundle has, with their new `names`."""
    bundle = model.bundle
    if isinstance(bundle, SymbolBundle):
        return tuple(
            dataclasses.replace(label, name=names.get(label.name, label.name))
            for label in bundle.signature.label_inputs
        )
    train = model.train_graph()
    if train is None:
        return ()
    own = set(model.graph.variables)
    extra = [name for name in train.variables if name not in own]
    return tuple(Tensor(names.get(name, name), ("batch",)) for name in extra)


def end_shapes(model: Model, shapes: Mapping[str, Shape] | None) -> dict[Output, Axes]:
    """Return the known shapes of the inputs and outputs of a changed model."""
    known = known_shapes(model, shapes)
    ends = [*(Output(model.graph.variable(name)) for name in model.inputs), *model.graph.outputs]
    return {output: known[output] for output in ends if output in known}


def _shape(axes: Axes | None) -> Axes | None:
    """Rename the free axes as in signatures."""
    return None if axes is None else rename_axes(axes, {BATCH: "batch", LENGTH: "length"})


def _sizes(model: Model, axes: Mapping[Output, Axes]) -> dict[str, Shape]:
    """Choose input shapes for running a model, for inputs of known shape."""
    encoder = model.encoder
    length = min(8, (encoder.max_length if encoder is not None else None) or 8)
    known = {name: axes.get(Output(model.graph.variable(name))) for name in model.inputs}
    sizes = {name: sizes_of(axes, 2, length) for name, axes in known.items() if axes is not None}
    return {name: shape for name, shape in sizes.items() if shape is not None}


def _dtype(node: Node) -> str:
    return DTYPES.get(integer(node.attrs, "__dtype__", 0), "float32")
