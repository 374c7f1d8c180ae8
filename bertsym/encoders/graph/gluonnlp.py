"""GluonNLP 0.10's form: interleaved attention, arange_like and softmax's use_length, which MXNet 1.6 added."""

from __future__ import annotations

from typing import Any

from bertsym.encoders.folding import PARTS
from bertsym.encoders.graph.base import Encoder
from bertsym.symbol.recorder import sym


class GluonNLPEncoder(Encoder):
    """Layers on (T, N, U); the graph interleaves the weights of query, key and value head by head.

    Source: BERTEncoder and DotProductSelfAttentionCell of GluonNLP 0.10.
    """

    time_major = True

    def tokens(self) -> Any:
        """(T, N, U)."""
        return sym.transpose(super().tokens(), axes=(1, 0, 2), name="bertmodel0_embed_time_major")

    def positions(self, tokens: Any) -> Any:
        """(T, 1, U)."""
        config = self.config
        steps = sym.contrib.arange_like(tokens, axis=0, name="bertencoder0_arange")
        rows = sym.Embedding(
            steps,
            self.position_table(),
            input_dim=config.max_length,
            output_dim=config.embedding_width,
            name="bertencoder0_position_rows",
        )
        return sym.expand_dims(rows, axis=1, name="bertencoder0_position_embed")

    def mask(self) -> Any:
        """The valid length of every row of scores, int32 (N*H, T); with relative positions (N*H, T, T), to be added."""
        if self.config.relative_buckets:
            return self.pairwise_mask()
        lengths = sym.reshape(self.valid_length, shape=(-1, 1), name="bertencoder0_mask_lengths")
        lengths = sym.broadcast_add(lengths, self.zeros("bertencoder0_mask"), name="bertencoder0_mask_queries")
        lengths = sym.Cast(lengths, dtype="int32", name="bertencoder0_mask_integers")
        lengths = sym.expand_dims(lengths, axis=1, name="bertencoder0_mask_heads")
        lengths = sym.broadcast_axis(lengths, axis=1, size=self.config.num_heads, name="bertencoder0_mask_spread")
        return sym.reshape(lengths, shape=(-1, 0), reverse=True, name="bertencoder0_mask")

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Self-attention of all positions: `queries` equals `x`."""
        config, prefix = self.config, f"bertencoder0_transformer{i}_"
        both = sym.FullyConnected(
            x, *self._interleaved(i), num_hidden=3 * config.units, flatten=False, name=f"{prefix}query_key_value"
        )
        scores = sym.contrib.interleaved_matmul_selfatt_qk(both, heads=config.num_heads, name=f"{prefix}scores")
        if config.relative_buckets:
            scores = sym.elemwise_add(scores, mask, name=f"{prefix}scores_masked")
            weights = sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        elif mask is not None:
            weights = sym.softmax(scores, mask, use_length=True, axis=-1, name=f"{prefix}attention")
        else:
            weights = sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        weights = self.dropout(weights, config.attention_dropout, f"{prefix}attention_dropout")
        return sym.contrib.interleaved_matmul_selfatt_valatt(
            both, weights, heads=config.num_heads, name=f"{prefix}context"
        )

    def _interleaved(self, i: int) -> tuple[Any, Any]:
        """Weight (3U, U) and bias (3U,): for each head the rows of query, key and value."""
        heads, prefix = self.config.num_heads, f"bertencoder0_transformer{i}_"
        cell = f"{prefix}dotproductselfattentioncell0_"

        def by_head(part: str, kind: str, shape: tuple[int, ...]) -> Any:
            variable = self.variables[f"{cell}{part}_{kind}"]
            return sym.reshape(variable, shape=shape, reverse=True, name=f"{prefix}{part}_{kind}_heads")

        weights = [by_head(part, "weight", (heads, -1, 0)) for part in PARTS]
        weight = sym.concat(*weights, dim=-2, name=f"{prefix}weights")
        weight = sym.reshape(weight, shape=(-1, 0), reverse=True, name=f"{prefix}weights_joined")
        if self.spec.concatenated_biases:
            biases = [self.variables[f"{cell}{part}_bias"] for part in PARTS]
            return weight, sym.concat(*biases, dim=0, name=f"{prefix}biases_joined")
        bias = sym.stack(*(by_head(part, "bias", (heads, -1)) for part in PARTS), axis=1, name=f"{prefix}biases")
        return weight, sym.reshape(bias, shape=(-1,), name=f"{prefix}biases_joined")
