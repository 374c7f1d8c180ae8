"""Compare a changed graph with the original: MXNet runs both on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertsym.array import Array
from bertsym.errors import ModelError, UsageError, VerificationError
from bertsym.execution import Shape, model_values, sample_inputs
from bertsym.execution.engines import engine_name
from bertsym.model import Model
from bertsym.symbol.node import Output

DEFAULT_RTOL = 1e-5  #: largest difference allowed, relative to the scale


class NotComparableError(ModelError):
    """The original can't be run, so nothing can be compared with it."""


@dataclass(frozen=True)
class Difference:
    """A comparison of two versions of a tensor."""

    name: str
    max_difference: float  #: infinite if the shapes differ, or if an element is finite in one version only
    scale: float  #: largest absolute element of the first version
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None  #: both shapes, if they differ
    not_finite: tuple[int, int] = (0, 0)  #: number of elements of each version that are infinite or NaN

    @property
    def relative(self) -> float:
        """The largest difference relative to the scale."""
        return self.max_difference / self.scale

    def __str__(self) -> str:
        if self.shapes is not None:
            return f"{self.name}: shapes {self.shapes[0]} and {self.shapes[1]}"
        if any(self.not_finite):
            return f"{self.name}: {self.not_finite[0]} and {self.not_finite[1]} elements are not finite"
        return f"{self.name}: max difference {self.max_difference:.1e} ({self.relative:.1e} of scale {self.scale:.3g})"


def difference(name: str, one: Array, other: Array) -> Difference:
    """Compare two arrays; equal infinities and NaNs do not differ."""
    if one.shape != other.shape:
        return Difference(name, np.inf, 1.0, (one.shape, other.shape))
    not_finite = (int(np.count_nonzero(~np.isfinite(one))), int(np.count_nonzero(~np.isfinite(other))))
    scale = float(np.abs(one).max(initial=0, where=np.isfinite(one))) or 1.0
    differing = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    if not differing.any():
        return Difference(name, 0.0, scale, not_finite=not_finite)
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        largest = float(np.abs(one[differing].astype(np.float64) - other[differing]).max())
    # The difference of large integers may vanish in float64.
    largest = largest or float(np.finfo(np.float32).tiny)
    return Difference(name, largest if np.isfinite(largest) else np.inf, scale, not_finite=not_finite)


def compare(
    original: Model,
    changed: Model,
    pairs: Sequence[tuple[Output, Output]],
    *,
    fed: Mapping[str, Output] | None = None,
    renamed: Mapping[str, str] | None = None,
    shapes: Mapping[str, Shape] | None = None,
) -> list[Difference]:
    """Run both models on the same random inputs and compare `pairs` of tensors.

    Args:
        original: the first model.
        changed: the second model.
        pairs: tensors of the original and of the changed model.
        fed: inputs of the changed model -> tensors of the original that are fed to them.
        renamed: inputs of the original -> their names in the changed model.
        shapes: shapes of inputs whose shape the graph does not determine.

    Raises:
        UnknownShapeError: the shape of an input is unknown.
        ModelError: MXNet can't run one of the graphs.
    """
    fed, renamed = fed or {}, renamed or {}
    assert original.params is not None
    assert changed.params is not None
    wanted = [*(mine for mine, _ in pairs), *fed.values()]
    inputs = sample_inputs(original, shapes, needed=wanted)
    values = _values(original, inputs, wanted)
    theirs = {renamed.get(name, name): array for name, array in inputs.items()}
    theirs.update(zip(fed, values[len(pairs) :]))
    others = _values(changed, theirs, [other for _, other in pairs])
    return [difference(str(other), one, two) for (_, other), one, two in zip(pairs, values, others)]


def check_equal(differences: Sequence[Difference], where: str, rtol: float = DEFAULT_RTOL) -> None:
    """Raise VerificationError for a tensor that differs by more than `rtol` of its scale."""
    for found in differences:
        # Written so that NaN fails too.
        if not found.relative <= rtol:
            raise VerificationError(f"{where}: the outputs differ from those of the original: {found}")


def find_fusion_faults(model: Model, shapes: Mapping[str, Shape] | None = None) -> list[str]:
    """Return the outputs that MXNet computes wrong unless operator fusion is switched off.

    MXNet 1.9.1 does so if both a FullyConnected and its activation are outputs of a graph.
    """
    if len(model.graph.outputs) < 2 or engine_name() != "mxnet":
        return []
    try:
        inputs = sample_inputs(model, shapes)
    except UsageError:
        return []
    unfused, fused = (model_values(model, inputs, fused=fuse) for fuse in (False, True))
    names = [str(output) for output in model.graph.outputs]
    return [
        name for name, one, two in zip(names, unfused, fused) if not difference(name, one, two).relative <= DEFAULT_RTOL
    ]


def _values(model: Model, inputs: Mapping[str, Array], outputs: Sequence[Output]) -> list[Array]:
    """Compute the values of outputs, some of which may be inputs."""
    assert model.params is not None
    computed = list(dict.fromkeys(output for output in outputs if not output.node.is_variable))
    values: dict[Output, Array] = {}
    if computed:
        values = dict(zip(computed, model_values(model, inputs, computed)))
    for output in outputs:
        if output.node.is_variable:
            name = output.node.name
            values[output] = inputs[name] if name in inputs else model.params[name]
    return [values[output] for output in outputs]
