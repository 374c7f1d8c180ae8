"""The form for inference on many tokens: interleaved query, key and value."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.graph.base import Encoder
from bertsym.encoders.graph.inference_form import InferenceEncoder
from bertsym.symbol.recorder import sym


class InterleavedEncoder(InferenceEncoder):
    """Layers on (T, N, U), with one product for query, key and value.

    oneDNN multiplies the heads by strides, so nothing is transposed. A last layer for position 0 alone needs no
    keys and values of all tokens: ``q (X K)^T = (q K^T) X^T`` and ``w (X V) = (w X) V``.
    """

    def build(self, first_only: bool = False) -> list[Any]:
        """Build the outputs, (N, T, U) as in all forms, although the layers run on (T, N, U)."""
        *outputs, last = super().build(first_only)
        outputs = [_exchanged(x, f"batch_major{i}") for i, x in enumerate(outputs)]
        return [*outputs, last if first_only else _exchanged(last, f"batch_major{len(outputs)}")]

    def embeddings(self) -> Any:
        """(T, N, U)."""
        return _exchanged(super().embeddings(), "embed_time_major")

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """(T, N, U) -> (T, N, U), or (N, 1, U) with `first_only`."""
        if first_only:
            return Encoder.layer(self, i, _exchanged(x, "last_batch_major"), self._first_mask(mask), True)
        return Encoder.layer(self, i, x, mask, False)

    def _first_mask(self, mask: Any) -> Any:
        """The mask of position 0, (N, 1, T), or with relative positions (N, H, T)."""
        if mask is None:
            return None
        if not self.config.relative_buckets:
            return sym.expand_dims(self.additive_mask(), axis=1, name="bertencoder0_mask_first")
        mask = sym.slice_axis(mask, axis=1, begin=0, end=1, name="bertencoder0_mask_first_row")
        return sym.reshape(mask, shape=(-1, self.config.num_heads, 0), reverse=True, name="bertencoder0_mask_first")

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Attention of `x` (T, N, U) to itself, or of `queries` (N, 1, U) to `x` (N, T, U).

        The result has the layout of `queries`.
        """
        if queries is not x:
            return self._first_attention(i, x, mask, queries)
        prefix, config = f"bertencoder0_transformer{i}_", self.config
        name = f"{prefix}query_key_value"
        weight, bias = self.computed(f"{name}_weight"), self.computed(f"{name}_bias")
        both = sym.FullyConnected(x, weight, bias, num_hidden=3 * config.units, flatten=False, name=name)
        scores = sym.contrib.interleaved_matmul_selfatt_qk(both, heads=config.num_heads, name=f"{prefix}scores")
        scores = self.add_mask(i, scores, mask) if mask is not None else scores
        weights = sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        return sym.contrib.interleaved_matmul_selfatt_valatt(
            both, weights, heads=config.num_heads, name=f"{prefix}context"
        )

    def _first_attention(self, i: int, x: Any, mask: Any, first: Any) -> Any:
        """Attention of position 0, (N, 1, U), to `x` (N, T, U); the mask is that of `_first_mask`."""
        prefix, heads = f"bertencoder0_transformer{i}_", self.config.num_heads
        query = sym.reshape(self.projection(i, "query", first), shape=(0, heads, -1), name=f"{prefix}query_split")
        query = sym.transpose(query, axes=(1, 0, 2), name=f"{prefix}query_heads")
        asked = sym.batch_dot(query, self.computed(f"{prefix}key_by_head"), name=f"{prefix}query_key")
        asked = sym.transpose(asked, axes=(1, 0, 2), name=f"{prefix}query_key_samples")
        # The key's bias adds the same number to all scores of a query; softmax cancels it.
        scores = sym.batch_dot(asked, x, transpose_b=True, name=f"{prefix}scores")
        if mask is not None:
            scores = sym.broadcast_add(scores, mask, name=f"{prefix}scores_masked")
        weights = sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        read = sym.batch_dot(weights, x, name=f"{prefix}attended")
        read = sym.transpose(read, axes=(1, 0, 2), name=f"{prefix}attended_heads")
        values = self.computed(f"{prefix}value_by_head")
        context = sym.batch_dot(read, values, transpose_b=True, name=f"{prefix}context")
        context = sym.transpose(context, axes=(1, 0, 2), name=f"{prefix}context_samples")
        context = sym.reshape(context, shape=(0, 1, -1), name=f"{prefix}context_joined")
        # The attention weights sum to one.
        bias = sym.reshape(self.parameters(i, "value")[1], shape=(1, 1, -1), name=f"{prefix}value_bias_token")
        return sym.broadcast_add(context, bias, name=f"{prefix}context_biased")


def _exchanged(x: Any, node: str) -> Any:
    return sym.transpose(x, axes=(1, 0, 2), name=f"bertencoder0_{node}")
