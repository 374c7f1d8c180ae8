"""Steps that are reported together."""

from __future__ import annotations

import dataclasses

from bertsym.events import Span, StepDone

_GROUPS_PER_EPOCH = 10


class StepGroups:
    """Combines the steps of a tenth of an epoch, but at least 10, into one event."""

    def __init__(self) -> None:
        self._steps: list[StepDone] = []

    def completed_by(self, step: StepDone) -> StepDone | None:
        """Return the event of a group, with its mean loss and gradient norm, if `step` is its last; None otherwise."""
        self._steps.append(step)
        size = max(10, step.steps_in_epoch // _GROUPS_PER_EPOCH)
        if step.step_in_epoch % size and step.step_in_epoch < step.steps_in_epoch:
            return None
        count, first = len(self._steps), self._steps[0]
        loss = sum(each.loss for each in self._steps) / count
        norm = sum(each.gradient_norm for each in self._steps) / count
        self._steps.clear()
        span = Span(first.span.start, step.span.end)
        return dataclasses.replace(step, span=span, loss=loss, gradient_norm=norm, steps=count)
