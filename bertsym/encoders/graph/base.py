"""The base of all forms of the encoder: embeddings, residuals, feed-forward layers.

N is the batch size, T the length, U the units, E the width of the embeddings, H the heads; T is at most
config.max_length. Every node has an explicit name, so that the same specification gives the same JSON in every process.
"""

from __future__ import annotations

import abc
import math
from typing import Any

from bertsym.encoders.forms import Form
from bertsym.encoders.parameters import (
    EMBED_PROJECTION,
    POSITIONS,
    RELATIVE_BIAS,
    RELATIVE_BUCKETS,
    TOKEN_EMBEDDING,
    TOKEN_TYPES,
)
from bertsym.encoders.spec import EncoderSpec
from bertsym.symbol.recorder import sym

_MASKED_SCORE = -1e9  # exp() of it is 0 in float32, and it stays finite


class Encoder(abc.ABC):
    """One graph under construction: the specification and a variable for each input and parameter."""

    time_major = False  #: whether the layers run on (T, N, U) rather than on (N, T, U)

    def __init__(self, spec: EncoderSpec, form: Form) -> None:
        self.spec = spec
        self.config = spec.config
        self.form = form
        # With shapes: MXNet cannot infer that of the position table from slice_like. One variable for each name of the
        # graph, because layers may share parameters.
        own = {spec.name(name): _variable(name, spec.name(name), shape) for name, shape in spec.shapes.items()}
        self.variables = {name: own[spec.name(name)] for name in spec.shapes}
        self.token_ids = sym.var(spec.token_ids)
        self.token_types = sym.var(spec.token_types) if spec.token_types else None
        self.valid_length = sym.var(spec.valid_length) if spec.valid_length else None

    def build(self, first_only: bool = False) -> list[Any]:
        """Build the input of the first layer and the output of each layer; (N, T, U) or (T, N, U).

        The input is taken before dropout, or after the projection of the embeddings.

        With `first_only`, the last output is (N, 1, U), position 0.
        """
        mask = self.mask() if self.valid_length is not None or self.config.relative_buckets else None
        embedded = self.layer_norm(self.embeddings(), "bertencoder0_layernorm0")
        # Normalization before dropout, as BERT was pretrained; GluonNLP applies dropout first.
        x = self.dropout(embedded, self.config.dropout, "bertencoder0_embed_dropout")
        if self.config.embedding_size is not None:
            x = embedded = self.dense(x, self.config.units, EMBED_PROJECTION, EMBED_PROJECTION)
        outputs = [embedded]
        for i in range(self.config.num_layers):
            x = self.layer(i, x, mask, first_only and i == self.config.num_layers - 1)
            outputs.append(x)
        return outputs

    @abc.abstractmethod
    def mask(self) -> Any:
        """Build what `attention` needs to ignore padding; with relative positions, their biases are added to it."""

    @abc.abstractmethod
    def positions(self, tokens: Any) -> Any:
        """Take the first T rows of the position table, to be added to `tokens` by broadcasting."""

    @abc.abstractmethod
    def attention(self, i: int, x: Any, mask: Any, queries: Any) -> Any:
        """Multi-head attention of layer i from `queries` to `x`, in the layout of `queries`."""

    def dense(self, x: Any, units: int, name: str, node: str) -> Any:
        """Apply the dense layer with parameters ``name_weight`` and ``name_bias`` to the last axis."""
        weight, bias = (self.variables[f"{name}_{part}"] for part in ("weight", "bias"))
        return sym.FullyConnected(x, weight, bias, num_hidden=units, flatten=False, name=node)

    def layer_norm(self, x: Any, name: str) -> Any:
        """LayerNorm over the last axis."""
        gamma, beta = (self.variables[f"{name}_{part}"] for part in ("gamma", "beta"))
        return sym.LayerNorm(x, gamma, beta, eps=self.config.layer_norm_eps, name=f"{name}_fwd")

    def dropout(self, x: Any, p: float, name: str) -> Any:
        """Dropout, if its probability is above 0."""
        return sym.Dropout(x, p=p, name=name) if p else x

    def embedding(self, ids: Any, table: str, rows: int, node: str) -> Any:
        """Look up rows of a table, (N, T, E)."""
        width = self.config.embedding_width
        return sym.Embedding(ids, self.variables[table], input_dim=rows, output_dim=width, name=node)

    def zeros(self, node: str) -> Any:
        """Zeros (N, T), float32 even for integer token ids.

        Without a segment table they are made of the token types, which are then an input that changes nothing.
        """
        is_unused = self.token_types is not None and not self.config.token_type_vocab_size
        source = self.token_types if is_unused else self.token_ids
        return sym.Cast(sym.zeros_like(source, name=f"{node}_zeros"), dtype="float32", name=f"{node}_float")

    def additive_mask(self) -> Any:
        """(N, T): 0 at tokens, a large negative number at padding; zeros without valid_length."""
        zeros = self.zeros("bertencoder0_mask")
        if self.valid_length is None:
            return zeros
        return sym.SequenceMask(
            zeros,
            self.valid_length,
            use_sequence_length=True,
            value=_MASKED_SCORE,
            axis=1,
            name="bertencoder0_mask_padding",
        )

    def score_mask(self) -> Any:
        """What is added to the scores of each sample: (N, 1, 1, T), with relative positions (N, H, T, T)."""
        padding = self.additive_mask()
        mask = sym.expand_dims(padding, axis=1, name="bertencoder0_mask_query")
        mask = sym.expand_dims(mask, axis=1, name="bertencoder0_mask")
        if not self.config.relative_buckets:
            return mask
        return sym.broadcast_add(mask, self.relative_bias(padding), name="bertencoder0_mask_relative")

    def relative_bias(self, tokens: Any) -> Any:
        """The bias of each score by head and by the bucket of the relative position, (1, H, T, T); T from `tokens`."""
        node = "bertencoder0_relative_position"
        # Without BlockGrad, MXNet refuses gradients of an Embedding's ids.
        buckets = sym.BlockGrad(self.variables[RELATIVE_BUCKETS], name=f"{node}_constant")
        buckets = sym.slice_like(buckets, tokens, axes=(1,), name=f"{node}_keys")
        buckets = sym.transpose(buckets, axes=(1, 0), name=f"{node}_by_key")
        buckets = sym.slice_like(buckets, tokens, axes=(1,), name=f"{node}_pairs")
        bias = sym.Embedding(
            buckets,
            self.variables[RELATIVE_BIAS],
            input_dim=self.config.relative_buckets,
            output_dim=self.config.num_heads,
            name="bertencoder0_relative_attention_bias",
        )
        bias = sym.transpose(bias, axes=(2, 1, 0), name=f"{node}_bias_by_head")
        return sym.expand_dims(bias, axis=0, name=f"{node}_bias")

    def pairwise_mask(self) -> Any:
        """The mask with relative positions, (N*H, T, T)."""
        return sym.reshape(self.score_mask(), shape=(-1, 0, 0), reverse=True, name="bertencoder0_mask_pairwise")

    def tokens(self) -> Any:
        """Sum of token and segment embeddings, (N, T, E)."""
        config = self.config
        words = self.embedding(self.token_ids, TOKEN_EMBEDDING, config.vocab_size, "bertmodel0_word_embed")
        if not config.token_type_vocab_size:
            return words
        types = self.token_types
        if types is None or config.token_type_vocab_size == 1:
            # One row for every token, whatever the input holds.
            source = self.token_ids if types is None else types
            types = sym.zeros_like(source, name="bertmodel0_token_type_zeros")
        rows = self.embedding(types, TOKEN_TYPES, config.token_type_vocab_size, "bertmodel0_token_type_embed")
        return sym.elemwise_add(words, rows, name="bertmodel0_embed")

    def position_table(self) -> Any:
        """The rows of the position table that tokens read, (max_length, E)."""
        table, offset = self.variables[POSITIONS], self.config.position_offset
        if not offset:
            return table
        return sym.slice_axis(table, axis=0, begin=offset, end=None, name="bertencoder0_position_cut")

    def embeddings(self) -> Any:
        """Sum of token, segment and position embeddings."""
        tokens = self.tokens()
        return sym.broadcast_add(tokens, self.positions(tokens), name="bertencoder0_embed")

    def activation(self, x: Any, prefix: str) -> Any:
        """The activation of the feed-forward layers."""
        return record_activation(self.spec.activation, x, f"{prefix}{self.spec.activation}", self.form)

    def layer(self, i: int, x: Any, mask: Any, first_only: bool) -> Any:
        """One transformer layer, in the layout of `x`; with `first_only` (N, 1, U)."""
        config, prefix = self.config, f"bertencoder0_transformer{i}_"
        queries = sym.slice_axis(x, axis=1, begin=0, end=1, name=f"{prefix}first") if first_only else x
        y = self.dense(self.attention(i, x, mask, queries), config.units, f"{prefix}proj", f"{prefix}proj")
        y = self.dropout(y, config.dropout, f"{prefix}proj_dropout")
        y = sym.elemwise_add(y, queries, name=f"{prefix}proj_residual")
        attended = self.layer_norm(y, f"{prefix}layernorm0")

        ffn = f"{prefix}positionwiseffn0_"
        y = self.dense(attended, config.hidden_size, f"{ffn}ffn_1", f"{ffn}ffn_1")
        y = self.activation(y, ffn)
        y = self.dense(y, config.units, f"{ffn}ffn_2", f"{ffn}ffn_2")
        y = self.dropout(y, config.dropout, f"{ffn}dropout")
        y = sym.elemwise_add(y, attended, name=f"{ffn}residual")
        return self.layer_norm(y, f"{ffn}layernorm0")


