"""Forms that are run here for inference on a CPU and never written: their parameters are made of the others'."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from bertsym.bert.encoder.base import Encoder
from bertsym.bert.encoder.fast import FastEncoder
from bertsym.bert.encoder_spec import EncoderSpec
from bertsym.bert.forms import Form
from bertsym.runtime import mx

Array = np.ndarray[Any, np.dtype[Any]]

PARTS = ("query", "key", "value")


class InferenceEncoder(FastEncoder):
    """What the forms for inference share: no dropout, and a last layer for position 0 alone.

    It needs no keys and values of all tokens: ``q (X K)^T = (q K^T) X^T`` and ``w (X V) = (w X) V``.
    """

    def __init__(self, spec: EncoderSpec, form: Form) -> None:
        # Dropout, which does nothing here, copies what it reads.
        config = dataclasses.replace(spec.config, dropout=0.0, attention_dropout=0.0)
        super().__init__(dataclasses.replace(spec, config=config), form)

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """(N, T, U) -> the same, and with `first_only` (N, 1, U)."""
        if first_only:
            return Encoder.layer(self, i, x, None if mask is None else self.additive_mask(), True)
        return Encoder.layer(self, i, x, mask, False)

    def first_attention(self, i: int, x: Any, mask: Any, first: Any) -> Any:
        """Of position 0, (N, 1, U), to `x` (N, T, U); the mask is (N, T)."""
        prefix, heads, units = f"bertencoder0_transformer{i}_", self.config.num_heads, self.config.units
        weight, bias = variable(f"{prefix}query_first_weight"), variable(f"{prefix}query_bias")
        query = mx.sym.FullyConnected(first, weight, bias, num_hidden=units, flatten=False, name=f"{prefix}query")
        query = mx.sym.reshape(query, shape=(0, heads, -1), name=f"{prefix}query_split")
        query = mx.sym.transpose(query, axes=(1, 0, 2), name=f"{prefix}query_heads")
        asked = mx.sym.batch_dot(query, variable(f"{prefix}key_by_head"), name=f"{prefix}query_key")
        asked = mx.sym.transpose(asked, axes=(1, 0, 2), name=f"{prefix}query_key_samples")
        # The key's bias adds the same to all scores of a query, which softmax takes away again.
        scores = mx.sym.batch_dot(asked, x, transpose_b=True, name=f"{prefix}scores")
        if mask is not None:
            mask = mx.sym.expand_dims(mask, axis=1, name="bertencoder0_mask_first")
            scores = mx.sym.broadcast_add(scores, mask, name=f"{prefix}scores_masked")
        weights = mx.sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        read = mx.sym.batch_dot(weights, x, name=f"{prefix}attended")
        read = mx.sym.transpose(read, axes=(1, 0, 2), name=f"{prefix}attended_heads")
        context = mx.sym.batch_dot(read, variable(f"{prefix}value_by_head"), transpose_b=True, name=f"{prefix}context")
        context = mx.sym.transpose(context, axes=(1, 0, 2), name=f"{prefix}context_samples")
        context = mx.sym.reshape(context, shape=(0, 1, -1), name=f"{prefix}context_joined")
        # The weights' sum is one.
        bias = mx.sym.reshape(variable(f"{prefix}value_bias"), shape=(1, 1, -1), name=f"{prefix}value_bias_token")
        return mx.sym.broadcast_add(context, bias, name=f"{prefix}context_biased")


def inference_parameters(spec: EncoderSpec, params: Mapping[str, Array], wanted: Container[str]) -> dict[str, Array]:
    """The arrays, float32, that a form for inference reads instead of `params`; of its variables those `wanted`.

    Weights are views of `params` in other shapes, but for those that are joined or scaled.
    """
    config, wanted_arrays = spec.config, {}
    heads, scale = config.num_heads, np.float32(1 / np.sqrt(config.units // config.num_heads))
    for i in range(config.num_layers):
        prefix = f"bertencoder0_transformer{i}_"
        cell = f"{prefix}dotproductselfattentioncell0_"
        made = {}
        biases = [params[spec.name(f"{cell}{part}_bias")] for part in PARTS]
        if spec.biases_in_turn:
            biases = list(np.concatenate(biases).reshape(heads, 3, -1).swapaxes(0, 1).reshape(3, -1))
        for part, bias in zip(PARTS, biases):
            weight = params[spec.name(f"{cell}{part}_weight")]
            if part == "query":
                weight, bias = weight * scale, bias * scale
            made[f"{prefix}{part}_pixel_weight"] = weight[:, :, None, None]
            made[f"{prefix}{part}_first_weight"] = weight
            made[f"{prefix}{part}_by_head"] = weight.reshape(heads, -1, weight.shape[1])
            made[f"{prefix}{part}_bias"] = bias
        # Interleaved head by head; MXNet scales the product itself.
        weights = [params[spec.name(f"{cell}{part}_weight")].reshape(heads, -1, config.units) for part in PARTS]
        made[f"{prefix}query_key_value_weight"] = np.stack(weights, 1).reshape(-1, config.units)
        made[f"{prefix}query_key_value_bias"] = np.stack([bias.reshape(heads, -1) for bias in biases], 1).reshape(-1)
        for name in (f"{prefix}proj", f"{prefix}positionwiseffn0_ffn_1", f"{prefix}positionwiseffn0_ffn_2"):
            made[f"{name}_pixel_weight"] = params[spec.name(f"{name}_weight")][:, :, None, None]
            made[f"{name}_bias"] = params[spec.name(f"{name}_bias")]
        wanted_arrays.update({_derived(name): array for name, array in made.items() if _derived(name) in wanted})
    return wanted_arrays


def variable(name: str) -> Any:
    """A parameter that `inference_parameters` makes."""
    return mx.sym.var(_derived(name))


def _derived(name: str) -> str:
    return f"{name}: for inference"  # no parameter of a file is named so
