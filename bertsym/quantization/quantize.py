"""Quantize a trained classifier to int8, within a limit on the loss of accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsym.acceleration.graphs import accelerate_graph, to_symbol
from bertsym.analysis.encoder_detection import require_encoder
from bertsym.array import Array
from bertsym.bundle import Bundle, BundleContent, stage_bundle
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.errors import ModelError, UsageError, VerificationError, join_names
from bertsym.events import Evaluated, EventStream, Listener, Written, now, since
from bertsym.inference.mxnet_predictor import MXNetPredictor
from bertsym.inference.task_bundle import TaskBundle
from bertsym.model_card.card import model_card
from bertsym.mxnet_runtime import mxnet_errors
from bertsym.passes.input_guard import add_input_guard
from bertsym.passes.qkv_folding import fold_qkv
from bertsym.processors import may_saturate
from bertsym.quantization.calibration import CALIBRATIONS
from bertsym.quantization.graph_quantizer import GraphQuantizer
from bertsym.quantization.layer_selection import fewest_kept
from bertsym.quantization.measurement import Measurable, Measured, measure
from bertsym.quantization.quantize_report import quantize_report
from bertsym.reports.data import LeftOutRows
from bertsym.reports.options import ReportOptions
from bertsym.reports.writing import check_report, write_report
from bertsym.signature import INT8_PROCESSORS
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.int8_arithmetic import saturating_layers
from bertsym.symbol.params import shapes_of
from bertsym.tasks.table_task import warn_of_absent_labels
from bertsym.tasks.task import Examples
from bertsym.text.bad_rows import BadRows
from bertsym.text.batches import bucket_length, inference_batches
from bertsym.text.features import Features
from bertsym.text.table_format import TableFormat

GRANULARITIES = ("channel-wise", "tensor-wise")
PROCESSORS = ("auto", *INT8_PROCESSORS)
_CALIBRATION_BATCH = 8  # all calibrated tensors of a batch are in memory
_SENSITIVITY_ROWS = 32

_OUTSIDE = "outside the encoder: one row per text, int8 gains nothing"
_SENSITIVE = "sensitive: in int8 it costs too much accuracy"


@dataclass(frozen=True)
class QuantizeResult:
    """A written int8 classifier, measurements of it and its original on the dev rows, and its int8 layers."""

    bundle: Bundle
    float32: Measured
    int8: Measured
    metric: str  #: the metric that max_drop limits
    layers: tuple[str, ...]  #: names of the FullyConnecteds in int8
    kept: dict[str, str]  #: layer in float32 -> reason


@dataclass(frozen=True)
class QuantizeOptions:
    """How a classifier is quantized, and how much of its quality may be lost.

    Raises UsageError for a value that does not exist or is out of range.
    """

    #: ranges of the activations: their extremes (``naive``), or those that keep their distribution best (``entropy``)
    calibration: str = "naive"
    #: scales of the weights: one for each output (``channel-wise``, float32 in the file), or one for each weight array
    #: (``tensor-wise``, int8 in the file)
    granularity: str = "channel-wise"
    #: processors on which MXNet computes the model: ``avx2``, every one; ``vnni``, only those with VNNI; ``auto``,
    #: ``vnni`` if this processor has VNNI, else ``avx2``
    processors: str = "avx2"
    rows: int = 256  #: most rows of the calibration table on which ranges are found
    max_drop: float = 0.01  #: largest loss of the first metric of the task, absolute
    #: at a row that can't be read or has an unknown label: ``fail``, or ``skip`` to leave it out
    on_error: str = "fail"
    table_format: TableFormat = TableFormat()  #: format and columns of both tables

    def __post_init__(self) -> None:
        if self.calibration not in CALIBRATIONS:
            raise UsageError(f"calibration {self.calibration!r} is not one of {', '.join(CALIBRATIONS)}")
        if self.granularity not in GRANULARITIES:
            raise UsageError(f"granularity {self.granularity!r} is not one of {', '.join(GRANULARITIES)}")
        if self.processors not in PROCESSORS:
            raise UsageError(f"processors {self.processors!r} is not one of {', '.join(PROCESSORS)}")
        if self.rows < 1:
            raise UsageError(f"rows is {self.rows}, at least 1 is needed")
        if not 0 <= self.max_drop <= 1:
            raise UsageError(f"max_drop is {self.max_drop}, a number from 0 to 1 is needed")


def quantize(
    model: str | Path,
    out: str | Path,
    calibrate: str | Path,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    dev: str | Path | None = None,
    force: bool = False,
    on_event: Listener = lambda event: None,
    report: ReportOptions | None = None,
) -> QuantizeResult:
    """Write the trained classifier `model` with its matrix products in int8, as a bundle at `out`.

    Rows of the table `calibrate` determine the ranges of activations. If the first metric of the task on the table
    `dev`, by default `calibrate`, falls by more than ``max_drop``, the most sensitive layers stay in float32, as few as
    possible.

    Raises UsageError, DataError or ModelError, and VerificationError when no choice of layers keeps the metric;
    nothing is left at `out` then. `on_event` is called with every event of the run. With `report`, the differences of
    both models on the dev rows are a page; raises InstallationError, before any work, if matplotlib is missing.
    """
    check_report(report)
    int8_for = _processors(options.processors)
    events = EventStream(on_event)
    if Path(out).resolve() == Path(model).resolve():
        raise UsageError(f"{out} is the float32 model itself: choose another path for the int8 model")
    with stage_bundle(out, force) as stage:
        opened = TaskBundle.open(model, "quantize")
        bundle, task = opened.bundle, opened.task
        if bundle.signature.precision != "float32":
            raise ModelError(f"{model}: is already {bundle.signature.precision}: quantize the float32 bundle")
        left_out = LeftOutRows()
        bad_rows = left_out.added_by(BadRows(options.on_error, events.note))
        keeps_texts = report is not None and report.texts

        def read(path: str | Path, labelled: bool) -> Examples:
            started, on_rows = now(), events.progress("tokenising", str(path))
            reading = opened.reading(options.table_format, bad_rows, events.note, on_rows)
            rows = task.read(path, dataclasses.replace(reading, keeps_texts=keeps_texts), labelled=labelled)
            events(rows.tokenised(since(started), bundle.signature.max_length))
            return rows

        calibration_rows = dev_rows = read(calibrate, dev is None)
        if dev is not None:
            dev_rows = read(dev, True)
        warn_of_absent_labels(options.table_format.drop_labels, [dev_rows], events.note)
        chosen = _Choice(opened, options.granularity, int8_for, calibration_rows, dev_rows, options.max_drop)
        sample = calibration_rows.sample(options.rows)
        events.note(f"calibrating on {len(sample)} of {len(calibration_rows)} rows")
        with mxnet_errors(str(model)):
            chosen.quantizer.calibrate(chosen.batches(sample.features), options.calibration)
        kept = chosen.kept(events)
        how = {
            "calibration": {
                "kind": options.calibration,
                "granularity": options.granularity,
                **calibration_rows.facts(),
                "rows": len(sample),
            },
            "for": int8_for,
            "dev": dev_rows.facts(),
            "max_drop": options.max_drop,
            "float32_layers": kept,
        }
        started = now()
        staged = stage.write(chosen.content(kept, how))
        events.note(f"measuring both models on {len(dev_rows)} rows")
        models = [Measurable(each, MXNetPredictor.from_bundle(each)) for each in (bundle, staged)]
        measuring = now()
        float32, int8 = measure(models, task, dev_rows, events)
        for path, measured in ((model, float32), (out, int8)):
            events(Evaluated(since(measuring), str(path), dev_rows.name, len(dev_rows), measured.metrics))
        metrics = {"float32": float32.metrics, "int8": int8.metrics}
        staged = stage.add_facts(staged, {"quantization": {**how, "metrics": metrics, "agreement": int8.agreement}})
        staged = stage.add_card(staged, model_card(staged))
        metric = next(iter(float32.metrics))
        layers = tuple(name for name in chosen.quantizer.layers if name not in kept)
    bundle = staged.moved_to(out)
    events(Written(since(started), str(out), bundle.digests()))
    if report is not None:
        precisions = {**dict.fromkeys(layers, "int8"), **{name: f"float32: {why}" for name, why in kept.items()}}
        both = (opened.bundle, bundle), (float32, int8)
        page = quantize_report(*both, task, dev_rows, left_out, precisions, report.texts)
        write_report(page, report)
    return QuantizeResult(bundle, float32, int8, metric, layers, kept)


def _processors(name: str) -> str:
    """Return the key of INT8_PROCESSORS for a value of --for; raises UsageError if this processor can't measure it."""
    if name == "auto":
        return "avx2" if may_saturate() else "vnni"
    if name == "vnni" and may_saturate():
        raise UsageError(
            "--for vnni: this processor has no VNNI, so MXNet's int8 products would saturate, and no accuracy can be "
            "measured; use a processor with VNNI, or --for avx2"
        )
    return name