def _variable(parameter: str, name: str, shape: tuple[int, ...]) -> Any:
    """A parameter of the graph; an optimizer of MXNet's leaves a constant as it is."""
    if parameter == RELATIVE_BUCKETS:
        # With a dtype: MXNet does not infer that of an Embedding's ids.
        return sym.var(name, shape=shape, lr_mult=0.0, wd_mult=0.0, dtype="float32")
    return sym.var(name, shape=shape)


def record_activation(kind: str, x: Any, node: str, form: Form) -> Any:
    """One of ``encoders.config.ACTIVATIONS`` of x, ending in a node of this name."""
    if kind == "gelu":
        return _record_gelu(x, node, form)
    if kind == "gelu_tanh":
        return _record_gelu_tanh(x, node)
    return sym.Activation(x, act_type=kind, name=node)


def _record_gelu_tanh(x: Any, node: str) -> Any:
    """x/2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016)."""
    square = sym.elemwise_mul(x, x, name=f"{node}_square")
    y = sym._internal._plus_scalar(
        sym._internal._mul_scalar(square, scalar=0.044715, name=f"{node}_cubic"), scalar=1.0, name=f"{node}_factor"
    )
    y = sym._internal._mul_scalar(
        sym.elemwise_mul(x, y, name=f"{node}_inner"), scalar=math.sqrt(2 / math.pi), name=f"{node}_scaled"
    )
    y = sym._internal._plus_scalar(
        sym.Activation(y, act_type="tanh", name=f"{node}_tanh"), scalar=1.0, name=f"{node}_plus"
    )
    return sym.elemwise_mul(sym._internal._mul_scalar(x, scalar=0.5, name=f"{node}_half"), y, name=node)


def _record_gelu(x: Any, node: str, form: Form) -> Any:
    """The exact gelu, x * Phi(x) (Hendrycks and Gimpel 2016), ending in a node of this name."""
    if not form.erf:
        return sym.LeakyReLU(x, act_type="gelu", name=node)
    y = sym._internal._div_scalar(x, scalar=math.sqrt(2), name=f"{node}_scaled")
    y = sym._internal._plus_scalar(sym.erf(y, name=f"{node}_erf"), scalar=1.0, name=f"{node}_plus")
    return sym.elemwise_mul(sym._internal._mul_scalar(x, scalar=0.5, name=f"{node}_half"), y, name=node)
