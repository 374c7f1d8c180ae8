"""The elements of tensors, computed by an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.execution.bounds_checks import RULES, check_tensors
from bertsym.execution.engines import Shape
from bertsym.execution.sample_inputs import check_model_inputs
from bertsym.execution.sandbox import call
from bertsym.execution.shapes import checked_text, tensor_shapes
from bertsym.model import Model
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output
from bertsym.symbol.params import shapes_of
from bertsym.symbol.shape_inference import infer_tensor_shapes


def model_values(
    model: Model, inputs: Mapping[str, Array], outputs: Sequence[Output] | None = None, *, fused: bool = False
) -> list[Array]:
    """Check the inputs of a model, then compute outputs of its graph, as `tensor_values` does.

    Also raises DataError for inputs on which MXNet would access memory out of bounds.
    """
    check_model_inputs(model, inputs)
    params = model.params if model.params is not None else {}
    try:
        return tensor_values(model.graph, params, inputs, outputs, where=model.name, fused=fused, trusted=model.trusted)
    except ModelError as error:
        if model.params is None or all(info.dtype != "<f2" for info in model.params.infos.values()):
            raise
        # FullyConnected of 1.9.1 has no float16 on a CPU.
        advice = "MXNet can't compute in float16 on a CPU: bertsym lower converts a BERT to float32"
        raise ModelError(f"{error}; {advice}") from None


def tensor_values(
    graph: SymbolGraph,
    params: Mapping[str, Array],
    inputs: Mapping[str, Array],
    outputs: Sequence[Output] | None = None,
    *,
    where: str,
    fused: bool = False,
    trusted: bool = False,
) -> list[Array]:
    """Compute `outputs`, by default those of the graph, at inference; `inputs` are not checked.

    With `fused` MXNet may fuse operators, as it does by default; it then returns a layer's elements for those of its
    activation where both are outputs. Labels and other variables without a value are zeros. A graph that is not
    `trusted` runs in the sandbox.

    Raises ModelError when the engine can't run the graph, and DataError when an input of the graph is missing.
    """
    outputs = list(outputs) if outputs is not None else graph.outputs
    text = checked_text(graph, outputs, where)
    _check_shapes(graph, outputs, {**shapes_of(params), **shapes_of(inputs)}, where, trusted)
    values: list[Array] = call("compute", text, where, trusted, fused=fused, params=params, inputs=inputs)
    return values


def _check_shapes(
    graph: SymbolGraph, outputs: Sequence[Output], shapes: Mapping[str, Shape], where: str, trusted: bool
) -> None:
    """Raise ModelError for shapes on which MXNet would access memory out of bounds."""
    part = graph.part(outputs)
    if not any(node.op in RULES for node in part.nodes):
        return
    known = None
    if trusted:
        with contextlib.suppress(ModelError):  # for other operators than export's
            known = infer_tensor_shapes(part, shapes, where)
    if known is None:
        known = tensor_shapes(part, shapes, where, trusted=trusted)
    check_tensors(part, known, where)
