"""Make the bundle of a BERT of any symbol whose encoder and head are detected, with a tokenizer and class names.

The graph is written as `export` writes it, with the parameters under the names of `encoders.parameters`, and its
outputs are compared with those of the symbol.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.analysis.head_detection import DetectedHead, dense_layers, detect_head
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH
from bertsym.analysis.trace import TokenSelection, Trace
from bertsym.array import Array
from bertsym.bundle import BundleContent
from bertsym.encoders.catalogue import TRAINED_HEADS, HeadTransform
from bertsym.encoders.config import BertConfig
from bertsym.encoders.forms import TARGETS, Form
from bertsym.encoders.graph_heads import HEADS, graft_onto_graph, label_shapes
from bertsym.encoders.inputs import INPUT_NAMES, named_inputs
from bertsym.encoders.outputs import output_graph
from bertsym.encoders.spec import EncoderSpec
from bertsym.encoders.trained_heads import headed_graphs, record_read
from bertsym.errors import ModelError, UsageError, VerificationError, join_names
from bertsym.execution import Shape, fixed_length, model_values, sample_inputs
from bertsym.model import Model, require_params
from bertsym.passes.gelu import fuse_gelu
from bertsym.passes.input_guard import add_input_guard, remove_input_guard
from bertsym.passes.masked_positions import read_all_tokens
from bertsym.passes.qkv_folding import fold_qkv
from bertsym.passes.release_adaptation import adapt_to_release
from bertsym.signature import Signature, Tensor, bert_inputs
from bertsym.surgery.bundle_options import (
    BertOrigin,
    BundleOptions,
    choose_class_names,
    choose_max_length,
    choose_tokenizer,
)
from bertsym.surgery.bundle_parameters import (
    POOLER_LAYER,
    dense_parameters,
    encoder_parameters,
    head_parameters,
)
from bertsym.surgery.output_comparison import DEFAULT_RTOL, Difference, difference
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import NewParameters

_LENGTHS = (16, 7)
_PROBABILITIES = ("softmax", "log_softmax")


@dataclass(frozen=True)
class EncoderForm:
    """How the encoder of a completed bundle is written."""

    form: Form = Form()
    target: str | None = None  #: release line of MXNet, a key of `encoders.forms.TARGETS`
    fold: bool = False  #: whether query, key and value become one parameter; there is no training symbol then
    guard: bool | None = None  #: whether the graph clips its inputs; None: as the symbol does


@dataclass(frozen=True)
class Completed:
    """A symbol as the bundle of a BERT, and the head and task that it was found to have."""

    content: BundleContent
    model: Model  #: the graph of the bundle
    head: DetectedHead | None
    task: str | None
    positions: str | None  #: input of masked positions, which the bundle does not have
    notes: tuple[str, ...]

    def compare(self, original: Model, shapes: Mapping[str, Shape] | None, where: str) -> list[Difference]:
        """Compare the outputs with those of the `original` on random texts, at positions that are not padding.

        Raises VerificationError, which begins with `where`, for a difference, and UnknownShapeError for an input of
        unknown shape.
        """
        encoder = original.require_encoder()
        longest = encoder.max_length or _LENGTHS[0]
        only = fixed_length(original)
        lengths = [only] if only else sorted({min(length, longest) for length in _LENGTHS}, reverse=True)
        pairs: dict[int, tuple[Array, Array]] = {}
        for length in lengths:
            inputs = self._sample(original, shapes, length)
            ids = inputs[encoder.token_ids or ""]
            types = inputs.get(encoder.token_types or "", np.zeros_like(ids))
            sizes = inputs.get(encoder.valid_length or "", np.full(len(ids), length, np.float32))
            theirs = self._expected(_batch_major(original, model_values(original, inputs)))
            (ours,) = model_values(self.model, named_inputs(ids, types, sizes))
            if self.head is not None and self.task == "regression" and self.head.function == "sigmoid":
                ours = _sigmoid(ours)
            ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
            if theirs.size == ours.size:
                theirs = theirs.reshape(ours.shape)
            if ours.ndim == 3 and theirs.shape == ours.shape:
                padding = np.arange(length) >= sizes[:, np.newaxis]
                ours, theirs = (np.where(padding[..., np.newaxis], 0, values) for values in (ours, theirs))
            pairs[length] = theirs, ours
        differences = []
        # The scale of all runs: in one run, the outputs of a regression may be close to zero.
        scale = max(float(np.abs(theirs).max(initial=0)) for theirs, _ in pairs.values()) or 1.0
        for length, (theirs, ours) in pairs.items():
            found = difference(f"{self.content.signature.output_name} at length {length}", theirs, ours)
            found = dataclasses.replace(found, scale=scale)
            # Written so that NaN fails too.
            if not found.relative <= DEFAULT_RTOL:
                raise VerificationError(
                    f"{where}: the bundle would compute other outputs than the symbol, so the head was not recognised "
                    f"correctly: {found}"
                )
            differences.append(found)
        return differences

    def _sample(self, original: Model, shapes: Mapping[str, Shape] | None, length: int) -> dict[str, Array]:
        """Random inputs of the `original`; masked positions are all positions, as the bundle reads them."""
        if self.positions is None:
            return sample_inputs(original, shapes, length=length)
        inputs = sample_inputs(original, {**(shapes or {}), self.positions: (1, 1)}, length=length)
        rows = len(inputs[original.require_encoder().token_ids or ""])
        return {**inputs, self.positions: np.tile(np.arange(length, dtype=np.float32), (rows, 1))}

    def _expected(self, outputs: list[Array]) -> Array:
        """What the bundle computes if the symbol computes `outputs`."""
        values = outputs[0]
        if self.head is None or self.task is None:
            return values
        if self.head.splits:
            return np.stack([output.reshape(output.shape[:2]) for output in outputs], axis=-1)
        if self.head.function == "log_softmax":
            return np.exp(values)
        if self.task in ("classification", "tagging") and self.head.function is None:
            exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
            probabilities: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
            return probabilities
        return _sigmoid(values) if self.task == "multilabel" and self.head.function is None else values


def complete(
    model: Model,
    options: BundleOptions,
    written: EncoderForm = EncoderForm(),
    *,
    origin: BertOrigin | None = None,
    trained: bool = True,
    where: str,
    facts: Mapping[str, Any],
) -> Completed:
    """Make the bundle of a BERT of a model, with what `options` name.

    Args:
        model: any graph in which an encoder is detected, with its parameters.
        options: tokenizer, class names and so on.
        written: the form of the encoder.
        origin: the exported BERT that the model is derived from, whose tokenizer and class names are the default.
        trained: whether the head or, without one, the encoder was trained.
        where: the name of the model in messages.
        facts: for the manifest.

    Raises:
        UsageError: something that predict needs is missing, which names its option, or an option does not fit.
        ModelError: an encoder or head that no bundle can have, naming the node.
        DataError: a file of the options can't be read.
    """
    try:
        return _complete(dataclasses.replace(model, name=where), options, written, origin, trained, facts)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except ModelError as error:
        raise ModelError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None


def _complete(
    model: Model,
    options: BundleOptions,
    written: EncoderForm,
    origin: BertOrigin | None,
    trained: bool,
    facts: Mapping[str, Any],
) -> Completed:
    values = require_params(model)
    for info in values.infos.values():
        if info.name in model.graph.variables and info.dtype != "<f4":
            advice = "; bertsym lower MODEL OUT, with these options, converts it" if info.dtype == "<f2" else ""
            raise ModelError(
                f"parameter {info.name} is {np.dtype(info.dtype)}: only float32 models become a bundle{advice}"
            )
    model, positions = _simplify(model)
    encoder = model.require_encoder()
    notes = _check_inputs(model, encoder)
    if positions is not None:
        notes.append(f"{positions}, the masked positions, is left out: the bundle gives the logits of every token")
    head = detect_head(model.graph, model.classifier_reports)
    task = _choose_task(head, options)
    spec = _extract_spec(model, encoder)
    config = spec.config
    chosen = choose_tokenizer(options, config, origin)
    arrays = encoder_parameters(spec, values)
    if head is None:
        output, length = _encoder_output(model), None
        graph, training = output_graph(config, output, written.form), None
        if output == "pooled":
            (pooler,) = dense_layers(model.graph.outputs[0], encoder)
            arrays.update(dense_parameters(pooler, POOLER_LAYER, values))
    else:
        output, length = head.reads, head.length
        graph, training = _headed_graphs(config, head, task or "", written.form)
        arrays.update(head_parameters(head, values))
        if written.fold:
            training = None
    release = TARGETS[written.target].release if written.target else None
    guard = encoder.guarded if written.guard is None else written.guard
    for each in (graph, training):
        if each is not None:
            adapt_to_release(each, written.form, release)
            if guard:
                add_input_guard(each, *INPUT_NAMES)
    params: Mapping[str, Array] = {name: arrays[name] for name in graph.variables if name in arrays}
    if written.fold:
        params = fold_qkv(graph, params).arg_params
    num_outputs = head.num_outputs if head is not None else config.units
    known = origin.signature.class_names if origin is not None and origin.signature.task == task else ()
    segments = config.segments if encoder.token_types is not None or config.segments == 1 else 1
    axes: tuple[int | str, ...] = ("batch", "length") if output == "sequence" and length is None else ("batch",)
    labels = label_shapes(task, num_outputs) if task is not None and training is not None else {}
    default = min(config.max_length, encoder.length or config.max_length)
    signature = Signature(
        kind=TRAINED_HEADS[task] if task is not None else "encoder",
        output=output,
        output_name=f"{graph.output_names[0]}_output",
        output_shape=(*axes, num_outputs),
        max_length=choose_max_length(options, default, config.max_length, length),
        tokenizer=chosen.options,
        pad_id=0,
        special_tokens={},
        special_ids={},
        inputs=bert_inputs(length, segments=segments),
        family=config.family,
        task=task,
        task_settings={"sigmoid": True} if task == "regression" and head and head.function == "sigmoid" else {},
        class_names=choose_class_names(options, task, num_outputs, known),
        label_inputs=tuple(Tensor(*each) for each in labels.items()),
        trained=trained,
        pair=None,
        target_mxnet=written.target,
    )
    content = BundleContent(
        config,
        chosen.sign(signature, segments),
        graph.to_json(),
        params,
        chosen.vocabulary,
        facts,
        training.to_json() if training is not None else None,
        chosen.document,
    )
    completed = Model(f"{model.name} as a bundle", Path(), graph, NewParameters(params), None, None)
    return Completed(content, completed, head, task, positions, (*notes, *chosen.notes))


def _simplify(model: Model) -> tuple[Model, str | None]:
    """Return the model with gelu as one operator and a decoder that reads all tokens, and its input of positions."""
    graph = model.graph.copy()
    sequences = {output.node.name for output, trace in model.traces.items() if _is_sequence(trace)}
    detached = read_all_tokens(graph, sequences)
    positions = None if detached is None else detached.variable
    if positions is not None and positions not in model.inputs:
        return model, None
    fused = fuse_gelu(graph)
    return dataclasses.replace(model, graph=graph) if positions is not None or fused else model, positions


def _is_sequence(trace: Trace) -> bool:
    """Whether a tensor holds the encodings of all tokens, batch-major."""
    return trace.selection is TokenSelection.ALL and not trace.steps and trace.axes[:1] == (BATCH,)


def _check_inputs(model: Model, encoder: DetectedEncoder) -> list[str]:
    """Return notes about inputs that the bundle has and the symbol does not; raises ModelError for other inputs."""
    others = [name for name in model.inputs if name not in encoder.inputs]
    if others:
        raise ModelError(f"reads the inputs {join_names(others)} besides those of a BERT, which predict can't feed")
    if encoder.token_ids not in model.inputs:
        raise ModelError("reads no token ids: predict needs a symbol that begins with the encoder")
    notes = []
    if encoder.valid_length is None:
        if encoder.length is not None:
            raise ModelError(
                f"takes exactly {encoder.length} tokens and no valid_length: its outputs depend on the padding, which "
                "the bundle of a BERT ignores; export it with valid_length"
            )
        notes.append("the symbol has no valid_length, so that padding changes its outputs; the bundle ignores padding")
    if encoder.token_types is None and (encoder.token_type_vocab_size or 0) > 1:
        notes.append("the symbol has no token types: in a pair, both texts have the type 0")
    return notes


def _choose_task(head: DetectedHead | None, options: BundleOptions) -> str | None:
    """Return the kind of task of a head: the given kind, or else the most usual kind for its outputs."""
    if head is None or head.norm is not None:
        if options.task is not None:
            what = "has no head" if head is None else "is a masked language model"
            raise UsageError(f"--task {options.task}: the symbol {what}: omit --task")
        return None if head is None else "masked_lm"
    function, count = head.function, head.num_outputs
    classes = function in (None, *_PROBABILITIES)
    if head.reads_tokens:
        possible = ["qa"] if count == 2 and function is None else []
        possible += ["tagging"] if classes and not head.splits and count > 1 else []
        if options.labels is not None and "tagging" in possible:
            possible.reverse()
    else:
        possible = ["regression"] if count == 1 and function in (None, "value", "sigmoid") else []
        possible += ["classification"] if classes and count > 1 else []
        possible += ["multilabel"] if function in (None, "sigmoid") else []
        if options.labels is not None and count == 1:
            possible.reverse()
    described = f"the head {head.last.name} has {count} {function or 'unnormalised'} output{'s' if count > 1 else ''}"
    where = " for each token" if head.reads_tokens else ""
    if not possible:
        raise ModelError(f"{described}{where}, which fits no task ({', '.join(HEADS)})")
    if options.task not in (None, *possible):
        raise UsageError(f"--task {options.task}: {described}{where}; its task is {' or '.join(possible)}")
    return options.task or possible[0]


def _extract_spec(model: Model, encoder: DetectedEncoder) -> EncoderSpec:
    """Extract the specification of the encoder, without the nodes that clip its inputs."""
    if not encoder.guarded:
        return extract_spec(model.graph, encoder, model.param_shapes)
    graph = model.graph.copy()
    remove_input_guard(graph)
    return extract_spec(graph, require_encoder(graph, model.param_shapes), model.param_shapes)


def _encoder_output(model: Model) -> str:
    """Return the output of the encoder that a graph without a head ends in; raises ModelError for another tensor."""
    (report,) = model.classifier_reports
    found = report.kind.value
    masked = report.trace is not None and (report.trace.counted or model.require_encoder().valid_length is None)
    steps = [] if found == "pooled" else report.steps
    if found not in ("cls", "pooled", "sequence", "mean") or steps or (found == "mean" and not masked):
        raise ModelError(
            f"ends in {report.reads}, which is neither a dense layer nor the encoder's cls, pooled, mean or sequence"
        )
    return found


def _headed_graphs(
    config: BertConfig, head: DetectedHead, task: str, form: Form
) -> tuple[SymbolGraph, SymbolGraph | None]:
    """Build the graphs for inference and, unless it is a masked language model, for training of encoder and head."""
    transform = None
    if head.transform is not None:
        transform = HeadTransform(head.transform.activation, head.transform.dropout)
    if head.norm is not None:
        return headed_graphs(config, task, head.reads, head.num_outputs, head.dropout, form, transform)
    graph = record_read(config, task, head.reads, form, transform).graph()
    inference, training, _ = graft_onto_graph(
        graph, graph.outputs[0], task, head.num_outputs, head.dropout, config.units
    )
    return inference, training


def _batch_major(model: Model, values: list[Array]) -> list[Array]:
    """Transpose the outputs of a model that have the tokens on the first axis."""
    axes = [model.traces[output].axes if output in model.traces else () for output in model.graph.outputs]
    return [array.swapaxes(0, 1) if each[:2] == (LENGTH, BATCH) else array for array, each in zip(values, axes)]


def _sigmoid(values: Array) -> Array:
    with np.errstate(over="ignore"):  # of a number far below 0, exp overflows to infinity, and the sigmoid is 0
        result: Array = 1 / (1 + np.exp(-values))
    return result
