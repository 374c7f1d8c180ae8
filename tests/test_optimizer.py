"""Optimizer, clipping and schedule compared with independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bertsym.array import Array
from bertsym.mxnet_runtime import mx
from bertsym.training.finetune_options import FinetuneOptions
from bertsym.training.flat_buffers import FlatArrays, split_into_blocks
from bertsym.training.optimizer import AdamW, global_norm, warmup_linear


def test_learning_rate_rises_to_the_peak_and_falls_towards_zero() -> None:
    rates = [warmup_linear(step, 10, 1.0, 0.2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    assert warmup_linear(0, 4, 3e-5, 0.0) == pytest.approx(3e-5)


def test_warmup_over_all_steps_never_divides_by_zero() -> None:
    assert [warmup_linear(step, 3, 1.0, 1.0) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def flat(**arrays: Array) -> FlatArrays:
    shapes = {name: array.shape for name, array in arrays.items()}
    made = FlatArrays(split_into_blocks(shapes, 2), shapes, mx.cpu())
    made.set(arrays)
    return made


def test_adamw_follows_the_paper_for_several_steps() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 3))
    gradients = rng.normal(size=(4, 5, 3))
    lr, wd, beta1, beta2, epsilon = 0.01, 0.1, 0.9, 0.999, 1e-8

    weights = flat(x_weight=weight)
    optimizer = AdamW(split_into_blocks({"x_weight": (5, 3)}, 2), weights, weight_decay=wd)
    mean = variance = np.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        optimizer.update(flat(x_weight=gradient), count=2, lr=lr)
        scaled = gradient * 0.5
        mean = beta1 * mean + (1 - beta1) * scaled
        variance = beta2 * variance + (1 - beta2) * scaled**2
        corrected = (mean / (1 - beta1**step)) / (np.sqrt(variance / (1 - beta2**step)) + epsilon)
        weight = weight - lr * (corrected + wd * weight)
    np.testing.assert_allclose(weights.arrays["x_weight"].asnumpy(), weight, atol=2e-6)


def test_bias_gamma_and_beta_do_not_decay() -> None:
    names = ("fc_weight", "fc_bias", "norm_gamma", "norm_beta")
    shapes = dict.fromkeys(names, (4,))
    weights = flat(**{name: np.ones(4) for name in names})
    optimizer = AdamW(split_into_blocks(shapes, 2), weights, weight_decay=0.5)
    optimizer.update(flat(**{name: np.full(4, 1e-12) for name in names}), count=1, lr=0.1)
    decayed = {name: weights.arrays[name].asnumpy().max() for name in names}
    assert decayed == pytest.approx({"fc_weight": 0.95, "fc_bias": 1, "norm_gamma": 1, "norm_beta": 1}, abs=1e-4)


def test_gradients_are_clipped_by_global_norm() -> None:
    gradient = np.array([30.0, 40.0])  # sum over two rows; the mean has norm 25
    moments = []
    for clip_norm, expected in ((5.0, 5.0), (100.0, 25.0), (0.0, 25.0)):
        optimizer = AdamW(
            split_into_blocks({"x_weight": (2,)}, 1), flat(x_weight=np.ones(2)), weight_decay=0, clip_norm=clip_norm
        )
        norm = optimizer.update(flat(x_weight=gradient), count=2, lr=0.1)
        assert float(norm.asscalar()) == pytest.approx(25)
        moments.append(float(optimizer.means[0].norm().asscalar()))
        assert moments[-1] == pytest.approx(0.1 * expected, rel=1e-5)


def test_the_global_norm_covers_all_gradients() -> None:
    arrays = {"x_weight": np.arange(6, dtype=np.float32).reshape(2, 3), "x_bias": np.array([7.0, -1.0], np.float32)}
    expected = math.sqrt(sum(float((array**2).sum()) for array in arrays.values()))
    assert float(global_norm(flat(**arrays)).asscalar()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_change_nothing(bad: float, clip_norm: float) -> None:
    weights = flat(x_weight=np.ones(2))
    optimizer = AdamW(split_into_blocks({"x_weight": (2,)}, 1), weights, weight_decay=0.1, clip_norm=clip_norm)
    norm = optimizer.update(flat(x_weight=np.array([1.0, bad])), count=1, lr=0.1)
    assert not math.isfinite(float(norm.asscalar()))
    np.testing.assert_array_equal(weights.arrays["x_weight"].asnumpy(), [1, 1])


def test_the_default_learning_rate_depends_on_freeze_encoder() -> None:
    assert FinetuneOptions().peak_learning_rate == 5e-5
    assert FinetuneOptions(freeze_encoder=True).peak_learning_rate == 1e-3
    assert FinetuneOptions(freeze_encoder=True, learning_rate=0.2).peak_learning_rate == 0.2
