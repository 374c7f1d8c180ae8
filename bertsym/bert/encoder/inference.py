"""The form that is run here for inference on a CPU and never written: its parameters are made of the others'."""

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

_PARTS = ("query", "key", "value")


class InferenceEncoder(FastEncoder):
    """Matrix products as convolutions of one pixel, on (N, U, 1, T): no length is so short that it does not pay.

    MXNet 1.9.1's FullyConnected packs its weight anew in every forward, its Convolution once; and the heads of
    (N, U, T) need no transpose. The last layer needs no keys and values of all tokens where position 0 alone asks:
    ``q (X K)^T = (q K^T) X^T`` and ``w (X V) = (w X) V``.
    """

    def __init__(self, spec: EncoderSpec, form: Form) -> None:
        # Dropout, which does nothing here, copies what it reads.
        config = dataclasses.replace(spec.config, dropout=0.0, attention_dropout=0.0)
        super().__init__(dataclasses.replace(spec, config=config), form)

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """(N, T, U) -> the same, and with `first_only` (N, 1, U)."""
        if first_only:
            return Encoder.layer(self, i, x, None if mask is None else self.additive_mask(), True)
        config, prefix = self.config, f"bertencoder0_transformer{i}_"
        y = self._tokens(self._convolution(self.attention(i, x, mask, x), config.units, f"{prefix}proj"))
        y = mx.sym.elemwise_add(y, x, name=f"{prefix}proj_residual")
        attended = self.layer_norm(y, f"{prefix}layernorm0")

        ffn = f"{prefix}positionwiseffn0_"
        y = self._convolution(_channels(attended, f"{ffn}channels"), config.hidden_size, f"{ffn}ffn_1")
        if self.spec.activation == "gelu":
            y = self.gelu(y, f"{ffn}gelu")
        else:
            y = mx.sym.Activation(y, act_type=self.spec.activation, name=f"{ffn}{self.spec.activation}")
        y = self._tokens(self._convolution(y, config.units, f"{ffn}ffn_2"))
        y = mx.sym.elemwise_add(y, attended, name=f"{ffn}residual")
        return self.layer_norm(y, f"{ffn}layernorm0")

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Of `x` (N, T, U) to itself, (N, U, 1, T), or of `queries` (N, 1, U) to it, the same."""
        if queries is not x:
            return self._first_attention(i, x, mask, queries)
        prefix, config = f"bertencoder0_transformer{i}_", self.config
        channels = _channels(x, f"{prefix}channels")
        query, key, value = (self._heads(channels, f"{prefix}{part}") for part in _PARTS)
        scores = mx.sym.batch_dot(query, key, transpose_a=True, name=f"{prefix}scores")
        scores = self.add_mask(i, scores, mask) if mask is not None else scores
        weights = mx.sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        context = mx.sym.batch_dot(value, weights, transpose_b=True, name=f"{prefix}context")
        context = mx.sym.reshape(context, shape=(-1, config.units, 0), reverse=True, name=f"{prefix}context_joined")
        return mx.sym.expand_dims(context, axis=2, name=f"{prefix}context_pixels")

    def _heads(self, channels: Any, name: str) -> Any:
        """Query, key or value, (N, U, 1, T) -> (N*H, U/H, T)."""
        units = self.config.units
        y = self._convolution(channels, units, name)
        y = mx.sym.reshape(y, shape=(0, 0, -1), name=f"{name}_units")
        return mx.sym.reshape(y, shape=(-1, units // self.config.num_heads, 0), reverse=True, name=f"{name}_heads")

    def _first_attention(self, i: int, x: Any, mask: Any, first: Any) -> Any:
        """Of position 0, (N, 1, U), to `x` (N, T, U); the mask is (N, T)."""
        prefix, heads, units = f"bertencoder0_transformer{i}_", self.config.num_heads, self.config.units
        weight, bias = _variable(f"{prefix}query_first_weight"), _variable(f"{prefix}query_bias")
        query = mx.sym.FullyConnected(first, weight, bias, num_hidden=units, flatten=False, name=f"{prefix}query")
        query = mx.sym.reshape(query, shape=(0, heads, -1), name=f"{prefix}query_split")
        query = mx.sym.transpose(query, axes=(1, 0, 2), name=f"{prefix}query_heads")
        asked = mx.sym.batch_dot(query, _variable(f"{prefix}key_by_head"), name=f"{prefix}query_key")
        asked = mx.sym.transpose(asked, axes=(1, 0, 2), name=f"{prefix}query_key_samples")
        # The key's bias adds the same to all scores of a query, which softmax takes away again.
        scores = mx.sym.batch_dot(asked, x, transpose_b=True, name=f"{prefix}scores")
        if mask is not None:
            mask = mx.sym.expand_dims(mask, axis=1, name="bertencoder0_mask_first")
            scores = mx.sym.broadcast_add(scores, mask, name=f"{prefix}scores_masked")
        weights = mx.sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        read = mx.sym.batch_dot(weights, x, name=f"{prefix}attended")
        read = mx.sym.transpose(read, axes=(1, 0, 2), name=f"{prefix}attended_heads")
        context = mx.sym.batch_dot(read, _variable(f"{prefix}value_by_head"), transpose_b=True, name=f"{prefix}context")
        context = mx.sym.transpose(context, axes=(1, 0, 2), name=f"{prefix}context_samples")
        context = mx.sym.reshape(context, shape=(0, 1, -1), name=f"{prefix}context_joined")
        # The weights' sum is one.
        bias = mx.sym.reshape(_variable(f"{prefix}value_bias"), shape=(1, 1, -1), name=f"{prefix}value_bias_token")
        return mx.sym.broadcast_add(context, bias, name=f"{prefix}context_biased")

    @staticmethod
    def _convolution(x: Any, width: int, name: str) -> Any:
        """A layer on each token, (N, U, 1, T) -> (N, width, 1, T)."""
        weight, bias = _variable(f"{name}_pixel_weight"), _variable(f"{name}_bias")
        return mx.sym.Convolution(x, weight, bias, num_filter=width, kernel=(1, 1), name=name)

    @staticmethod
    def _tokens(x: Any) -> Any:
        """(N, U, 1, T) -> (N, T, U)."""
        y = mx.sym.reshape(x, shape=(0, 0, -1), name=f"{x.name}_units")
        return mx.sym.transpose(y, axes=(0, 2, 1), name=f"{x.name}_tokens")


def inference_parameters(spec: EncoderSpec, params: Mapping[str, Array], wanted: Container[str]) -> dict[str, Array]:
    """The arrays, float32, that an InferenceEncoder reads instead of `params`; of its variables those `wanted`.

    Weights are views of `params` in other shapes, but for the queries', which are scaled.
    """
    config, made = spec.config, {}
    heads, scale = config.num_heads, np.float32(1 / np.sqrt(config.units // config.num_heads))
    for i in range(config.num_layers):
        prefix = f"bertencoder0_transformer{i}_"
        cell = f"{prefix}dotproductselfattentioncell0_"
        biases = [params[spec.name(f"{cell}{part}_bias")] for part in _PARTS]
        if spec.biases_in_turn:
            biases = list(np.concatenate(biases).reshape(heads, 3, -1).swapaxes(0, 1).reshape(3, -1))
        for part, bias in zip(_PARTS, biases):
            weight = params[spec.name(f"{cell}{part}_weight")]
            if part == "query":
                weight, bias = weight * scale, bias * scale
            made[f"{prefix}{part}_pixel_weight"] = weight[:, :, None, None]
            made[f"{prefix}{part}_first_weight"] = weight
            made[f"{prefix}{part}_by_head"] = weight.reshape(heads, -1, weight.shape[1])
            made[f"{prefix}{part}_bias"] = bias
        for name in (f"{prefix}proj", f"{prefix}positionwiseffn0_ffn_1", f"{prefix}positionwiseffn0_ffn_2"):
            made[f"{name}_pixel_weight"] = params[spec.name(f"{name}_weight")][:, :, None, None]
            made[f"{name}_bias"] = params[spec.name(f"{name}_bias")]
    return {_derived(name): array for name, array in made.items() if _derived(name) in wanted}


def _channels(x: Any, node: str) -> Any:
    """(N, T, U) -> (N, U, 1, T)."""
    y = mx.sym.transpose(x, axes=(0, 2, 1), name=f"{node}_units")
    return mx.sym.expand_dims(y, axis=2, name=node)


def _variable(name: str) -> Any:
    return mx.sym.var(_derived(name))


def _derived(name: str) -> str:
    return f"{name}: for inference"  # no parameter of a file is named so
