"""Graft an untrained head onto any tensor of a symbol, or remove the head of a symbol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes
from bertsym.array import Array
from bertsym.bundle import Bundle
from bertsym.encoders.catalogue import FULLY_CONNECTED, LABEL_NAME
from bertsym.encoders.config import INITIALIZER_RANGE
from bertsym.encoders.graph_heads import HEADS, before_transform, graft_onto_graph, label_shapes
from bertsym.errors import ModelError, UsageError
from bertsym.execution import Shape, known_shapes
from bertsym.model import Model, ModelSource, require_params
from bertsym.signature import Signature, Tensor
from bertsym.surgery.bundle_options import BundleOptions
from bertsym.surgery.output_comparison import Difference, check_equal, compare
from bertsym.surgery.result_writing import (
    Changed,
    SurgeryResult,
    changed_model,
    encoder_signature,
    end_shapes,
    known_output,
    write,
)
from bertsym.symbol.node import Output


@dataclass(frozen=True)
class NewHead:
    """An untrained head. Raises UsageError for a value that does not exist or is out of range."""

    #: ``classification``, ``regression``, ``tagging`` or ``qa``; see `encoders.graph_heads`
    kind: str = "classification"
    num_classes: int | None = None  #: outputs of the head; None means 2, or 1 for regression
    dropout: float = 0.1  #: probability of the Dropout before the head
    seed: int = 0  #: seed of the weights, normal(0, 0.02); biases are 0

    def __post_init__(self) -> None:
        if self.kind not in HEADS:
            raise UsageError(f"head {self.kind!r} is not one of {', '.join(HEADS)}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout {self.dropout} is not in [0, 1)")
        fixed, least = HEADS[self.kind].num_outputs, 1 if self.kind == "regression" else 2
        if fixed is not None and self.num_classes not in (None, fixed):
            raise UsageError(f"head {self.kind} has {fixed} outputs per token, not {self.num_classes}")
        if self.num_outputs < least:
            raise UsageError(f"head {self.kind} needs at least {least} outputs, not {self.num_classes}")

    @property
    def num_outputs(self) -> int:
        """Number of outputs, or of outputs per token."""
        if self.num_classes is not None:
            return self.num_classes
        return HEADS[self.kind].num_outputs or (1 if self.kind == "regression" else 2)


def graft_head(
    source: str | Path | ModelSource,
    out: str | Path,
    head: NewHead = NewHead(),
    *,
    at: str | None = None,
    cls_slice: bool = False,
    options: BundleOptions = BundleOptions(),
    force: bool = False,
) -> SurgeryResult:
    """Graft an untrained head onto a symbol, to be trained in any language binding of MXNet.

    The head reads the tensor `at`, by default the only output; with `cls_slice`, its position 0. The bundle at `out`
    has the inference graph and the training graph. With `options`, it is the bundle of a BERT, whatever the symbol is.

    The tensor that the head reads is compared with the original on random inputs. Raises UsageError, ModelError or
    VerificationError; `out` is then unchanged.
    """
    if cls_slice and HEADS[head.kind].reads_tokens:
        raise UsageError(f"head {head.kind} reads every token: omit cls_slice")
    source = ModelSource.of(source)
    shapes = source.shapes
    model = source.open()
    place = _find_place(model, at)
    values = require_params(model, part=model.graph.part([place]))
    axes = _find_axes(model, place, shapes)
    time_major = axes[:2] == (LENGTH, BATCH)
    if time_major:
        axes = (BATCH, LENGTH, *axes[2:])
    _check_place(model, place, axes, head.kind, cls_slice)
    num_outputs = head.num_outputs
    units = axes[-1]
    assert isinstance(units, int)
    inference, training, same = graft_onto_graph(
        model.graph, place, head.kind, num_outputs, head.dropout, units, cls_slice=cls_slice, time_major=time_major
    )
    changed = changed_model(model, inference, {**values, **_initialize(num_outputs, units, head.seed)})
    result = Changed(
        changed,
        training,
        label_inputs=tuple(Tensor(*each) for each in label_shapes(head.kind, num_outputs).items()),
        signature=_build_signature(model, changed, num_outputs) if head.kind == "classification" else None,
        trained=False,
        shapes=end_shapes(changed, shapes),
        options=options,
        given_shapes=shapes,
    )

    def check() -> list[Difference]:
        differences = compare(model, changed, [(place, same)], shapes=shapes)
        check_equal(differences, str(out))
        return differences

    facts = {"head": {"kind": head.kind, "num_outputs": num_outputs, "dropout": head.dropout, "seed": head.seed}}
    return write(model, result, out, check, force=force, facts=facts)


def _find_place(model: Model, at: str | None) -> Output:
    if at is not None:
        place = model.output(at)
        if any(node.name == FULLY_CONNECTED for node in model.graph.ancestors(place.node)):
            raise UsageError(f"{place} is part of the head {FULLY_CONNECTED}: remove the head first, with --head none")
        return place
    classifier, read = next(
        ((report.classifier, report.reads) for report in model.classifier_reports if report.classifier), (None, None)
    )
    if classifier is not None:
        raise UsageError(
            f"{model.name} already has the head {classifier.name}: remove it first, with --head none, or choose the "
            f"input of the new head with --at (the old head reads {read})"
        )
    if len(model.graph.outputs) > 1:
        names = ", ".join(str(output) for output in model.graph.outputs)
        raise UsageError(f"{model.name} has several outputs ({names}): choose the output that the head reads with --at")
    return model.graph.outputs[0]


def _find_axes(model: Model, place: Output, shapes: Mapping[str, Shape] | None) -> Axes:
    known = known_shapes(model, shapes, [place])
    if place not in known:
        raise UsageError(f"the shape of {place} is unknown: give the shapes of inputs with --shape NAME=SIZES")
    return known[place]


def _check_place(model: Model, place: Output, axes: Axes, head: str, cls_slice: bool) -> None:
    shape = f"({', '.join(map(str, axes))})"
    read = {node.name for node in model.graph.ancestors(place.node) if node.is_variable}
    if not read & set(model.inputs):
        raise UsageError(f"{place} depends on no input: the output of a head would be constant")
    if model.encoder is not None and axes[0] != BATCH:
        raise UsageError(f"{place} has the shape {shape}: a head needs the batch on the first axis, (N, ...)")
    if not isinstance(axes[-1], int):
        raise UsageError(f"{place} has the shape {shape}: a head needs a last axis of a fixed size")
    if HEADS[head].reads_tokens or cls_slice:
        if len(axes) != 3 or (model.encoder is not None and axes[1] != LENGTH and model.encoder.length is None):
            what = "--cls-slice" if cls_slice else f"head {head}"
            raise UsageError(f"{place} has the shape {shape}: {what} needs (N, T, units)")
    elif len(axes) != 2:
        raise UsageError(
            f"{place} has the shape {shape}: FullyConnected would flatten it and fix the length; choose a node of "
            "shape (N, units) with --at, or read only position 0 with --cls-slice"
        )


def _initialize(num_outputs: int, units: int, seed: int) -> dict[str, Array]:
    """Draw the initial parameters of a head, as `finetune` does."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((num_outputs, units), np.float32) * np.float32(INITIALIZER_RANGE)
    return {f"{FULLY_CONNECTED}_weight": weight, f"{FULLY_CONNECTED}_bias": np.zeros((num_outputs,), np.float32)}


