"""Predictions by an engine other than mxnet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np

from bertsym.acceleration.graphs import accelerate_graph
from bertsym.array import Array
from bertsym.bundle import Bundle
from bertsym.encoders.inputs import input_shapes
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.execution.engines import Forward, engine_name, engine_version, load_engine, selection_report
from bertsym.execution.engines.fused_onnxruntime import FusedSession
from bertsym.inference.engine_selection import SelectingPredictor
from bertsym.inference.mxnet_predictor import BATCH_SIZE, MXNetPredictor
from bertsym.inference.row_predictor import RowPredictor, T
from bertsym.passes import apply_to_copy
from bertsym.passes.input_guard import remove_input_guard
from bertsym.processors import may_saturate
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.int8_arithmetic import saturating_layers
from bertsym.text.batches import cached_rows, inference_batches, inference_length
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded


def predictor_settings(device: str = "cpu", batch_size: int = BATCH_SIZE, engine: str | None = None) -> dict[str, str]:
    """Return how outputs are computed, for a report; None: by the engine in use."""
    version = engine_version(engine or engine_name())
    return {"engine": version, "device": device, "batch size of the predictions": str(batch_size)}


def open_predictor(
    bundle: Bundle,
    device: str = "cpu",
    batch_size: int = BATCH_SIZE,
    graph: SymbolGraph | None = None,
    *,
    selects: bool = False,
) -> RowPredictor:
    """A predictor by the engine in use, of the bundle's graph, or of a `graph` of its parameters for any length.

    With `selects`, and inside of ``using_engine("auto")``, the engine is chosen by measurement on a CPU; in int8,
    where MXNet's products saturate, onnxruntime is taken.
    Raises UsageError for a device that the engine does not have, and ModelError where MXNet's products saturate.
    """
    report = selection_report() if selects else None
    if report is not None and device == "cpu" and _saturates(bundle, graph):
        report("engine onnxruntime, since MXNet's int8 products saturate on this processor, which has no VNNI")
        return EnginePredictor(bundle, device, batch_size, graph, "onnxruntime")
    if report is not None and device == "cpu":
        described = (bundle.graph() if graph is None else graph).to_json() + repr(bundle.params().shapes)
        return SelectingPredictor(
            {
                "mxnet": lambda: MXNetPredictor.from_bundle(bundle, device, batch_size, graph),
                "onnxruntime": lambda: EnginePredictor(bundle, device, batch_size, graph, "onnxruntime"),
            },
            f"{batch_size} {described}",
            bundle.signature.length or bundle.signature.max_length,
            report,
        )
    if engine_name("no predictions") == "mxnet":
        if _saturates(bundle, graph):
            raise ModelError(
                f"{bundle.prefix}: made for processors with VNNI, which this one does not have, so MXNet's int8 "
                "products would saturate; take --engine onnxruntime, or make it again by bertsym quantize --for avx2"
            )
        return MXNetPredictor.from_bundle(bundle, device, batch_size, graph)
    return EnginePredictor(bundle, device, batch_size, graph)


def _saturates(bundle: Bundle, graph: SymbolGraph | None) -> bool:
    """Whether MXNet's int8 products, of the bundle or of a `graph` of its parameters, saturate on this processor."""
    if bundle.signature.precision != "int8" or not may_saturate():
        return False
    return bool(saturating_layers(bundle.graph() if graph is None else graph, bundle.params()))


def _bind(engine: str, bundle: Bundle, graph: SymbolGraph, shapes: Mapping[str, tuple[int, ...]]) -> Forward:
    """Bind a graph of the bundle's parameters; onnxruntime runs the encoder in its fused operators where it can."""
    params, where = bundle.params(), str(bundle.prefix)
    if engine == "onnxruntime":
        with contextlib.suppress(ModelError):
            return FusedSession(apply_to_copy(graph, remove_input_guard), params, bundle.config, shapes, where).run
    portable = accelerate_graph(graph, params.shapes, "portable")
    sample: dict[str, Array] = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return load_engine(engine).bind(portable.to_json(), where, params, sample)


class EnginePredictor(RowPredictor):
    """The output of a bundle, computed batch by batch, the longest texts first, by an `engine`; None: that in use."""

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cpu",
        batch_size: int = BATCH_SIZE,
        graph: SymbolGraph | None = None,
        engine: str | None = None,
    ) -> None:
        engine, signature = engine or engine_name(), bundle.signature
        if device != "cpu":
            raise UsageError(f"device {device!r}: the engine {engine} runs on the CPU only; use --engine mxnet")
        self._signature, self._config, self._batch_size = signature, bundle.config, batch_size
        self._length = signature.length if graph is None else None
        graph = bundle.graph() if graph is None else graph
        self._output_name = graph.output_names[0]
        shapes = input_shapes(1, self._length or 1, signature.input_names)
        self._forward = _bind(engine, bundle, graph, dict(shapes))

    def each(
        self,
        features: Features,
        keep: Callable[[Array, Encoded], T],
        on_rows: Callable[[int], object] = lambda count: None,
    ) -> list[T]:
        """Return what `keep` returns for each example, as `RowPredictor.each` describes."""
        if not len(features):
            raise DataError("no rows: give at least one text")
        signature = self._signature

        def length_of(longest: int) -> int:
            return self._length or inference_length(longest, signature.max_length)

        def rows_of(longest: int) -> int:
            return min(self._batch_size, cached_rows(length_of(longest)))

        batches = inference_batches(features.lengths, rows_of)
        found: dict[int, T] = {}
        for rows in batches:
            length = length_of(len(features.examples[rows[0]].token_ids))
            inputs = features.batch(rows, length, signature.pad_id, self._config, signature.input_names)
            output = self._forward(inputs)[0]
            if not np.isfinite(output).all():
                raise ModelError(f"an output of {self._output_name} is not finite: check the model with bertsym verify")
            found.update((row, keep(value, features.examples[row])) for row, value in zip(rows.tolist(), output))
            on_rows(len(rows))
        return [found[row] for row in range(len(features))]
