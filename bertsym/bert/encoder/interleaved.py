"""The form for inference on many tokens."""

from __future__ import annotations

from typing import Any

from bertsym.bert.encoder.inference import InferenceEncoder, variable
from bertsym.runtime import mx


class InterleavedEncoder(InferenceEncoder):
    """Layers on (T, N, U), with one product for query, key and value.

    oneDNN multiplies their heads by strides, so that nothing is transposed.
    """

    def build(self, first_only: bool = False) -> list[Any]:
        """As all forms, (N, T, U) behind the layers that run on (T, N, U)."""
        *outputs, last = super().build(first_only)
        outputs = [_exchanged(x, f"batch_major{i}") for i, x in enumerate(outputs)]
        return [*outputs, last if first_only else _exchanged(last, f"batch_major{len(outputs)}")]

    def embeddings(self) -> Any:
        """(T, N, U)."""
        return _exchanged(super().embeddings(), "embed_time_major")

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """(T, N, U) -> the same, and with `first_only` (N, 1, U)."""
        return super().layer(i, _exchanged(x, "last_batch_major") if first_only else x, mask, first_only)

    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Of `x` (T, N, U) to itself, or of `queries` (N, 1, U) to `x` (N, T, U); in the axes of `queries`."""
        if queries is not x:
            return self.first_attention(i, x, mask, queries)
        prefix, config = f"bertencoder0_transformer{i}_", self.config
        name = f"{prefix}query_key_value"
        weight, bias = variable(f"{name}_weight"), variable(f"{name}_bias")
        both = mx.sym.FullyConnected(x, weight, bias, num_hidden=3 * config.units, flatten=False, name=name)
        scores = mx.sym.contrib.interleaved_matmul_selfatt_qk(both, heads=config.num_heads, name=f"{prefix}scores")
        scores = self.add_mask(i, scores, mask) if mask is not None else scores
        weights = mx.sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        return mx.sym.contrib.interleaved_matmul_selfatt_valatt(
            both, weights, heads=config.num_heads, name=f"{prefix}context"
        )


def _exchanged(x: Any, node: str) -> Any:
    return mx.sym.transpose(x, axes=(1, 0, 2), name=f"bertencoder0_{node}")
