"""The encoder graph in the portable form: operators and attributes of MXNet 1.5, any length.

The inputs are those of ``bert.inputs``. N is the batch size, T the length, U the units, H the heads; T may
be anything up to config.max_length. Every node has an explicit name, so that the same config gives the same
JSON in every process.
"""

from __future__ import annotations

import math
from typing import Any

from bertsym.bert.config import BertConfig
from bertsym.bert.inputs import INPUT_NAMES
from bertsym.bert.parameters import parameter_shapes
from bertsym.runtime import mx

_MASKED_SCORE = -1e9  # exp() of it is 0 in float32, and it stays finite


class _Encoder:
    """One graph under construction: the config and a variable for each parameter."""

    def __init__(self, config: BertConfig) -> None:
        self.config = config
        # Explicit shapes: the position table's cannot be inferred from its use in slice_like.
        self.variables = {name: mx.sym.var(name, shape=shape) for name, shape in parameter_shapes(config).items()}

    def dense(self, x: Any, units: int, name: str, node: str) -> Any:
        return mx.sym.FullyConnected(
            x,
            self.variables[f"{name}_weight"],
            self.variables[f"{name}_bias"],
            num_hidden=units,
            flatten=False,
            name=node,
        )

    def layer_norm(self, x: Any, name: str) -> Any:
        return mx.sym.LayerNorm(
            x,
            self.variables[f"{name}_gamma"],
            self.variables[f"{name}_beta"],
            eps=self.config.layer_norm_eps,
            name=f"{name}_fwd",
        )

    def embeddings(self, token_ids: Any, token_types: Any) -> Any:
        """Sum of word, token type and position embeddings, normalised: (N, T, U)."""
        config = self.config
        words = mx.sym.Embedding(
            token_ids,
            self.variables["bertmodel0_word_embed_embedding0_weight"],
            input_dim=config.vocab_size,
            output_dim=config.units,
            name="bertmodel0_word_embed",
        )
        types = mx.sym.Embedding(
            token_types,
            self.variables["bertmodel0_token_type_embed_embedding0_weight"],
            input_dim=config.token_type_vocab_size,
            output_dim=config.units,
            name="bertmodel0_token_type_embed",
        )
        tokens = mx.sym.elemwise_add(words, types, name="bertmodel0_embed")
        # The first T rows, T taken from the tokens: no length is written into the graph.
        table = mx.sym.expand_dims(
            self.variables["bertencoder0_position_weight"], axis=0, name="bertencoder0_position_table"
        )
        positions = mx.sym.slice_like(table, tokens, axes=(1,), name="bertencoder0_position_embed")
        x = mx.sym.broadcast_add(tokens, positions, name="bertencoder0_embed")
        # Normalised, then dropped, as BERT was pretrained; GluonNLP 0.10 drops first.
        x = self.layer_norm(x, "bertencoder0_layernorm0")
        return mx.sym.Dropout(x, p=config.dropout, name="bertencoder0_embed_dropout")

    def attention_mask(self, token_ids: Any, valid_length: Any) -> Any:
        """What is added to the scores, (N, 1, 1, T): 0 where a token is, a large negative number at padding."""
        zeros = mx.sym.zeros_like(token_ids, name="bertencoder0_mask_zeros")
        # The cast lets callers bind integer token ids.
        zeros = mx.sym.Cast(zeros, dtype="float32", name="bertencoder0_mask_float")
        mask = mx.sym.SequenceMask(
            zeros,
            valid_length,
            use_sequence_length=True,
            value=_MASKED_SCORE,
            axis=1,
            name="bertencoder0_mask_padding",
        )
        mask = mx.sym.expand_dims(mask, axis=1, name="bertencoder0_mask_query")
        return mx.sym.expand_dims(mask, axis=1, name="bertencoder0_mask")

    def layer(self, i: int, x: Any, mask: Any) -> Any:
        """One transformer layer, (N, T, U) -> (N, T, U)."""
        config, prefix = self.config, f"bertencoder0_transformer{i}_"
        heads = config.num_heads

        def split_heads(part: str) -> Any:  # (N, T, U) -> (N*H, T, U/H)
            node = f"{prefix}{part}"
            y = self.dense(x, config.units, f"{prefix}dotproductselfattentioncell0_{part}", node)
            if part == "query":
                y = mx.sym._internal._mul_scalar(y, scalar=1 / math.sqrt(config.units // heads), name=f"{node}_scaled")
            y = mx.sym.reshape(y, shape=(0, 0, heads, -1), name=f"{node}_split")
            y = mx.sym.transpose(y, axes=(0, 2, 1, 3), name=f"{node}_heads")
            return mx.sym.reshape(y, shape=(-1, 0, 0), reverse=True, name=f"{node}_batched")

        def per_sample(y: Any, node: str) -> Any:  # (N*H, a, b) -> (N, H, a, b)
            return mx.sym.reshape(y, shape=(-1, heads, 0, 0), reverse=True, name=node)

        query, key, value = (split_heads(part) for part in ("query", "key", "value"))
        scores = mx.sym.batch_dot(query, key, transpose_b=True, name=f"{prefix}scores")
        scores = mx.sym.broadcast_add(per_sample(scores, f"{prefix}scores_heads"), mask, name=f"{prefix}scores_masked")
        weights = mx.sym.softmax(scores, axis=-1, name=f"{prefix}attention")
        weights = mx.sym.Dropout(weights, p=config.attention_dropout, name=f"{prefix}attention_dropout")
        weights = mx.sym.reshape(weights, shape=(-1, 0, 0), reverse=True, name=f"{prefix}attention_batched")
        context = mx.sym.batch_dot(weights, value, name=f"{prefix}context")
        context = per_sample(context, f"{prefix}context_heads")
        context = mx.sym.transpose(context, axes=(0, 2, 1, 3), name=f"{prefix}context_tokens")
        context = mx.sym.reshape(context, shape=(0, 0, -1), name=f"{prefix}context_joined")

        y = self.dense(context, config.units, f"{prefix}proj", f"{prefix}proj")
        y = mx.sym.Dropout(y, p=config.dropout, name=f"{prefix}proj_dropout")
        y = mx.sym.elemwise_add(y, x, name=f"{prefix}proj_residual")
        attended = self.layer_norm(y, f"{prefix}layernorm0")

        ffn = f"{prefix}positionwiseffn0_"
        y = self.dense(attended, config.hidden_size, f"{ffn}ffn_1", f"{ffn}ffn_1")
        y = mx.sym.LeakyReLU(y, act_type="gelu", name=f"{ffn}gelu")
        y = self.dense(y, config.units, f"{ffn}ffn_2", f"{ffn}ffn_2")
        y = mx.sym.Dropout(y, p=config.dropout, name=f"{ffn}dropout")
        y = mx.sym.elemwise_add(y, attended, name=f"{ffn}residual")
        return self.layer_norm(y, f"{ffn}layernorm0")


def encoder_symbol(config: BertConfig) -> Any:
    """The encoder's graph: an mx.sym.Symbol of shape (N, T, U), padding not yet zeroed.

    Source: Devlin et al. 2018 and GluonNLP 0.10's BERTEncoder, whose parameters it takes unchanged;
    gelu is the exact one, x * Phi(x) (Hendrycks and Gimpel 2016).
    """
    encoder = _Encoder(config)
    token_ids, token_types, valid_length = (mx.sym.var(name) for name in INPUT_NAMES)
    mask = encoder.attention_mask(token_ids, valid_length)
    x = encoder.embeddings(token_ids, token_types)
    for i in range(config.num_layers):
        x = encoder.layer(i, x, mask)
    return x
