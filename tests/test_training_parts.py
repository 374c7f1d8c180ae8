"""Schedule, optimizer and clipping against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bertsym.runtime import mx
from bertsym.training.optimizer import AdamW, exempt_from_decay, global_norm
from bertsym.training.options import FinetuneOptions
from bertsym.training.schedule import warmup_linear


def test_learning_rate_rises_to_the_peak_and_falls_towards_zero() -> None:
    rates = [warmup_linear(step, 10, 1.0, 0.2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    assert warmup_linear(0, 4, 3e-5, 0.0) == pytest.approx(3e-5)


def test_warmup_over_all_steps_never_divides_by_zero() -> None:
    assert [warmup_linear(step, 3, 1.0, 1.0) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_adamw_follows_the_paper_for_several_steps() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 3))
    gradients = rng.normal(size=(4, 5, 3))
    lr, wd, beta1, beta2, epsilon = 0.01, 0.1, 0.9, 0.999, 1e-8

    optimizer = AdamW(learning_rate=lr, wd=wd, rescale_grad=0.5, param_idx2name={0: "x_weight"})
    array = mx.nd.array(weight)
    state = optimizer.create_state(0, array)
    mean = variance = np.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        optimizer.update(0, array, mx.nd.array(gradient), state)
        scaled = gradient * 0.5
        mean = beta1 * mean + (1 - beta1) * scaled
        variance = beta2 * variance + (1 - beta2) * scaled**2
        corrected = (mean / (1 - beta1**step)) / (np.sqrt(variance / (1 - beta2**step)) + epsilon)
        weight = weight - lr * (corrected + wd * weight)
    np.testing.assert_allclose(array.asnumpy(), weight, atol=2e-6)


def test_bias_gamma_and_beta_do_not_decay() -> None:
    names = {0: "fc_weight", 1: "fc_bias", 2: "norm_gamma", 3: "norm_beta"}
    optimizer = AdamW(learning_rate=0.1, wd=0.5, param_idx2name=names)
    exempt_from_decay(optimizer)
    for index, name in names.items():
        array = mx.nd.ones((4,))
        optimizer.update(index, array, mx.nd.zeros((4,)), optimizer.create_state(index, array))
        expected = 1 - 0.1 * 0.5 if name == "fc_weight" else 1.0
        np.testing.assert_allclose(array.asnumpy(), expected, atol=1e-6, err_msg=name)


def test_global_norm_is_that_of_all_gradients_together() -> None:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7.0, -1.0], np.float32)]
    expected = math.sqrt(sum(float((array**2).sum()) for array in arrays))
    assert global_norm(mx.nd.array(array) for array in arrays) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_global_norm_shows_values_that_are_not_finite(bad: float) -> None:
    assert not math.isfinite(global_norm([mx.nd.array([1.0, bad]), mx.nd.array([2.0])]))


def test_default_learning_rate_depends_on_what_is_trained() -> None:
    assert FinetuneOptions().peak_learning_rate == 5e-5
    assert FinetuneOptions(freeze_encoder=True).peak_learning_rate == 1e-3
    assert FinetuneOptions(freeze_encoder=True, learning_rate=0.2).peak_learning_rate == 0.2
