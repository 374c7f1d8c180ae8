"""AdamW with clipping by global gradient norm, and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bertsym.distributed.workers import ALONE, Workers
from bertsym.mxnet_runtime import mx
from bertsym.training.flat_buffers import Block, FlatArrays


class AdamW:
    """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) on flat arrays, with MXNet's fused update.

    ``w -= lr * (m' / (sqrt(v') + epsilon) + wd * w)`` with bias-corrected m' and v', as in torch.optim.AdamW. Bias,
    gamma and beta do not decay. Each block of `layout` has a factor of the learning rate.
    """

    def __init__(
        self,
        layout: Sequence[Block],
        weights: FlatArrays,
        *,
        weight_decay: float,
        clip_norm: float = 0.0,
        workers: Workers = ALONE,
    ) -> None:
        self.count = 0  #: number of updates so far
        self._layout, self._weights = layout, weights
        self._decay, self._clip_norm = weight_decay, clip_norm
        self._beta1, self._beta2, self._epsilon = 0.9, 0.999, 1e-8
        self._workers = workers
        self.means = [mx.nd.zeros_like(flat) for flat in weights.flats]
        self.variances = [mx.nd.zeros_like(flat) for flat in weights.flats]

    def update(self, gradients: FlatArrays, count: float, lr: float) -> Any:
        """Update the weights in place, with gradients that are sums over `count` rows, weights or labelled tokens.

        Returns the global norm of the mean gradient, an NDArray (1,), without waiting for it. If it is not finite, the
        operator changes nothing.
        """
        # The norm's last bits depend on the processor, but all workers must apply the same update.
        norm = self._workers.broadcast_array(global_norm(gradients) / count)
        self.count += 1
        # norm * 0 is NaN if the norm is not finite; mx.nd.maximum alone would lose that.
        clip = self._clip_norm / mx.nd.maximum(norm, self._clip_norm) if self._clip_norm else 1.0
        scale = (norm * 0 + clip) / count
        correction = math.sqrt(1 - self._beta2**self.count)
        for block, weight, gradient, mean, variance in zip(
            self._layout, self._weights.flats, gradients.flats, self.means, self.variances
        ):
            rate = lr * block.rate
            # For float32 weights it needs no second copy, and it is faster than adamw_update.
            mx.nd.contrib.mp_adamw_update(
                weight,
                gradient,
                mean,
                variance,
                weight,
                scale,
                out=weight,
                lr=rate * correction / (1 - self._beta1**self.count),
                eta=1.0,
                beta1=self._beta1,
                beta2=self._beta2,
                # The operator adds epsilon to sqrt(v), not to sqrt(v') = sqrt(v) / correction.
                epsilon=self._epsilon * correction,
                wd=rate * self._decay if block.decays else 0.0,
            )
        return norm


def global_norm(gradients: FlatArrays) -> Any:
    """Return the 2-norm of all gradients as one vector, an NDArray (1,); not finite if any gradient is not finite."""
    return mx.nd.sqrt(mx.nd.add_n(*(mx.nd.dot(flat, flat) for flat in gradients.flats)))


def warmup_linear(step: int, total_steps: int, peak: float, warmup: float) -> float:
    """Return the learning rate of step 0, 1, ... `total_steps` - 1: linear warm-up to `peak`, then linear decay.

    `warmup` is the fraction of the steps used for warm-up. Unlike in Devlin et al. 2018, the rate is above 0 in the
    first and the last step, so that no step is wasted.
    """
    warmup_steps = math.ceil(total_steps * warmup)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * (total_steps - step) / (total_steps - warmup_steps)
