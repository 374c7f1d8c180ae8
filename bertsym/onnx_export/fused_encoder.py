"""An encoder as an ONNX model of onnxruntime's own operators for BERT, as its optimizer for transformers fuses them.

For inference in memory only: no other program runs these operators, so they are never written to a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bertsym.encoders.parameters import EMBED_PROJECTION, POSITIONS, TOKEN_EMBEDDING, TOKEN_TYPES
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.symbol.params import Array

TOKEN_IDS, TOKEN_TYPE_IDS, LENGTHS = "token ids", "token types", "lengths"  #: inputs, int32: (N, T), (N, T), (N,)
OUTPUT = "encodings"  #: (N, T, U) float32, or (N, 1, U)

_DOMAIN = "com.microsoft"
_OPSETS = {"": 17, _DOMAIN: 1}
_IR_VERSION = 8
_LARGEST = 2_000_000_000  # bytes; a protobuf message ends at 2 GiB


def build_fused_encoder(spec: EncoderSpec, params: Mapping[str, Array], *, first_only: bool) -> Any:
    """Build the ONNX model of an encoder; with `first_only` the last layer computes position 0 alone.

    Returns an onnx.ModelProto with the inputs TOKEN_IDS and, where the encoder reads them, TOKEN_TYPE_IDS and LENGTHS.
    Raises ModelError for an encoder that these operators can't express, or whose parameters exceed a message's size.
    """
    config = spec.config
    if config.relative_buckets:
        raise ModelError("onnxruntime's Attention is not used for relative positions")
    if spec.concatenated_biases:
        raise ModelError("onnxruntime's Attention does not have the biases of GluonNLP 0.9")
    if 4 * sum(int(np.prod(shape)) for shape in spec.shapes.values()) > _LARGEST:
        raise ModelError("the parameters are larger than an ONNX model in memory can be")
    builder = _Builder(spec, params)
    state = builder.embeddings()
    for i in range(config.num_layers):
        state = builder.layer(i, state, first_only and i == config.num_layers - 1)
    return builder.model(state)


class _Builder:
    """Collects the nodes and weights of the model."""

    def __init__(self, spec: EncoderSpec, params: Mapping[str, Array]) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._to_tensor = helper, numpy_helper.from_array
        self._spec, self._config, self._params = spec, spec.config, params
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}
        self._inputs: dict[str, tuple[str, ...]] = {TOKEN_IDS: ("batch", "length")}

    def model(self, output: str) -> Any:
        """Return the model that ends in a tensor."""
        helper = self._helper
        self._nodes.append(helper.make_node("Identity", [output], [OUTPUT]))
        # The numbers of TensorProto.
        inputs = [helper.make_tensor_value_info(name, 6, axes) for name, axes in self._inputs.items()]
        end = helper.make_tensor_value_info(OUTPUT, 1, ("batch", "positions", self._config.units))
        graph = helper.make_graph(self._nodes, "encoder", inputs, [end], list(self._weights.values()))
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def embeddings(self) -> str:
        """The normalised sum of token, segment and position embeddings."""
        config = self._config
        rows = self._array(POSITIONS)[config.position_offset :]
        ids, table = "", ""
        if self._spec.token_types is not None and config.segments > 1:
            self._inputs[TOKEN_TYPE_IDS] = ("batch", "length")
            ids, table = TOKEN_TYPE_IDS, self._weight(TOKEN_TYPES, self._array(TOKEN_TYPES))
        elif config.token_type_vocab_size:
            rows = rows + self._array(TOKEN_TYPES)[0]  # every token has the type 0
        if self._spec.valid_length is not None:
            self._inputs[LENGTHS] = ("batch",)
        norm = "bertencoder0_layernorm0"
        tables = [self._weight(TOKEN_EMBEDDING, self._array(TOKEN_EMBEDDING)), self._weight(POSITIONS, rows), table]
        state = self._add(
            "EmbedLayerNormalization",
            [TOKEN_IDS, ids, *tables, *self._vectors(norm, "gamma", "beta")],
            epsilon=config.layer_norm_eps,
            unused=1,  # its mask
        )
        if config.embedding_size is None:
            return state
        product, bias = self._product(state, EMBED_PROJECTION), self._vectors(EMBED_PROJECTION, "bias")
        return self._add("Add", [product, *bias], domain="")

    def layer(self, i: int, state: str, first_only: bool) -> str:
        """LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x))."""
        # One copy of weights that all layers share.
        prefix = f"bertencoder0_transformer{0 if self._config.shares_layers else i}_"
        ffn = f"{prefix}positionwiseffn0_"
        if first_only:
            queries = self._add("Slice", [state, *(self._constant(number) for number in (0, 1, 1))], domain="")
            attended = self._attention_of_first(prefix, queries, state)
        else:
            queries, attended = state, self._attention(prefix, state)
        state = self._residual(
            self._product(attended, f"{prefix}proj"), queries, f"{prefix}layernorm0", f"{prefix}proj"
        )
        inner = self._activation(self._product(state, f"{ffn}ffn_1"), f"{ffn}ffn_1")
        return self._residual(self._product(inner, f"{ffn}ffn_2"), state, f"{ffn}layernorm0", f"{ffn}ffn_2")

    def _attention(self, prefix: str, state: str) -> str:
        parts = [f"{prefix}dotproductselfattentioncell0_{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._array(f"{part}_weight").T for part in parts], axis=1)
        inputs = [state, self._weight(f"{prefix}qkv", weight), self._biases(prefix, parts)]
        return self._add("Attention", [*inputs, *self._lengths()], num_heads=self._config.num_heads)

    def _attention_of_first(self, prefix: str, queries: str, state: str) -> str:
        parts = [f"{prefix}dotproductselfattentioncell0_{part}" for part in ("query", "key", "value")]
        products = [self._product(source, part) for source, part in zip((queries, state, state), parts)]
        inputs = [*products, self._biases(prefix, parts)]
        return self._add("MultiHeadAttention", [*inputs, *self._lengths()], num_heads=self._config.num_heads)

    def _biases(self, prefix: str, parts: list[str]) -> str:
        return self._weight(f"{prefix}biases", np.concatenate([self._array(f"{part}_bias") for part in parts]))

    def _lengths(self) -> list[str]:
        return [LENGTHS] if LENGTHS in self._inputs else []

    def _activation(self, product: str, name: str) -> str:
        """The activation of a product with its bias."""
        bias = self._vectors(name, "bias")
        kind = self._spec.activation
        if kind == "relu":
            return self._add("Relu", [self._add("Add", [product, *bias], domain="")], domain="")
        return self._add("BiasGelu" if kind == "gelu" else "FastGelu", [product, *bias])

    def _residual(self, product: str, skipped: str, norm: str, dense: str) -> str:
        inputs = [product, skipped, *self._vectors(norm, "gamma", "beta"), *self._vectors(dense, "bias")]
        return self._add("SkipLayerNormalization", inputs, epsilon=self._config.layer_norm_eps)

    def _product(self, state: str, name: str) -> str:
        """The product with the transposed weight of a dense layer, without its bias."""
        return self._add("MatMul", [state, self._weight(f"{name}_weight", self._array(f"{name}_weight").T)], domain="")

    def _vectors(self, name: str, *parts: str) -> list[str]:
        return [self._weight(f"{name}_{part}", self._array(f"{name}_{part}")) for part in parts]

    def _array(self, parameter: str) -> Array:
        return np.asarray(self._params[self._spec.name(parameter)])

    def _weight(self, name: str, array: Array) -> str:
        if name not in self._weights:
            self._weights[name] = self._to_tensor(np.ascontiguousarray(array, np.float32), name)
        return name

    def _constant(self, number: int) -> str:
        name = f"number {number}"
        if name not in self._weights:
            self._weights[name] = self._to_tensor(np.array([number], np.int64), name)
        return name

    def _add(self, op: str, inputs: list[str], *, domain: str = _DOMAIN, unused: int = 0, **attributes: Any) -> str:
        """Add a node; returns its first output, before the `unused` ones."""
        name = f"{op} {len(self._nodes)}"
        outputs = [name, *(f"{name} unused {i}" for i in range(unused))]
        self._nodes.append(self._helper.make_node(op, inputs, outputs, name, domain=domain, **attributes))
        return name
