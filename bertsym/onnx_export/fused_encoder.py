"""An encoder as an ONNX model of onnxruntime's own operators for BERT, as its optimizer for transformers fuses them.

For inference in memory only: no other program runs these operators, so they are never written to a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bertsym.array import Array
from bertsym.encoders.folding import PARTS
from bertsym.encoders.parameters import EMBED_PROJECTION, POSITIONS, TOKEN_EMBEDDING, TOKEN_TYPES
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.symbol.int8_arithmetic import Int8Layer, Rounding

TOKEN_IDS, TOKEN_TYPE_IDS, LENGTHS = "token ids", "token types", "lengths"  #: inputs, int32: (N, T), (N, T), (N,)
OUTPUT = "encodings"  #: (N, T, U) float32, or (N, 1, U)

#: optimizers of onnxruntime that must not run: on a CPU, 1.32's SkipLayerNormalization takes five times as long as Add
#: and LayerNormalization
WITHOUT = ("SkipLayerNormFusion",)

_DOMAIN = "com.microsoft"
_OPSETS = {"": 17, _DOMAIN: 1}
_IR_VERSION = 8
_LARGEST = 2_000_000_000  # bytes; a protobuf message ends at 2 GiB


def build_fused_encoder(
    spec: EncoderSpec, params: Mapping[str, Array], int8_layers: Mapping[str, Int8Layer], *, first_only: bool
) -> Any:
    """Build the ONNX model of an encoder; with `first_only` the last layer computes position 0 alone.

    `int8_layers` are dense layers by the names of their weights in `params`; the others are float32.

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
    if set(int8_layers) - {spec.name(name) for name in spec.shapes}:
        raise ModelError("layers outside of the encoder are int8")
    if int8_layers and config.shares_layers:
        raise ModelError("layers that share int8 weights differ in their ranges")
    builder = _Builder(spec, params, int8_layers)
    state = builder.embeddings()
    for i in range(config.num_layers):
        state = builder.layer(i, state, first_only and i == config.num_layers - 1)
    return builder.model(state)


