"""Lower the encoder of any BERT to another form, for a chosen MXNet release, with the same parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.analysis.encoder_extraction import extract_spec
from bertsym.bundle import Bundle
from bertsym.encoders.forms import TARGETS, choose_form
from bertsym.errors import ModelError, UsageError, VerificationError
from bertsym.execution import Shape, UnknownShapeError, fixed_length, sample_inputs
from bertsym.model import Model, ModelSource, require_params
from bertsym.passes import apply_to_copy
from bertsym.passes.encoder_replacement import replace_encoder
from bertsym.passes.input_guard import add_input_guard, remove_input_guard
from bertsym.passes.qkv_folding import fold_qkv
from bertsym.passes.release_adaptation import adapt_to_release
from bertsym.passes.single_precision import compute_in_float32
from bertsym.surgery.bundle_options import BundleOptions
from bertsym.surgery.completion import EncoderForm
from bertsym.surgery.diff import run_both
from bertsym.surgery.output_comparison import DEFAULT_RTOL, Difference
from bertsym.surgery.result_writing import Changed, SurgeryResult, changed_model, end_shapes, label_inputs, write
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import LazyParameters

_LENGTHS = (16, 7)


def lower(
    source: str | Path | ModelSource,
    out: str | Path,
    *,
    target: str | None = None,
    form: str | None = None,
    fold: bool = False,
    guard: bool | None = None,
    options: BundleOptions = BundleOptions(),
    force: bool = False,
) -> SurgeryResult:
    """Replace the encoder of a BERT with one in another form, and write the result as a bundle at `out`.

    Args:
        source: any BERT that GluonNLP 0.6 to 0.10 exported or that bertsym wrote, with any head; with the shapes of
            further inputs that the graph does not declare. Parameters keep their names and values, those in float16
            as float32, and the graph downstream of the encoder its nodes.
        out: prefix of the bundle's files.
        target: release line of MXNet for the result, ``1.4`` to ``1.9``; without target, the portable form runs in all
            of them.
        form: ``portable`` (the default), ``gluonnlp`` or ``fast``.
        fold: whether query, key and value of a layer become one parameter, for inference, without a training
            symbol.
        guard: whether the graph clips its inputs to their valid ranges; None: as in the original.
        options: what predict and evaluate need and the symbol lacks; with it, the result is the bundle of a BERT, whose
            parameters have the names that `export` gives them, and its head the operators.
        force: whether to overwrite a bundle at `out`.

    Both graphs are run on random texts with padding, of two lengths if the original takes several. Raises UsageError,
    ModelError (which names the node that is not part of a BERT, or that the target does not load) or
    VerificationError; `out` is then unchanged.
    """
    chosen = choose_form(form, target)
    source = ModelSource.of(source)
    shapes = source.shapes
    original = source.open()
    model = _in_float32(original)
    encoder = model.require_encoder()
    values = require_params(model)
    read = set(model.graph.variables)
    guarded = encoder.guarded if guard is None else guard
    facts = {"lowered": {"form": chosen.name, "target_mxnet": target, "fold": fold}}
    if options.is_given and not isinstance(model.bundle, Bundle):
        # It is written with the encoder in the chosen form.
        kept = changed_model(model, model.graph, values)
        form_written = EncoderForm(chosen, target, fold, guarded)
        whole = Changed(kept, options=options, written=form_written, given_shapes=shapes)
        return _with_notes(write(original, whole, out, lambda: [], force=force, facts=facts), original, model)
    try:
        graph, copies = model.graph.copied()
        encoder = _remove_input_guard(graph, encoder.mapped(copies), model.param_shapes)
        spec = extract_spec(graph, encoder, model.param_shapes)

        def lower_graph(graph: SymbolGraph, encoder: DetectedEncoder | None) -> None:
            replace_encoder(graph, model.param_shapes, spec, chosen, encoder)
            adapt_to_release(graph, chosen, TARGETS[target].release if target else None)
            if guarded:
                add_input_guard(graph, spec.token_ids, spec.token_types, spec.valid_length)

        lower_graph(graph, encoder)
        train = model.train_graph() if not fold else None
        if train is not None:
            compute_in_float32(train)
            remove_input_guard(train)
            lower_graph(train, None)
        arrays = fold_qkv(graph, values).arg_params if fold else values
        changed = changed_model(model, graph, arrays)
        result = Changed(
            changed,
            train,
            label_inputs=label_inputs(model) if not fold else (),
            signature=model.bundle.signature if isinstance(model.bundle, Bundle) else None,
            shapes=end_shapes(changed, shapes),
            target=target,
            options=options,
        )
    except ModelError as error:
        raise ModelError(f"{model.name}: {error}") from None
    written = write(original, result, out, lambda: _compare(model, changed, shapes), force=force, facts=facts)
    written = _with_notes(written, original, model)
    unread = sum(name not in read for name in values)
    if unread:
        written.notes.append(f"{unread} parameters that the graph does not read are left out")
    before, after = _list_dropout(model.graph), _list_dropout(changed.graph)
    if before != after:
        note = f"training differs: Dropout {', '.join(before) or 'none'} before, {', '.join(after) or 'none'} now"
        written.notes.append(note)
    return written


def _in_float32(model: Model) -> Model:
    """Return a model in float32: the model itself, or of one in float16 a copy, whose parameters are converted."""
    if model.params is None:
        return model
    params, read = model.params, set(model.graph.variables)
    dtypes = {info.name: info.dtype for info in params.infos.values() if info.name in read}
    for name, dtype in dtypes.items():
        if dtype not in ("<f4", "<f2"):
            raise ModelError(
                f"{model.name}: parameter {name} is {np.dtype(dtype)}: only models in float32 or float16 can be lowered"
            )
    if "<f2" not in dtypes.values():
        return model
    graph = apply_to_copy(model.graph, compute_in_float32)
    converted = LazyParameters(params.shapes, lambda name: params[name].astype(np.float32, copy=False))
    return dataclasses.replace(model, graph=graph, params=converted)


def _with_notes(written: SurgeryResult, original: Model, model: Model) -> SurgeryResult:
    if model is not original:
        written.notes.append("float16 parameters were converted to float32")
    return written


def _remove_input_guard(graph: SymbolGraph, encoder: DetectedEncoder, shapes: Mapping[str, Shape]) -> DetectedEncoder:
    """Remove the input guard, in place, and return the encoder of the graph without it."""
    return require_encoder(graph, shapes) if remove_input_guard(graph) else encoder


def _list_dropout(graph: SymbolGraph) -> list[str]:
    return sorted({node.attrs.get("p", "0.5") for node in graph.find(op="Dropout")})


def _compare(model: Model, changed: Model, shapes: Mapping[str, Shape] | None) -> list[Difference]:
    """Compare the outputs of both; raises VerificationError, which names the first layer that differs.

    Raises UsageError if the shape of an input is unknown: unlike other surgery, lowering is never left unverified.
    """
    assert model.encoder is not None
    tokens = (model.encoder.token_ids, model.encoder.token_types)
    given = next((shape[-1] for name, shape in (shapes or {}).items() if name in tokens), None)
    only = given or fixed_length(model)
    longest = model.encoder.max_length or _LENGTHS[0]
    lengths = [only] if only else sorted({min(length, longest) for length in _LENGTHS}, reverse=True)
    runs = {}
    for length in lengths:
        try:
            inputs = sample_inputs(model, shapes, length=length)
        except UnknownShapeError as error:
            raise UsageError(f"{model.name} can't be compared with the other form: {error}") from None
        runs[length] = run_both(model, changed, inputs, "random texts", DEFAULT_RTOL)
    differences = []
    for length, found in runs.items():
        for place, output in enumerate(found.outputs):
            # The scale of all runs: in one run, the outputs of a regression may be close to zero.
            scale = max(run.outputs[place].scale for run in runs.values())
            compared = dataclasses.replace(output, name=f"{output.name} at length {length}", scale=scale)
            # Written so that NaN fails too.
            if not compared.relative <= DEFAULT_RTOL:
                where = f"; the first difference is in {found.first_layer}" if found.first_layer else ""
                raise VerificationError(f"{model.name}: the outputs of the new form differ: {compared}{where}")
            differences.append(compared)
    return differences
