"""The form for inference on a few tokens."""

from __future__ import annotations

from typing import Any

from bertsym.bert.encoder.inference import PARTS, InferenceEncoder, variable
from bertsym.runtime import mx


class PixelsEncoder(InferenceEncoder):
    """Matrix products as convolutions of one pixel, on (N, U, 1, T).

    MXNet 1.9.1's FullyConnected packs its weight anew in every forward, its Convolution once, which takes longer: it
    pays where a few tokens are computed again and again. The heads of (N, U, T) need no transpose.
    """

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """(N, T, U) -> the same, and with `first_only` (N, 1, U)."""
        if first_only:
            return super().layer(i, x, mask, True)
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
            return self.first_attention(i, x, mask, queries)
        prefix, config = f"bertencoder0_transformer{i}_", self.config
        channels = _channels(x, f"{prefix}channels")
        query, key, value = (self._heads(channels, f"{prefix}{part}") for part in PARTS)
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

    @staticmethod
    def _convolution(x: Any, width: int, name: str) -> Any:
        """A layer on each token, (N, U, 1, T) -> (N, width, 1, T)."""
        weight, bias = variable(f"{name}_pixel_weight"), variable(f"{name}_bias")
        return mx.sym.Convolution(x, weight, bias, num_filter=width, kernel=(1, 1), name=name)

    @staticmethod
    def _tokens(x: Any) -> Any:
        """(N, U, 1, T) -> (N, T, U)."""
        y = mx.sym.reshape(x, shape=(0, 0, -1), name=f"{x.name}_units")
        return mx.sym.transpose(y, axes=(0, 2, 1), name=f"{x.name}_tokens")


def _channels(x: Any, node: str) -> Any:
    """(N, T, U) -> (N, U, 1, T)."""
    y = mx.sym.transpose(x, axes=(0, 2, 1), name=f"{node}_units")
    return mx.sym.expand_dims(y, axis=2, name=node)
