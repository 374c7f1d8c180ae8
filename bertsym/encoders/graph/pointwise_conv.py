"""The form for inference on a few tokens: pointwise convolutions."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.graph.inference_form import InferenceEncoder
from bertsym.symbol.recorder import sym


class PixelsEncoder(InferenceEncoder):
    """Matrix products as 1x1 convolutions on (1, U, T, N), between LayerNorms on (1, T, N, U).

    MXNet 1.9.1's FullyConnected repacks its weight in every forward. Its Convolution packs the weight once, which takes
    longer but pays off for many forwards of few tokens, and it adds the residual. oneDNN multiplies the heads of query,
    key, value by strides.
    """

    def build(self, first_only: bool = False) -> list[Any]:
        """Build the outputs, (N, T, U) as in all forms."""
        *outputs, last = super().build(first_only)
        outputs = [_batch_major(x, f"batch_major{i}") for i, x in enumerate(outputs)]
        return [*outputs, last if first_only else _batch_major(last, f"batch_major{len(outputs)}")]

    def embeddings(self) -> Any:
        """(1, T, N, U)."""
        embedded = sym.transpose(super().embeddings(), axes=(1, 0, 2), name="bertencoder0_embed_time_major")
        return sym.expand_dims(embedded, axis=0, name="bertencoder0_embed_rows")

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """(1, T, N, U) -> (1, T, N, U), or (N, 1, U) with `first_only`."""
        if first_only:
            return _batch_major(super().layer(i, x, mask, True), "first")
        config, prefix = self.config, f"bertencoder0_transformer{i}_"
        pixels = _pixels(x, f"{prefix}pixels")
        y = self._convolution(self.attention(i, pixels, mask, pixels), config.units, f"{prefix}proj")
        y = sym.elemwise_add(y, pixels, name=f"{prefix}proj_residual")
        attended = self.layer_norm(_rows(y, f"{prefix}proj_rows"), f"{prefix}layernorm0")

        ffn = f"{prefix}positionwiseffn0_"
        pixels = _pixels(attended, f"{ffn}pixels")
        y = self._convolution(pixels, config.hidden_size, f"{ffn}ffn_1")
        y = self.activation(y, ffn)
        y = self._convolution(y, config.units, f"{ffn}ffn_2")
        y = sym.elemwise_add(y, pixels, name=f"{ffn}residual")
        return self.layer_norm(_rows(y, f"{ffn}rows"), f"{ffn}layernorm0")

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Attention of `x` (1, U, T, N) to itself, or of `queries` (1, 1, N, U) to `x` (1, T, N, U).

        The result has the layout of `queries`.
        """
        prefix, heads, units = f"bertencoder0_transformer{i}_", self.config.num_heads, self.config.units
        ops = sym.contrib
        if queries is x:
            both = self._heads(x, 3 * units, f"{prefix}query_key_value")
            scores = ops.interleaved_matmul_selfatt_qk(both, heads=heads, name=f"{prefix}scores")
        else:
            query = sym.squeeze(self.projection(i, "query", queries), axis=0, name=f"{prefix}query_tokens")
            both = self._heads(_pixels(x, f"{prefix}pixels"), 2 * units, f"{prefix}key_value")
            scores = ops.interleaved_matmul_encdec_qk(query, both, heads=heads, name=f"{prefix}scores")
        scores = self.add_mask(i, scores, mask) if mask is not None else scores
        weights = sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        read = ops.interleaved_matmul_selfatt_valatt if queries is x else ops.interleaved_matmul_encdec_valatt
        context = read(both, weights, heads=heads, name=f"{prefix}context")
        context = sym.expand_dims(context, axis=0, name=f"{prefix}context_rows")
        return _pixels(context, f"{prefix}context_pixels") if queries is x else context

    def _heads(self, pixels: Any, width: int, name: str) -> Any:
        """Project each token, interleaved head by head, (1, U, T, N) -> (T, N, width)."""
        rows = _rows(self._convolution(pixels, width, name), f"{name}_rows")
        return sym.squeeze(rows, axis=0, name=f"{name}_tokens")

    def _convolution(self, x: Any, width: int, name: str) -> Any:
        """Apply a dense layer to each token, (1, U, T, N) -> (1, width, T, N)."""
        weight, bias = self.computed(f"{name}_pixel_weight"), self.computed(f"{name}_bias")
        return sym.Convolution(x, weight, bias, num_filter=width, kernel=(1, 1), name=name)


def _pixels(x: Any, node: str) -> Any:
    """(1, T, N, U) -> (1, U, T, N)."""
    return sym.transpose(x, axes=(0, 3, 1, 2), name=node)


def _rows(x: Any, node: str) -> Any:
    """(1, U, T, N) -> (1, T, N, U)."""
    return sym.transpose(x, axes=(0, 2, 3, 1), name=node)


def _batch_major(x: Any, node: str) -> Any:
    """(1, T, N, U) -> (N, T, U)."""
    x = sym.squeeze(x, axis=0, name=f"bertencoder0_{node}_tokens")
    return sym.transpose(x, axes=(1, 0, 2), name=f"bertencoder0_{node}")