class _Choice:
    """Selects which layers of a classifier to quantize."""

    def __init__(
        self,
        opened: TaskBundle,
        granularity: str,
        int8_for: str,
        calibration: Examples,
        dev: Examples,
        max_drop: float,
    ) -> None:
        bundle = opened.bundle
        self._bundle, self._calibration, self._dev, self._max_drop = bundle, calibration, dev, max_drop
        self._task, self._int8_for = opened.task, int8_for
        self._pad_id = bundle.signature.pad_id
        graph, arg_params, outside = _prepared(bundle)
        self.quantizer = GraphQuantizer(
            graph, arg_params, channel_wise=granularity == "channel-wise", limits_pairs=int8_for == "avx2"
        )
        self._predictor_float32 = MXNetPredictor.from_bundle(bundle)
        self._outside = tuple(name for name in self.quantizer.layers if name in outside)
        self._candidates = tuple(name for name in self.quantizer.layers if name not in outside)

    def batches(self, features: Features) -> Iterator[dict[str, Array]]:
        """Yield the inputs of batches of rows with similar lengths."""
        signature, lengths = self._bundle.signature, features.lengths
        for rows in inference_batches(lengths, lambda longest: _CALIBRATION_BATCH):
            length = signature.length or bucket_length(int(lengths[rows].max()), signature.max_length)
            yield features.batch(rows, length, self._pad_id, self._bundle.config, signature.input_names)

    def kept(self, events: EventStream) -> dict[str, str]:
        """Return layer that stays in float32 -> reason; raises VerificationError when no choice keeps the metric."""
        expected = self._metrics(self._predictor_float32, events)
        metric = next(iter(expected))
        drops: dict[int, float] = {}

        def holds(kept: Collection[str]) -> bool:
            found = self._metrics(self._predictor([*self._outside, *kept]), events)[metric]
            drops[len(kept)] = expected[metric] - found
            events.note(
                f"{len(kept)} layers of the encoder in float32: {metric} {found:.4f}, was {expected[metric]:.4f}"
            )
            # With a tolerance for rounding.
            return drops[len(kept)] <= self._max_drop + 1e-9

        if holds(()):
            return dict.fromkeys(self._outside, _OUTSIDE)
        sensitive = fewest_kept(self._by_sensitivity(events), holds)
        if sensitive is None:
            count, least = min(drops.items(), key=lambda item: item[1])
            raise VerificationError(
                f"{self._bundle.prefix}: int8 is not good enough: {metric} {expected[metric]:.4f} falls by "
                f"{drops[0]:.4f}, and by {least:.4f} with {count} of {len(self._candidates)} layers in float32; "
                f"at most {self._max_drop:g} may be lost (--max-drop)"
            )
        return {**dict.fromkeys(self._outside, _OUTSIDE), **dict.fromkeys(sensitive, _SENSITIVE)}

    def _by_sensitivity(self, events: EventStream) -> list[str]:
        """Sort the layers of the encoder by how much each alone in int8 changes the outputs, largest first."""
        events.note(f"trying each of {len(self._candidates)} layers alone in int8")
        sample, keep = self._calibration.sample(_SENSITIVITY_ROWS).features, self._task.keep
        expected = self._predictor_float32.each(sample, keep)
        errors = {}
        for name in self._candidates:
            others = [other for other in self.quantizer.layers if other != name]
            found = self._predictor(others).each(sample, keep)
            errors[name] = float(np.mean([np.abs(one - other).mean() for one, other in zip(found, expected)]))
        return sorted(errors, key=lambda name: -errors[name])

    def _metrics(self, predictor: MXNetPredictor, events: EventStream) -> dict[str, float]:
        features = self._dev.features
        on_rows = events.counter("evaluating", len(features), self._dev.name)
        return self._task.evaluate(predictor.each(features, self._task.keep, on_rows), self._dev)

    def _predictor(self, kept: Collection[str]) -> MXNetPredictor:
        graph, arg_params = self.quantizer.quantized(kept)
        signature = self._bundle.signature
        predictor = MXNetPredictor(
            to_symbol(graph), self._bundle.config, self._pad_id, signature.max_length, signature.length
        )
        predictor.set_params(arg_params)
        return predictor

    def content(self, kept: Collection[str], how: dict[str, Any]) -> BundleContent:
        """Build the contents of the int8 bundle."""
        bundle, manifest = self._bundle, self._bundle.manifest
        graph, arg_params = self.quantizer.quantized(kept)
        if self._int8_for == "avx2" and (names := saturating_layers(graph, arg_params)):
            raise ModelError(
                f"{bundle.prefix}: the int8 products of {join_names(names, 5)} would saturate without VNNI"
            )
        if bundle.signature.guarded:
            add_input_guard(graph, *INPUT_NAMES)
        signature = dataclasses.replace(
            bundle.signature, precision="int8", int8_for=self._int8_for, target_mxnet=None, label_inputs=()
        )
        return BundleContent(
            bundle.config,
            signature,
            graph.to_json(),
            arg_params,
            bundle.vocabulary(),
            {
                "source": manifest["source"],
                "base": {
                    **{"files": manifest["files"], "command": manifest["command"]},
                    **({"training": manifest["training"]} if "training" in manifest else {}),
                },
                "seed": manifest.get("seed"),
                "quantization": how,
            },
            tokenizer_json=bundle.tokenizer_json(),
        )


def _prepared(bundle: Bundle) -> tuple[SymbolGraph, dict[str, Array], set[str]]:
    """Prepare the float32 graph: without dropout, query, key and value of a layer folded.

    Also returns the names of the FullyConnecteds outside of the encoder's layers.
    """
    arg_params = dict(bundle.params())
    graph = accelerate_graph(bundle.graph(), shapes_of(arg_params), "fast")
    with graph.edit():
        for node in graph.find(op="Dropout"):
            graph.remove(node, bypass=True)
    encoder = require_encoder(graph, shapes_of(arg_params))
    inside = {node for layer in encoder.layers for node in layer.nodes}
    outside = {node.name for node in graph.find(op="FullyConnected") if node not in inside}
    if not bundle.is_folded and len(encoder.layers) > 1:  # an only layer computes the query of position 0 alone
        arg_params = fold_qkv(graph, arg_params, encoder).arg_params
    return graph, arg_params, outside
