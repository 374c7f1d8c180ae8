"""Predictions by an engine other than mxnet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bertsym.acceleration.graphs import accelerate_graph
from bertsym.bundle import Bundle
from bertsym.encoders.inputs import input_shapes
from bertsym.errors import DataError, ModelError, UsageError
from bertsym.execution.engines import engine_name, load_engine
from bertsym.inference.mxnet_predictor import BATCH_SIZE, MXNetPredictor
from bertsym.inference.row_predictor import RowPredictor, T
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.params import Array
from bertsym.text.batches import cached_rows, inference_batches, inference_length
from bertsym.text.features import Features
from bertsym.text.tokenizer import Encoded


def open_predictor(
    bundle: Bundle, device: str = "cpu", batch_size: int = BATCH_SIZE, graph: SymbolGraph | None = None
) -> RowPredictor:
    """A predictor by the engine in use, of the bundle's graph, or of a `graph` of its parameters for any length.

    Raises UsageError for a device or a precision that the engine does not have.
    """
    if engine_name("no predictions") == "mxnet":
        return MXNetPredictor.from_bundle(bundle, device, batch_size, graph)
    return EnginePredictor(bundle, device, batch_size, graph)


class EnginePredictor(RowPredictor):
    """The output of a bundle, computed batch by batch, the longest texts first, by the engine in use."""

    def __init__(
        self, bundle: Bundle, device: str = "cpu", batch_size: int = BATCH_SIZE, graph: SymbolGraph | None = None
    ) -> None:
        engine, signature = engine_name(), bundle.signature
        if device != "cpu":
            raise UsageError(f"device {device!r}: the engine {engine} runs on the CPU only; take --engine mxnet")
        if signature.precision != "float32":
            raise UsageError(f"{bundle.prefix}: is {signature.precision}, which needs --engine mxnet")
        self._signature, self._config, self._batch_size = signature, bundle.config, batch_size
        self._length = signature.length if graph is None else None
        graph = accelerate_graph(bundle.graph() if graph is None else graph, bundle.params().shapes, "portable")
        self._output_name = graph.output_names[0]
        shapes = input_shapes(1, self._length or 1, signature.input_names)
        sample: dict[str, Array] = {name: np.ones(shape, np.float32) for name, shape in shapes}
        self._forward = load_engine(engine).bind(graph.to_json(), str(bundle.prefix), bundle.params(), sample)

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
