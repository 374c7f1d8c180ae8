"""Adam with decoupled weight decay and bias correction, and the clipping of gradients by global norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bertsym.distributed.workers import ALONE, Workers
from bertsym.runtime import mx
from bertsym.training.flat_buffers import Block, FlatArrays


class AdamW:
    """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) of flat arrays, by MXNet's fused update.

    ``w -= lr * (m' / (sqrt(v') + epsilon) + wd * w)`` with bias-corrected m' and v'; as in torch.optim.AdamW. Bias,
    gamma and beta do not decay.
    """

    def __init__(
        self,
        layout: Sequence[Block],
        weights: FlatArrays,
        *,
        weight_decay: float,
        clip_norm: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        workers: Workers = ALONE,
    ) -> None:
        self.count = 0  #: updates so far
        self._layout, self._weights = layout, weights
        self._decay, self._clip_norm = weight_decay, clip_norm
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self._workers = workers
        self.means = [mx.nd.zeros_like(flat) for flat in weights.flats]
        self.variances = [mx.nd.zeros_like(flat) for flat in weights.flats]

    def update(self, gradients: FlatArrays, rows: int, lr: float) -> Any:
        """One step, in place, with gradients that are sums over so many rows.

        Returns the global norm of their mean, an NDArray (1,): nothing waits for it. Where it is not finite, the
        operator leaves everything as it was.
        """
        # Its last bits depend on the processor, and all workers must make the same step.
        norm = self._workers.of_first(global_norm(gradients) / rows)
        self.count += 1
        # norm * 0 is NaN where the norm is not finite, which a maximum would lose.
        clip = self._clip_norm / mx.nd.maximum(norm, self._clip_norm) if self._clip_norm else 1.0
        scale = (norm * 0 + clip) / rows
        correction = math.sqrt(1 - self._beta2**self.count)
        for block, weight, gradient, mean, variance in zip(
            self._layout, self._weights.flats, gradients.flats, self.means, self.variances
        ):
            # Of weights in float32 it needs no second copy, and is quicker than adamw_update.
            mx.nd.contrib.mp_adamw_update(
                weight,
                gradient,
                mean,
                variance,
                weight,
                scale,
                out=weight,
                lr=lr * correction / (1 - self._beta1**self.count),
                eta=1.0,
                beta1=self._beta1,
                beta2=self._beta2,
                # The operator adds it to sqrt(v), not to sqrt(v') = sqrt(v) / correction.
                epsilon=self._epsilon * correction,
                wd=lr * self._decay if block.decays else 0.0,
            )
        return norm


def global_norm(gradients: FlatArrays) -> Any:
    """The 2-norm of all gradients as one vector, an NDArray (1,); infinite or NaN when one of them is."""
    return mx.nd.sqrt(mx.nd.add_n(*(mx.nd.dot(flat, flat) for flat in gradients.flats)))
