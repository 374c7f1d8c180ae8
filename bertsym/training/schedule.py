"""The learning rate of each step."""

from __future__ import annotations

import math


def warmup_linear(step: int, total_steps: int, peak: float, warmup: float) -> float:
    """Learning rate of step 0, 1, ... `total_steps` - 1: a linear rise to `peak`, then a linear decay.

    `warmup` is the part of the steps that rise. The first step has a rate above 0, the last one too
    (Devlin et al. 2018, with the ends moved so that no step is wasted).
    """
    rising = math.ceil(total_steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (total_steps - step) / (total_steps - rising)
