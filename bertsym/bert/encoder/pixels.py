"""The form for inference on a few tokens."""

from __future__ import annotations

from typing import Any

from bertsym.bert.encoder.inference import PARTS, InferenceEncoder, variable
from bertsym.runtime import mx


class PixelsEncoder(InferenceEncoder):
    """Matrix products as convolutions of one pixel, on (N, U, 1, T), between LayerNorms on (N, 1, T, U).

    MXNet 1.9.1's FullyConnected packs its weight anew in every forward, its Convolution once, which takes longer: it
    pays where a few tokens are computed again and again. The heads need no transpose, and oneDNN adds the residual
    within a convolution.
    """

    def build(self, first_only: bool = False) -> list[Any]:
        """As all forms, (N, T, U)."""
        *outputs, last = super().build(first_only)
        outputs = [_tokens(x, f"tokens{i}") for i, x in enumerate(outputs)]
        return [*outputs, last if first_only else _tokens(last, f"tokens{len(outputs)}")]

    def embeddings(self) -> Any:
        """(N, 1, T, U)."""
        return mx.sym.expand_dims(super().embeddings(), axis=1, name="bertencoder0_embed_row")

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """(N, 1, T, U) -> the same, and with `first_only` (N, 1, U)."""
        if first_only:
            return super().layer(i, _tokens(x, "last_tokens"), mask, True)
        config, prefix = self.config, f"bertencoder0_transformer{i}_"
        pixels = _pixels(x, f"{prefix}pixels")
        y = self._convolution(self.attention(i, pixels, mask, pixels), config.units, f"{prefix}proj")
        y = mx.sym.elemwise_add(y, pixels, name=f"{prefix}proj_residual")
        attended = self.layer_norm(_rows(y, f"{prefix}proj_rows"), f"{prefix}layernorm0")

        ffn = f"{prefix}positionwiseffn0_"
        pixels = _pixels(attended, f"{ffn}pixels")
        y = self._convolution(pixels, config.hidden_size, f"{ffn}ffn_1")
        if self.spec.activation == "gelu":
            y = self.gelu(y, f"{ffn}gelu")
        else:
            y = mx.sym.Activation(y, act_type=self.spec.activation, name=f"{ffn}{self.spec.activation}")
        y = self._convolution(y, config.units, f"{ffn}ffn_2")
        y = mx.sym.elemwise_add(y, pixels, name=f"{ffn}residual")
        return self.layer_norm(_rows(y, f"{ffn}rows"), f"{ffn}layernorm0")

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Of `x` (N, U, 1, T) to itself, or of `queries` (N, 1, U) to `x` (N, T, U); in the axes of `queries`."""
        if queries is not x:
            return self.first_attention(i, x, mask, queries)
        prefix, units = f"bertencoder0_transformer{i}_", self.config.units
        query, key, value = (self._heads(x, f"{prefix}{part}") for part in PARTS)
        scores = mx.sym.batch_dot(query, key, transpose_a=True, name=f"{prefix}scores")
        scores = self.add_mask(i, scores, mask) if mask is not None else scores
        weights = mx.sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        context = mx.sym.batch_dot(value, weights, transpose_b=True, name=f"{prefix}context")
        return mx.sym.reshape(context, shape=(-1, units, 1, 0), reverse=True, name=f"{prefix}context_joined")

    def _heads(self, pixels: Any, name: str) -> Any:
        """Query, key or value, (N, U, 1, T) -> (N*H, U/H, T)."""
        units = self.config.units
        y = self._convolution(pixels, units, name)
        return mx.sym.reshape(y, shape=(-1, units // self.config.num_heads, 0), reverse=True, name=f"{name}_heads")

    @staticmethod
    def _convolution(x: Any, width: int, name: str) -> Any:
        """A layer on each token, (N, U, 1, T) -> (N, width, 1, T)."""
        weight, bias = variable(f"{name}_pixel_weight"), variable(f"{name}_bias")
        return mx.sym.Convolution(x, weight, bias, num_filter=width, kernel=(1, 1), name=name)


def _pixels(x: Any, node: str) -> Any:
    """(N, 1, T, U) -> (N, U, 1, T)."""
    return mx.sym.transpose(x, axes=(0, 3, 1, 2), name=node)


def _rows(x: Any, node: str) -> Any:
    """(N, U, 1, T) -> (N, 1, T, U)."""
    return mx.sym.transpose(x, axes=(0, 2, 3, 1), name=node)


def _tokens(x: Any, node: str) -> Any:
    """(N, 1, T, U) -> (N, T, U)."""
    return mx.sym.reshape(x, shape=(0, -3, 0), name=f"bertencoder0_{node}")