def _build_signature(model: Model, changed: Model, num_classes: int) -> Signature | None:
    """Build the signature of an untrained classifier on an exported encoder; None for any other model."""
    bundle, output = model.bundle, known_output(changed)
    if not isinstance(bundle, Bundle) or output is None:
        return None
    return dataclasses.replace(
        encoder_signature(bundle.signature),
        kind="classifier",
        output=output,
        output_name="softmax_output",
        output_shape=("batch", num_classes),
        max_length=bundle.config.max_length,
        task="classification",
        class_names=tuple(str(i) for i in range(num_classes)),
        label_inputs=(Tensor(LABEL_NAME, ("batch",)),),
        trained=False,
    )


def remove_head(
    source: str | Path | ModelSource,
    out: str | Path,
    *,
    options: BundleOptions = BundleOptions(),
    force: bool = False,
) -> SurgeryResult:
    """Remove the classifiers of a symbol, and write the graph that ends in their inputs as a bundle at `out`.

    With `options`, it is the bundle of a BERT, which `finetune` and `embed` take. The outputs are compared with the
    original on random inputs. Raises UsageError, ModelError or VerificationError; `out` is then unchanged.
    """
    source = ModelSource.of(source)
    shapes = source.shapes
    model = source.open()
    reports = model.classifier_reports
    if not any(report.classifier for report in reports):
        raise ModelError(f"{model.name}: no head to remove: the outputs are {', '.join(model.graph.output_names)}")
    graph, copies = model.graph.copied()
    reads = list(dict.fromkeys(before_transform(report.reads) for report in reports))
    values = require_params(model, part=model.graph.part(reads))
    graph.set_outputs([Output(copies[read.node], read.index) for read in reads])
    graph.cleanup()
    changed = changed_model(model, graph, values)

    def check() -> list[Difference]:
        differences = compare(model, changed, list(zip(reads, graph.outputs)), shapes=shapes)
        check_equal(differences, str(out))
        return differences

    result = Changed(changed, shapes=end_shapes(changed, shapes), options=options, given_shapes=shapes)
    return write(model, result, out, check, force=force)