class _Builder:
    """Collects the nodes and weights of the model."""

    def __init__(self, spec: EncoderSpec, params: Mapping[str, Array], int8_layers: Mapping[str, Int8Layer]) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._to_tensor = helper, numpy_helper.from_array
        self._spec, self._config, self._params = spec, spec.config, params
        self._int8_layers = int8_layers
        self._rounded: dict[tuple[str, Rounding], str] = {}  #: float32 tensor, how it is rounded -> uint8 tensor
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
        return self._dense(state, EMBED_PROJECTION)

    def layer(self, i: int, state: str, first_only: bool) -> str:
        """LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x))."""
        # One copy of weights that all layers share.
        prefix = f"bertencoder0_transformer{0 if self._config.shares_layers else i}_"
        ffn = f"{prefix}positionwiseffn0_"
        if first_only:
            queries = self._add("Slice", [state, *(self._constant(number) for number in (0, 1, 1))], domain="")
            attended = self._separate_attention(prefix, queries, state)
        else:
            queries, attended = state, self._attention(prefix, state)
        state = self._residual(self._dense(attended, f"{prefix}proj"), queries, f"{prefix}layernorm0")
        inner = self._activated(state, f"{ffn}ffn_1")
        return self._residual(self._dense(inner, f"{ffn}ffn_2"), state, f"{ffn}layernorm0")

    def _attention(self, prefix: str, state: str) -> str:
        parts = [f"{prefix}dotproductselfattentioncell0_{part}" for part in PARTS]
        layers = [layer for layer in map(self._int8_layer, parts) if layer is not None]
        if layers and (len(layers) < len(parts) or len({layer.data for layer in layers}) > 1):
            return self._separate_attention(prefix, state, state)
        biases, heads = self._biases(prefix, parts), self._config.num_heads
        if not layers:
            weight = np.concatenate([self._array(f"{part}_weight").T for part in parts], axis=1)
            inputs = [state, self._weight(f"{prefix}qkv", weight), biases]
            return self._add("Attention", [*inputs, *self._lengths()], num_heads=heads)
        data, weight = layers[0].data, np.concatenate([layer.weight.T for layer in layers], axis=1)
        scales = [self._scale(data), self._weight(f"{prefix}scales", np.concatenate([each.scales for each in layers]))]
        inputs = [self._round(state, data), self._weight(f"{prefix}qkv", weight, "int8"), biases, *scales]
        return self._add("QAttention", [*inputs, *(self._lengths() or [""]), self._zero(data)], num_heads=heads)

    def _separate_attention(self, prefix: str, queries: str, state: str) -> str:
        """Attention whose query, key and value are products of their own."""
        parts = [f"{prefix}dotproductselfattentioncell0_{part}" for part in PARTS]
        products = [self._product(source, part) for source, part in zip((queries, state, state), parts)]
        inputs = [*products, self._biases(prefix, parts)]
        return self._add("MultiHeadAttention", [*inputs, *self._lengths()], num_heads=self._config.num_heads)

    def _biases(self, prefix: str, parts: list[str]) -> str:
        return self._weight(f"{prefix}biases", np.concatenate([self._bias_array(part) for part in parts]))

    def _lengths(self) -> list[str]:
        return [LENGTHS] if LENGTHS in self._inputs else []

    def _activated(self, state: str, name: str) -> str:
        """A dense layer and its activation."""
        kind, is_int8 = self._spec.activation, self._int8_layer(name) is not None
        if kind == "relu":
            return self._add("Relu", [self._dense(state, name)], domain="")
        if is_int8:
            return self._add("Gelu" if kind == "gelu" else "FastGelu", [self._dense(state, name)])
        inputs = [self._product(state, name), self._bias(name)]
        return self._add("BiasGelu" if kind == "gelu" else "FastGelu", inputs)

    def _residual(self, state: str, skipped: str, norm: str) -> str:
        """The normalised sum of two tensors."""
        inputs = [self._add("Add", [state, skipped], domain=""), *self._vectors(norm, "gamma", "beta")]
        return self._add("LayerNormalization", inputs, domain="", epsilon=self._config.layer_norm_eps)

    def _dense(self, state: str, name: str) -> str:
        """The product with the transposed weight of a dense layer, and its bias."""
        if self._int8_layer(name) is not None:
            return self._product(state, name, self._bias(name))
        return self._add("Add", [self._product(state, name), self._bias(name)], domain="")

    def _product(self, state: str, name: str, *bias: str) -> str:
        """The product with the transposed weight of a dense layer; of an int8 one, the bias may be given."""
        weight, layer = f"{name}_weight", self._int8_layer(name)
        if layer is None:
            return self._add("MatMul", [state, self._weight(weight, self._array(weight).T)], domain="")
        scales = [self._scale(layer.data), self._weight(f"{name}_scales", layer.scales)]
        inputs = [self._round(state, layer.data), self._weight(weight, layer.weight.T, "int8"), *scales]
        return self._add("MatMulIntegerToFloat", [*inputs, self._zero(layer.data), "", *bias])

    def _round(self, state: str, rounding: Rounding) -> str:
        """The integers of a tensor; those of int8 as uint8, 128 higher, which onnxruntime multiplies by int8."""
        if (state, rounding) not in self._rounded:
            inputs = [state, self._scale(rounding), self._zero(rounding)]
            self._rounded[state, rounding] = self._add("QuantizeLinear", inputs, domain="")
        return self._rounded[state, rounding]

    def _scale(self, rounding: Rounding) -> str:
        return self._weight(f"scale {rounding.scale!r}", np.array(rounding.scale))

    def _zero(self, rounding: Rounding) -> str:
        return self._weight(f"zero of {rounding.dtype}", np.array(128 if rounding.dtype == "int8" else 0), "uint8")

    def _int8_layer(self, name: str) -> Int8Layer | None:
        return self._int8_layers.get(self._spec.name(f"{name}_weight"))

    def _bias(self, name: str) -> str:
        return self._weight(f"{name}_bias", self._bias_array(name))

    def _bias_array(self, name: str) -> Array:
        layer = self._int8_layer(name)
        return self._array(f"{name}_bias") if layer is None else layer.bias

    def _vectors(self, name: str, *parts: str) -> list[str]:
        return [self._weight(f"{name}_{part}", self._array(f"{name}_{part}")) for part in parts]

    def _array(self, parameter: str) -> Array:
        return np.asarray(self._params[self._spec.name(parameter)])

    def _weight(self, name: str, array: Array, dtype: str = "float32") -> str:
        if name not in self._weights:
            self._weights[name] = self._to_tensor(np.array(array, dtype, order="C"), name)
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
