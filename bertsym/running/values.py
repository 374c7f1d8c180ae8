"""The values of tensors, which mxnet computes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertsym.errors import DataError, ModelError
from bertsym.model import Model
from bertsym.running.inputs import check_model_inputs
from bertsym.running.loading import load_symbol, quiet_inference
from bertsym.running.shapes import Shape, tensor_shapes
from bertsym.runtime import mx, mxnet_errors, quiet_stderr, without_fusion
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Output
from bertsym.symbol.params import Array


def model_values(
    model: Model, inputs: Mapping[str, Array], outputs: Sequence[Output] | None = None, *, fused: bool = False
) -> list[Array]:
    """As `tensor_values` of a model's graph and parameters, on inputs that are checked first.

    Raises DataError for inputs by which MXNet would leave its memory, too.
    """
    check_model_inputs(model, inputs)
    return tensor_values(model.graph, model.params or {}, inputs, outputs, where=model.name, fused=fused)


def tensor_values(
    graph: SymbolGraph,
    params: Mapping[str, Array],
    inputs: Mapping[str, Array],
    outputs: Sequence[Output] | None = None,
    *,
    where: str,
    fused: bool = False,
) -> list[Array]:
    """The values of `outputs`, by default of what the graph ends in, at inference; `inputs` are not checked.

    With `fused` MXNet may join operators, as it does by default; it then gives a layer's values for those of its
    activation where both are asked for. Labels and other variables that have no value are zeros.

    Raises ModelError when MXNet can't run the graph, and DataError when an input of the graph is missing.
    """
    outputs = list(outputs) if outputs is not None else graph.outputs
    symbol = load_symbol(graph, outputs, where)
    arguments, states = symbol.list_arguments(), symbol.list_auxiliary_states()
    with mxnet_errors(where), quiet_inference():
        given = {name: tuple(array.shape) for name, array in inputs.items() if name in arguments}
        known = {name: tuple(params[name].shape) for name in [*arguments, *states] if name in params}
        argument_shapes, _, state_shapes = symbol.infer_shape(**{**known, **given})
    if argument_shapes is None:
        raise DataError(f"{where}: the shapes of its inputs are not enough: give more with --shape NAME=SIZES")
    _check_reshapes(graph, outputs, {**known, **given}, where)

    def value(name: str, shape: Shape) -> Any:
        array = inputs[name] if name in inputs else params.get(name)
        if array is None:
            return mx.nd.zeros(shape)
        return mx.nd.array(array, dtype=array.dtype)

    with mxnet_errors(where):
        with contextlib.nullcontext() if fused else without_fusion(), quiet_stderr():
            executor = symbol.bind(
                mx.cpu(),
                {name: value(name, shape) for name, shape in zip(arguments, argument_shapes)},
                grad_req="null",
                aux_states={name: value(name, shape) for name, shape in zip(states, state_shapes)},
            )
        return [np.asarray(array.asnumpy()) for array in executor.forward(is_train=False)]


def _check_reshapes(graph: SymbolGraph, outputs: Sequence[Output], shapes: Mapping[str, Shape], where: str) -> None:
    """Raise ModelError for a Reshape that loses numbers: MXNet runs it, and writes outside of its memory."""
    needed = graph.ancestors(*(output.node for output in outputs))
    part = SymbolGraph([node for node in graph.nodes if node in needed], outputs, graph.document)
    known = tensor_shapes(part, shapes, where)
    for node in part.nodes:
        if node.op in ("Reshape", "reshape"):
            before, after = known.get(node.inputs[0]), known.get(Output(node))
            if before and after and math.prod(before) != math.prod(after):
                raise ModelError(f"{where}: {node.name} can't reshape {before} into {after}")
