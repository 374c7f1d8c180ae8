"""Adam with decoupled weight decay and bias correction, and the clipping of gradients by global norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bertsym.runtime import mx


class AdamW(mx.optimizer.Optimizer):  # type: ignore[misc]
    """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), by MXNet's fused adamw_update.

    ``w -= lr * (m' / (sqrt(v') + epsilon) + wd * w)`` with bias-corrected m' and v'; as in torch.optim.AdamW.
    The decay is that of the parameters without a wd_mult of 0 (`exempt_from_decay`).
    """

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, **options: Any) -> None:
        super().__init__(**options)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def create_state(self, index: int, weight: Any) -> tuple[Any, Any]:
        """First and second moment, of the weight's shape."""
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def update(self, index: int, weight: Any, grad: Any, state: tuple[Any, Any]) -> None:
        """One step of one parameter, in place."""
        self._update_count(index)
        count = self._index_update_count[index]
        lr, wd = self._get_lr(index), self._get_wd(index)
        correction = math.sqrt(1 - self.beta2**count)
        mean, variance = state
        mx.nd.contrib.adamw_update(
            weight,
            grad,
            mean,
            variance,
            mx.nd.array([self.rescale_grad], ctx=weight.context),
            out=weight,
            lr=lr * correction / (1 - self.beta1**count),
            eta=1.0,
            beta1=self.beta1,
            beta2=self.beta2,
            # The operator adds it to sqrt(v), not to sqrt(v') = sqrt(v) / correction.
            epsilon=self.epsilon * correction,
            wd=lr * wd,
        )


def exempt_from_decay(optimizer: Any) -> None:
    """Take bias, gamma and beta out of the weight decay."""
    optimizer.set_wd_mult(
        {name: 0.0 for name in optimizer.idx2name.values() if name.endswith(("_bias", "_gamma", "_beta"))}
    )


def global_norm(gradients: Iterable[Any]) -> float:
    """The 2-norm of all gradients as one vector; infinite or NaN when one of them is."""
    arrays = list(gradients)
    total = float(mx.nd.multi_sum_sq(*arrays, num_arrays=len(arrays)).sum().asscalar())
    return math.sqrt(total) if total >= 0 else math.nan


def reduce_over_devices(gradients: Iterable[list[Any]]) -> None:
    """Replace each device's gradient by the sum over the devices."""
    for per_device in gradients:
        if len(per_device) > 1:
            total = per_device[0].copy()
            for gradient in per_device[1:]:
                total += gradient.as_in_context(total.context)
            for gradient in per_device:
                total.copyto(gradient)
