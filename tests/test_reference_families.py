"""The reference notices a change of anything that a family's model has: weights, activation, positions, segments.

What the references compute was compared with transformers by scripts/maintenance/compare_transformers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from family_models import CLASSES, CONFIGS, ENDINGS, encoder_weights, head_weights

from bertsym.array import Array
from bertsym.errors import ModelError
from bertsym.reference import HUGGING_FACE_HEADS, Checkpoint, Inputs, encoder_outputs
from bertsym.reference.functions import relative_buckets
from bertsym.verifier import DEFAULT_RTOL

LENGTHS = np.array([24, 1, 9])
RNG = np.random.default_rng(0)
TOKEN_IDS = RNG.integers(53, size=(3, 24))
#: changes that no output depends on: softmax takes away what a key's bias adds to all scores of a query
WITHOUT_EFFECT = (".key.bias", ".k_lin.bias", ".attn.k.bias")


def outputs(
    model_type: str, weights: dict[str, Array], task: str | None = None, lengths: Array = LENGTHS, **changes: Any
) -> Array:
    """What the head for a task gives for each text, or the sequence and the pooled output, in one vector."""
    config = {**CONFIGS[model_type], **changes}
    types = np.random.default_rng(1).integers(config.get("type_vocab_size", 1), size=TOKEN_IDS.shape)
    checkpoint = Checkpoint("Hugging Face", weights, config)
    (found,) = encoder_outputs(model_type, checkpoint, [Inputs(TOKEN_IDS, types, lengths)])
    if task is not None:
        return HUGGING_FACE_HEADS[CLASSES[model_type] + ENDINGS[task]].values(found, weights, config)
    pooled = [] if found.pooled is None else [found.pooled.ravel()]
    return np.concatenate([found.sequence.ravel(), found.mean.ravel(), *pooled])


def is_noticed(found: Array, expected: Array) -> bool:
    return bool(np.abs(found - expected).max() > 10 * DEFAULT_RTOL * np.abs(expected).max())


def changed(weights: dict[str, Array], name: str) -> dict[str, Array]:
    """The weights with one element changed, in a row that the inputs read."""
    array = weights[name].copy()
    row = int(TOKEN_IDS[0, 1]) if name.endswith("word_embeddings.weight") else 0
    row = 2 if name.endswith("position_embeddings.weight") else row  # the first that RoBERTa and MPNet read
    array[row if array.ndim == 1 else (row, 0)] += 0.5
    return {**weights, name: array}


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_change_of_any_weight_of_an_encoder_is_noticed(model_type: str) -> None:
    weights = encoder_weights(model_type)
    expected = outputs(model_type, weights)
    unnoticed = [name for name in weights if not is_noticed(outputs(model_type, changed(weights, name)), expected)]
    assert unnoticed == [name for name in weights if name.endswith(WITHOUT_EFFECT)]


@pytest.mark.parametrize("task", ENDINGS)
@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_change_of_any_weight_of_a_head_is_noticed(model_type: str, task: str) -> None:
    head = head_weights(model_type, task)
    weights = {**encoder_weights(model_type), **head}
    expected = outputs(model_type, weights, task)
    assert all(is_noticed(outputs(model_type, changed(weights, name), task), expected) for name in head)


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "roberta": [{"pad_token_id": 2}],
    "distilbert": [{"activation": "relu"}, {"n_heads": 4}],
}
COMMON_SETTINGS: list[dict[str, Any]] = [
    {"hidden_act": "gelu_new"},
    {"layer_norm_eps": 1e-2},
    {"num_attention_heads": 4},
]


@pytest.mark.parametrize("model_type", CONFIGS)
def test_another_setting_or_length_is_noticed(model_type: str) -> None:
    weights = encoder_weights(model_type)
    expected = outputs(model_type, weights)
    settings = [*SETTINGS.get(model_type, []), *([] if model_type == "distilbert" else COMMON_SETTINGS)]
    if model_type == "albert":
        settings[0] = {"hidden_act": "gelu"}
    if model_type == "mpnet":
        settings.remove({"num_attention_heads": 4})  # its table of relative positions has a column for each head
    for changes in settings:
        assert is_noticed(outputs(model_type, weights, **changes), expected), changes
    assert is_noticed(outputs(model_type, weights, lengths=LENGTHS - [0, 0, 1]), expected)


def test_relative_positions_are_those_of_transformers() -> None:
    """Buckets that transformers 5.24 gives to the distances at which a bucket begins, to keys before and after."""
    found = relative_buckets(200, 32)
    begins = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    assert [int(found[199, 199 - distance]) for distance in begins] == list(range(16))
    assert [int(found[0, distance]) for distance in begins[1:]] == list(range(17, 32))
    assert [int(found[199, 200 - distance]) for distance in begins[1:]] == list(range(15))


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("ernie", {"use_task_id": True}, "ernie: use_task_id is not one that the reference encoder has"),
        (
            "albert",
            {"num_hidden_groups": 2},
            "albert: num_hidden_groups 2 is not one that the reference encoder has: 1",
        ),
        ("albert", {"inner_group_num": 2}, "albert: inner_group_num 2 is not one that the reference encoder has: 1"),
        (
            "mpnet",
            {"relative_attention_num_buckets": 16},
            "16 relative_attention_num_buckets, the reference encoder has",
        ),
    ],
)
def test_settings_that_it_does_not_have_are_refused(model_type: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        outputs(model_type, encoder_weights(model_type), **changes)
