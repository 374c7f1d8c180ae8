"""MXNet as the engine."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.errors import DataError
from bertsym.execution.engines import Forward
from bertsym.execution.loaders import check_params, compute_loaded, load_module, load_symbol, to_mxnet
from bertsym.mxnet_runtime import import_library, mx, mxnet_errors, quiet_stderr, without_fusion

Shape = tuple[int, ...]

__all__ = ["bind", "check_params", "compute", "compute_loaded", "infer_shapes", "list_outputs", "prepare"]


def prepare() -> None:
    """Import mxnet, without the memory that its engine needs to compute."""
    import_library("mxnet", computes=False)


def list_outputs(symbol: str, where: str) -> list[str]:
    """What MXNet calls the outputs; raises ModelError, naming `where`, for what it does not load."""
    return [str(name) for name in _loaded(symbol, where).list_outputs()]


def infer_shapes(
    symbol: str, where: str, shapes: Mapping[str, Shape]
) -> tuple[dict[str, Shape | None], list[Shape | None]]:
    """The shapes of the variables by name, and of the outputs, as far as MXNet infers them from `shapes`.

    Raises ModelError when they contradict each other.
    """
    loaded = _loaded(symbol, where)
    names = [*loaded.list_arguments(), *loaded.list_auxiliary_states()]
    with mxnet_errors(where), _quiet_inference():
        arguments, found, states = loaded.infer_shape_partial(
            **{name: tuple(shape) for name, shape in shapes.items() if name in names}
        )
    return dict(zip(names, [*arguments, *states])), found


def bind(symbol: str, where: str, params: Mapping[str, Array], sample: Mapping[str, Array]) -> Forward:
    """A Module that is bound to the shapes of the sample, and again for others."""
    with mxnet_errors(where), quiet_stderr():
        return load_module(symbol, params, sample, ())


def compute(
    symbol: str, where: str, fused: bool, params: Mapping[str, Array], inputs: Mapping[str, Array]
) -> list[Array]:
    """The values of the outputs at inference; variables that have no value are zeros.

    With `fused` MXNet may join operators, as it does by default. Raises ModelError when it can't run the symbol, and
    DataError when the shapes of the inputs are not enough.
    """
    loaded = _loaded(symbol, where)
    arguments, states = loaded.list_arguments(), loaded.list_auxiliary_states()
    values = {name: inputs[name] if name in inputs else params.get(name) for name in [*arguments, *states]}
    with mxnet_errors(where), _quiet_inference():
        argument_shapes, _, state_shapes = loaded.infer_shape(
            **{name: array.shape for name, array in values.items() if array is not None}
        )
    if argument_shapes is None:
        raise DataError(f"{where}: the shapes of its inputs are not enough: give more with --shape NAME=SIZES")

    def value(name: str, shape: Shape) -> Any:
        array = values[name]
        return mx.nd.zeros(shape) if array is None else to_mxnet(array)

    with mxnet_errors(where):
        with contextlib.nullcontext() if fused else without_fusion(), quiet_stderr():
            executor = loaded.bind(
                mx.cpu(),
                {name: value(name, shape) for name, shape in zip(arguments, argument_shapes)},
                grad_req="null",
                aux_states={name: value(name, shape) for name, shape in zip(states, state_shapes)},
            )
        return [np.asarray(array.asnumpy()) for array in executor.forward(is_train=False)]


def _loaded(symbol: str, where: str) -> Any:
    with mxnet_errors(where):
        return load_symbol(symbol)


@contextlib.contextmanager
def _quiet_inference() -> Iterator[None]:
    """Without what mxnet prints and warns when shapes don't fit: the error says it."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
