"""The reference encoder notices every mistake that a graph can make: each weight, the activation, padding, the pad id.

A bundle is computed once; then the reference is given a model that differs in one thing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, hugging_face_weights

from bertsym import Bundle
from bertsym.array import Array
from bertsym.encoders.inputs import INPUT_NAMES
from bertsym.errors import ModelError
from bertsym.execution.loaders import load_module
from bertsym.reference import Checkpoint, Inputs, encoder_outputs
from bertsym.verifier import DEFAULT_RTOL, sample_inputs

OUTPUTS = ("pooled", "sequence")
WEIGHTS = hugging_face_weights()
# It adds the same to all scores of a query, which softmax takes away: no output depends on it.
WITHOUT_EFFECT = [name for name in WEIGHTS if name.endswith("key.bias")]


class Computed:
    """What bundles answer, and what the reference says of a model."""

    def __init__(self, prefixes: dict[str, Path]) -> None:
        bundle = Bundle.open(prefixes["cls"])
        self.inputs = sample_inputs(bundle.config, 3, 23, bundle.signature.pad_id)
        self.pad_id = bundle.signature.pad_id
        self.answers = {}
        for output in OUTPUTS:
            bundle = Bundle.open(prefixes[output])
            forward = load_module(bundle.graph().to_json(), bundle.params(), self.inputs, ())
            self.answers[output] = forward(self.inputs)[0]

    def difference(
        self, weights: dict[str, Array] = WEIGHTS, inputs: dict[str, Array] | None = None, **config: Any
    ) -> float:
        """The largest difference of the outputs from the reference, as a fraction of their scale."""
        batch = Inputs(*((inputs or self.inputs)[name] for name in INPUT_NAMES))
        (expected,) = encoder_outputs("bert", Checkpoint("Hugging Face", weights, {**CONFIG, **config}), [batch])
        return max(
            float(np.abs(self.answers[output] - expected[output]).max() / np.abs(expected[output]).max())
            for output in OUTPUTS
        )


@pytest.fixture(scope="module")
def computed(bundles: dict[str, Path]) -> Computed:
    return Computed(bundles)


def test_the_model_itself_is_computed_as_the_reference_does(computed: Computed) -> None:
    assert computed.difference() <= DEFAULT_RTOL


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name not in WITHOUT_EFFECT])
def test_a_change_of_any_weight_is_noticed(computed: Computed, name: str) -> None:
    changed = WEIGHTS[name].copy()
    row = 0
    if name.endswith("word_embeddings.weight"):
        row = int(computed.inputs["data0"][0, 1])
    changed[row if changed.ndim == 1 else (row, 0)] += 0.1  # a whole row of a table would vanish in the LayerNorm
    assert computed.difference({**WEIGHTS, name: changed}) > 10 * DEFAULT_RTOL


def test_key_biases_have_no_effect_on_any_output(computed: Computed) -> None:
    changed = {name: WEIGHTS[name] + 1 for name in WITHOUT_EFFECT}
    assert computed.difference({**WEIGHTS, **changed}) <= DEFAULT_RTOL


@pytest.mark.parametrize(
    "config",
    [{"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}, {"num_attention_heads": 2 * CONFIG["num_attention_heads"]}],
    ids=["activation", "epsilon", "heads"],
)
def test_another_setting_is_noticed(computed: Computed, config: dict[str, Any]) -> None:
    assert computed.difference(**config) > 10 * DEFAULT_RTOL


def test_padding_that_is_read_is_noticed(computed: Computed) -> None:
    lengths = computed.inputs["data2"].copy()
    lengths[2] += 1
    assert computed.difference(inputs={**computed.inputs, "data2": lengths}) > 10 * DEFAULT_RTOL


def test_a_mask_made_from_the_pad_id_is_noticed(computed: Computed) -> None:
    """The sample has that id among its tokens: without these, the text would be another one."""
    ids, types, lengths = (computed.inputs[name] for name in INPUT_NAMES)
    assert (ids[0] == computed.pad_id).any()
    kept = ids[0] != computed.pad_id
    first = {"data0": ids[:1, kept], "data1": types[:1, kept], "data2": lengths[:1] - (~kept).sum()}
    batch = Inputs(*(first[name] for name in INPUT_NAMES))
    (without,) = encoder_outputs("bert", Checkpoint("Hugging Face", WEIGHTS, CONFIG), [batch])
    assert np.abs(without["pooled"][0] - computed.answers["pooled"][0]).max() > 100 * DEFAULT_RTOL


def test_an_unknown_activation_is_refused(computed: Computed) -> None:
    with pytest.raises(ModelError, match="activation 'mish' is not one that the reference encoder has: gelu, relu"):
        computed.difference(hidden_act="mish")
