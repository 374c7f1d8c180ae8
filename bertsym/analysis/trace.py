"""What a tensor downstream of the encoder is: which tokens it holds, in which layout, after which steps."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass

from bertsym.analysis.symbolic_shapes import Axes


class TokenSelection(enum.Enum):
    """The tokens that a tensor is computed from."""

    ALL = enum.auto()
    POSITION = enum.auto()  #: the token at `Trace.position`
    LAST = enum.auto()  #: the last valid token
    SOME = enum.auto()  #: a range of the tokens
    FLATTENED = enum.auto()  #: all tokens, on one axis with their units
    MEAN = enum.auto()
    SUM = enum.auto()
    MAX = enum.auto()


class StepKind(enum.Enum):
    """What a step computes."""

    DENSE = enum.auto()
    FUNCTION = enum.auto()  #: an activation or a normalisation
    SLICE = enum.auto()  #: a range of the units
    MERGE = enum.auto()  #: an element-wise combination of branches with different steps
    COMBINE = enum.auto()  #: an element-wise combination of branches with the same steps
    SCALE = enum.auto()  #: a constant factor or summand


@dataclass(frozen=True)
class Step:
    """A layer or function between the encoder and a tensor."""

    kind: StepKind
    function: str = ""  #: of a FUNCTION: operator or activation, such as ``tanh``
    units: int | None = None  #: of a DENSE


SLICE, MERGE, COMBINE, SCALE = (
    Step(kind) for kind in (StepKind.SLICE, StepKind.MERGE, StepKind.COMBINE, StepKind.SCALE)
)


def dense_step(units: int) -> Step:
    """A FullyConnected with `units` outputs."""
    return Step(StepKind.DENSE, units=units)


def function_step(function: str) -> Step:
    """An activation or a normalisation."""
    return Step(StepKind.FUNCTION, function)


@dataclass(frozen=True)
class Trace:
    """A tensor that is computed from the encoder's output."""

    axes: Axes
    selection: TokenSelection
    position: int | None = None  #: of a POSITION; counted from the end where it is negative
    steps: tuple[Step, ...] = ()
    steps_per_token: int = 0  #: of a MEAN, SUM or MAX: how many of the steps precede the reduction
    masked: bool = False  #: zero at padding; of a SUM or MEAN: padding was zero before the reduction
    counted: bool = False  #: of a MEAN: over the valid tokens only
    length: int | None = None  #: the only sequence length that the operators so far accept
    width: int | None = None  #: of FLATTENED tokens: units of each token

    def then(self, step: Step, *, keeps_zero: bool = False) -> Trace:
        """Append a step; padding stays zero if the step `keeps_zero`, or if the tokens were reduced before."""
        masked = self.masked and (keeps_zero or self.selection is not TokenSelection.ALL)
        return dataclasses.replace(self, steps=(*self.steps, step), masked=masked)

    @property
    def is_cls(self) -> bool:
        """Whether it holds the token at position 0 only."""
        return self.selection is TokenSelection.POSITION and self.position == 0
