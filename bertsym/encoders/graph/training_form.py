"""The form for training on this CPU, never written: the fast form with less work in a last layer of one query."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.graph.fast import FastEncoder
from bertsym.symbol.recorder import sym


class TrainingEncoder(FastEncoder):
    """A last layer for position 0 alone needs no keys and values of all tokens.

    With one query for each sample and head, ``q (X K)^T = (q K^T) X^T`` and ``w (X V) = (w X) V`` need products
    of (N, H, U) instead of (N, T, U).
    """

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Attention as in the fast form, except for `queries` (N, 1, U) that are not `x` (N, T, U)."""
        if queries is x:
            return super().attention(i, x, mask, queries)
        prefix, heads = f"bertencoder0_transformer{i}_", self.config.num_heads
        query = sym.reshape(self.query(i, queries), shape=(0, heads, -1), name=f"{prefix}query_split")
        key_weight, key_bias = self._by_head(i, "key")
        asked = sym.transpose(query, axes=(1, 0, 2), name=f"{prefix}query_heads")
        asked = sym.batch_dot(asked, key_weight, name=f"{prefix}query_key")
        asked = sym.transpose(asked, axes=(1, 0, 2), name=f"{prefix}query_key_samples")
        scores = sym.batch_dot(asked, x, transpose_b=True, name=f"{prefix}scores")
        offset = sym.broadcast_mul(query, key_bias, name=f"{prefix}query_key_bias")
        offset = sym.sum(offset, axis=2, keepdims=True, name=f"{prefix}scores_bias")
        scores = sym.broadcast_add(scores, offset, name=f"{prefix}scores_biased")
        if mask is not None:
            # (N*H, 1, T)
            mask = sym.reshape(mask, shape=(-1, heads, 0), reverse=True, name=f"{prefix}mask_heads")
            scores = sym.elemwise_add(scores, mask, name=f"{prefix}scores_masked")
        weights = sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        weights = self.dropout(weights, self.config.attention_dropout, f"{prefix}attention_dropout")

        value_weight, value_bias = self._by_head(i, "value")
        read = sym.batch_dot(weights, x, name=f"{prefix}attended")
        read = sym.transpose(read, axes=(1, 0, 2), name=f"{prefix}attended_heads")
        context = sym.batch_dot(read, value_weight, transpose_b=True, name=f"{prefix}context")
        context = sym.transpose(context, axes=(1, 0, 2), name=f"{prefix}context_samples")
        # After dropout, the attention weights do not sum to one.
        total = sym.sum(weights, axis=2, keepdims=True, name=f"{prefix}attention_total")
        offset = sym.broadcast_mul(total, value_bias, name=f"{prefix}context_bias")
        context = sym.elemwise_add(context, offset, name=f"{prefix}context_biased")
        return sym.reshape(context, shape=(0, 1, -1), name=f"{prefix}context_joined")

    def _by_head(self, i: int, part: str) -> tuple[Any, Any]:
        """Weight (H, U/H, U) and bias (1, H, U/H) of key or value of layer i."""
        heads, node = self.config.num_heads, f"bertencoder0_transformer{i}_{part}"
        weight, bias = self.parameters(i, part)
        return (
            sym.reshape(weight, shape=(heads, -1, 0), reverse=True, name=f"{node}_weight_heads"),
            sym.reshape(bias, shape=(1, heads, -1), name=f"{node}_bias_heads"),
        )
