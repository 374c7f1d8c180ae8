"""The portable form: operators and attributes of MXNet 1.5, or of 1.4 with gelu by erf."""

from __future__ import annotations

import math
from typing import Any

from bertsym.encoders.graph.base import Encoder
from bertsym.symbol.recorder import sym


class PortableEncoder(Encoder):
    """Attention by batch_dot on (N*H, T, U/H), with a mask of the padding that is added to the scores."""

    def positions(self, tokens: Any) -> Any:
        """(1, T, U) with T from the tokens: the graph has no fixed length."""
        table = sym.expand_dims(self.position_table(), axis=0, name="bertencoder0_position_table")
        return sym.slice_like(table, tokens, axes=(1,), name="bertencoder0_position_embed")

    def mask(self) -> Any:
        """(N, 1, 1, T), with relative positions (N, H, T, T)."""
        return self.score_mask()

    def add_mask(self, i: int, scores: Any, mask: Any) -> Any:
        """Mask the scores, (N*H, T, T), in the shape that `attention` gives to softmax."""
        prefix = f"bertencoder0_transformer{i}_"
        scores = self.per_sample(scores, f"{prefix}scores_heads")
        return sym.broadcast_add(scores, mask, name=f"{prefix}scores_masked")

    def per_sample(self, y: Any, node: str) -> Any:
        """(N*H, a, b) -> (N, H, a, b)."""
        return sym.reshape(y, shape=(-1, self.config.num_heads, 0, 0), reverse=True, name=node)

    def split_heads(self, i: int, part: str, x: Any) -> Any:
        """Query, key or value of layer i, (N, T, U) -> (N*H, T, U/H)."""
        node = f"bertencoder0_transformer{i}_{part}"
        y = self.query(i, x) if part == "query" else self.projection(i, part, x)
        y = sym.reshape(y, shape=(0, 0, self.config.num_heads, -1), name=f"{node}_split")
        y = sym.transpose(y, axes=(0, 2, 1, 3), name=f"{node}_heads")
        return sym.reshape(y, shape=(-1, 0, 0), reverse=True, name=f"{node}_batched")

    def projection(self, i: int, part: str, x: Any) -> Any:
        """Query, key or value of layer i for all heads, (N, T, U)."""
        weight, bias = self.parameters(i, part)
        node = f"bertencoder0_transformer{i}_{part}"
        return sym.FullyConnected(x, weight, bias, num_hidden=self.config.units, flatten=False, name=node)

    def query(self, i: int, x: Any) -> Any:
        """The queries of layer i, scaled, (N, T, U)."""
        scale = 1 / math.sqrt(self.config.units // self.config.num_heads)
        node = f"bertencoder0_transformer{i}_query_scaled"
        return sym._internal._mul_scalar(self.projection(i, "query", x), scalar=scale, name=node)

    def parameters(self, i: int, part: str) -> tuple[Any, Any]:
        """Weight (U, U) and bias (U,) of query, key or value of layer i."""
        name = f"bertencoder0_transformer{i}_dotproductselfattentioncell0_{part}"
        bias = self.concatenated_bias(i, part) if self.spec.concatenated_biases else self.variables[f"{name}_bias"]
        return self.variables[f"{name}_weight"], bias

    def concatenated_bias(self, i: int, part: str) -> Any:
        """The bias (U,) that GluonNLP 0.9 added to query, key or value: concatenated as q, k, v, read head by head."""
        prefix, parts = f"bertencoder0_transformer{i}_", ("query", "key", "value")
        cell = f"{prefix}dotproductselfattentioncell0_"
        place = parts.index(part)
        concatenated = sym.concat(
            *(self.variables[f"{cell}{name}_bias"] for name in parts), dim=0, name=f"{prefix}{part}_biases"
        )
        by_head = sym.reshape(concatenated, shape=(self.config.num_heads, 3, -1), name=f"{prefix}{part}_biases_heads")
        own = sym.slice_axis(by_head, axis=1, begin=place, end=place + 1, name=f"{prefix}{part}_bias_heads")
        return sym.reshape(own, shape=(-1,), name=f"{prefix}{part}_bias")

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Attention, (N, T, U), or (N, 1, U) for such `queries`."""
        prefix = f"bertencoder0_transformer{i}_"
        query = self.split_heads(i, "query", queries)
        key, value = (self.split_heads(i, part, x) for part in ("key", "value"))
        scores = sym.batch_dot(query, key, transpose_b=True, name=f"{prefix}scores")
        scores = self.add_mask(i, scores, mask) if mask is not None else scores
        weights = sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        weights = self.dropout(weights, self.config.attention_dropout, f"{prefix}attention_dropout")
        weights = sym.reshape(weights, shape=(-1, 0, 0), reverse=True, name=f"{prefix}attention_batched")
        context = self.per_sample(sym.batch_dot(weights, value, name=f"{prefix}context"), f"{prefix}context_heads")
        context = sym.transpose(context, axes=(0, 2, 1, 3), name=f"{prefix}context_tokens")
        return sym.reshape(context, shape=(0, 0, -1), name=f"{prefix}context_joined")
