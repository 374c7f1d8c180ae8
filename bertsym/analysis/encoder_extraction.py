"""Extract the specification of a detected encoder, operator by operator, so that another form can replace it.

An encoder that an `EncoderSpec` cannot describe is refused, with the node that differs. Scales,
masks and the order of positions are not checked: callers that replace an encoder run both forms and compare.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TypeVar

from bertsym.analysis.detected_encoder import DetectedEncoder, Layer
from bertsym.analysis.encoder_detection import ADDITIONS, INTERLEAVED, PASSING, selects_first_token, skip_passthrough
from bertsym.analysis.token_flow import value_ancestors, value_descendants
from bertsym.encoders.config import ACTIVATIONS, BertConfig
from bertsym.encoders.parameters import (
    EMBED_PROJECTION,
    POSITIONS,
    RELATIVE_BIAS,
    RELATIVE_BUCKETS,
    RELATIVE_POSITIONS,
    TOKEN_EMBEDDING,
    TOKEN_TYPES,
    shared_name,
)
from bertsym.encoders.spec import EncoderSpec
from bertsym.errors import ModelError
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, decimal_of, flag_of, operators_with, with_aliases
from bertsym.symbol.structure import ancestors_outside

_T = TypeVar("_T")
_SHAPES = with_aliases("Reshape")
_RESHAPES = _SHAPES | {"expand_dims"} | PASSING
_SCALES = with_aliases("_mul_scalar", "_div_scalar") | {"_contrib_div_sqrt_dim"}
_MASKS = operators_with(Effect.ADD, Effect.MULTIPLY) | {"where"}
_MOST_TERMS = 16  # summands of embeddings; a BERT has three
_SUM = "the sum of embeddings may only have token, segment and position embeddings"
_INTERLEAVED_VALUES = "_contrib_interleaved_matmul_selfatt_valatt"
_GELU_FORMULAS = operators_with(Effect.MULTIPLY) | with_aliases("_mul_scalar", "_div_scalar", "_plus_scalar", "erf")


def extract_spec(graph: SymbolGraph, encoder: DetectedEncoder, shapes: Mapping[str, tuple[int, ...]]) -> EncoderSpec:
    """Extract the specification of a graph's encoder. `shapes` are the shapes of the parameters.

    Raises ModelError, which names the node, if no specification describes the encoder.
    """
    matcher = _Matcher(graph, encoder, shapes)
    inside = encoder.embedding_nodes.union(*(layer.nodes for layer in encoder.layers))
    # Ids have no gradient.
    constant = graph.ancestors(encoder.relative_bias.inputs[0].node) if encoder.relative_bias is not None else set()
    for node in graph.nodes:
        if node in inside and node not in constant and node.op in with_aliases("BlockGrad"):
            raise _unexpected(node, "it blocks gradients, and the new form would not")
    matcher.embeddings()
    matcher.relative_positions()
    state = encoder.embedding_output
    for i, layer in enumerate(encoder.layers):
        _LayerMatcher(matcher, layer, state, i).match()
        state = layer.output
    return matcher.spec()


@dataclass
class _Matcher:
    """Collects the parts of the specification."""

    graph: SymbolGraph
    encoder: DetectedEncoder
    shapes: Mapping[str, tuple[int, ...]]
    names: dict[str, str] = field(default_factory=dict)  #: parameter, named as in `encoders.parameters` -> variable
    dropout: list[float] = field(default_factory=list)
    attention_dropout: list[float] = field(default_factory=list)
    activations: dict[str, Node] = field(default_factory=dict)
    numbers: dict[Node, int] = field(init=False)  #: places of the nodes in the graph
    concatenated_biases: bool | None = None  #: None before the first layer

    def __post_init__(self) -> None:
        self.numbers = {node: number for number, node in enumerate(self.graph.nodes)}

    def spec(self) -> EncoderSpec:
        encoder = self.encoder
        if len(self.activations) > 1:
            (one, node), (other, another) = list(self.activations.items())[:2]
            raise ModelError(f"{node.name} is {one} and {another.name} is {other}: all layers need the same activation")
        config = BertConfig(
            num_layers=len(encoder.layers),
            units=_required(encoder.units, "the number of units"),
            hidden_size=_required(encoder.hidden_size, "a single width of all feed-forward layers"),
            num_heads=_required(encoder.num_heads, "a single number of heads of all layers"),
            vocab_size=_required(encoder.vocab_size, "the size of the vocabulary"),
            token_type_vocab_size=encoder.token_type_vocab_size or 0,
            max_length=_required(encoder.max_length, "the position table"),
            dropout=next(iter(self.dropout), 0.0),
            attention_dropout=next(iter(self.attention_dropout), 0.0),
            layer_norm_eps=encoder.layer_norm_eps,
            activation=next(iter(self.activations)),
            family=encoder.family,
            embedding_size=encoder.embedding_size,
            shares_layers=encoder.shares_layers
            and all(name == self.names[shared_name(role)] for role, name in self.names.items()),
            position_offset=encoder.position_offset,
            relative_buckets=encoder.relative_buckets,
        )
        return EncoderSpec(
            config,
            _required(encoder.token_ids, "the input of token ids"),
            encoder.token_types,
            encoder.valid_length,
            {parameter: name for parameter, name in self.names.items() if parameter != name},
            config.activation,
            bool(self.concatenated_biases),
        )

    def embeddings(self) -> None:
        """Match the normalised sum of token, segment and position embeddings."""
        normed = self.encoder.embedding_output.node
        if self.encoder.embedding_size is not None:
            normed = skip_passthrough(self.dense(normed, EMBED_PROJECTION)).node
        self.norm(normed, "bertencoder0_layernorm0")
        width = self.encoder.embedding_size or self.encoder.units
        for term in _summands(normed.inputs[0]):
            node = term.node
            parameters = self.parameters(node)
            if node is self.encoder.token_embedding:
                role = TOKEN_EMBEDDING
            elif node.op == "Embedding" and self.reads_types(node):
                role = TOKEN_TYPES
            elif parameters == self.variables(node) and [self.shapes.get(each.name) for each in parameters] == [
                ((self.encoder.max_length or 0) + self.encoder.position_offset, width)
            ]:
                role = POSITIONS
            else:
                role = ""
            if not role or role in self.names or len(parameters) != 1:
                raise _unexpected(node, _SUM)
            self.names[role] = parameters[0].name
        if POSITIONS not in self.names:
            raise _unexpected(normed, "no position embedding is added before it")

    def relative_positions(self) -> None:
        """Match the biases of scores by relative position: a table, read at a constant for each pair of positions."""
        table = self.encoder.relative_bias
        if table is None:
            return
        ids, weight = table.inputs[0].node, table.inputs[1]
        constants = self.variables(ids)
        longest = self.encoder.max_length
        if [self.shapes.get(node.name) for node in constants] != [(longest, longest)]:
            raise _unexpected(table, f"it does not read a constant of shape ({longest}, {longest})")
        self.names[RELATIVE_BUCKETS] = constants[0].name
        self.names[RELATIVE_BIAS] = self.variable(weight, table)

    def reads_types(self, table: Node) -> bool:
        """Whether an embedding reads the token types, or is row 0 of a table for every token."""
        ids = skip_passthrough(table.inputs[0]).node
        return ids.op == "zeros_like" or ids.name == self.encoder.token_types

    def variables(self, node: Node, stop: Set[Node] = frozenset()) -> list[Node]:
        """Variables whose elements a node depends on, not counting those upstream of `stop`."""
        found = [other for other in value_ancestors(node, stop) if other.is_variable]
        return sorted(found, key=self.numbers.__getitem__)

    def parameters(self, node: Node) -> list[Node]:
        """Variables that a node depends on and that are not inputs."""
        inputs = {self.encoder.token_ids, self.encoder.token_types, self.encoder.valid_length}
        return [other for other in self.variables(node) if other.name not in inputs]

    def norm(self, node: Node, role: str) -> None:
        """Match a LayerNorm over the last axis, with the epsilon of the other LayerNorms."""
        if decimal_of(node, "eps") != self.encoder.layer_norm_eps:
            raise _unexpected(node, f"its eps differs from {self.encoder.layer_norm_eps:g}, the eps of the others")
        if node.attrs.get("axis", "-1") not in ("-1", "2"):
            raise _unexpected(node, "it does not normalise the last axis")
        for part, entry in zip(("gamma", "beta"), node.inputs[1:]):
            self.names[f"{role}_{part}"] = self.variable(entry, node)

    def dense(self, node: Node, role: str) -> Output:
        """Match a FullyConnected on each token; returns its input."""
        self.check_dense(node, role)
        for part, entry in zip(("weight", "bias"), node.inputs[1:]):
            self.names[f"{role}_{part}"] = self.variable(entry, node)
        return node.inputs[0]

    def check_dense(self, node: Node, role: str) -> None:
        if node.op != "FullyConnected":
            raise _unexpected(node, f"expected the FullyConnected {role} here")
        if flag_of(node, "flatten") or flag_of(node, "no_bias") or len(node.inputs) != 3:
            raise _unexpected(node, "it has no bias, or flattens the tokens")

    @staticmethod
    def variable(entry: Output, reader: Node) -> str:
        if not entry.node.is_variable:
            raise _unexpected(reader, f"its parameter is computed by {entry.node.name}")
        return entry.node.name


@dataclass
class _LayerMatcher:
    """One layer: LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x))."""

    matcher: _Matcher
    layer: Layer
    state: Output  #: input of the layer
    i: int

    def __post_init__(self) -> None:
        self.prefix = f"bertencoder0_transformer{self.i}_"
        # Only of this layer: a search of the whole graph for each layer would be quadratic.
        nodes = ancestors_outside(self.layer.output.node, {self.state.node})
        ordered = sorted(nodes, key=self.matcher.numbers.__getitem__)
        self.downstream = value_descendants(ordered, self.state.node)
        self.earlier = len(self.matcher.names)  #: number of names of the layers before

    def match(self) -> None:
        matcher, ffn = self.matcher, f"{self.prefix}positionwiseffn0_"
        end = self.layer.output.node
        matcher.norm(end, f"{ffn}layernorm0")
        terms = [self.summand(entry) for entry in skip_passthrough(end.inputs[0]).node.inputs]
        attended = next((term for term in terms if term.node.op == "LayerNorm"), None)
        branch = next((term.node for term in terms if term != attended), None)
        if attended is None or branch is None or len(terms) != 2:
            raise _unexpected(end, "it does not normalise the sum of the attention's result and one branch")
        inner = self.activation(matcher.dense(branch, f"{ffn}ffn_2"))
        if skip_passthrough(matcher.dense(inner, f"{ffn}ffn_1")) != attended:
            raise _unexpected(inner, f"it does not read {attended.node.name}")

        matcher.norm(attended.node, f"{self.prefix}layernorm0")
        terms = [self.summand(entry) for entry in skip_passthrough(attended.node.inputs[0]).node.inputs]
        branches = [term.node for term in terms if not self.is_state(term)]
        if len(branches) != 1 or len(terms) != 2:
            raise _unexpected(attended.node, "it does not normalise the sum of its layer's input and one branch")
        self.attention(matcher.dense(branches[0], f"{self.prefix}proj"))

        expected = {matcher.encoder.valid_length}
        expected.update(matcher.names[name] for name in RELATIVE_POSITIONS if name in matcher.names)
        expected.update(itertools.islice(reversed(matcher.names.values()), len(matcher.names) - self.earlier))
        for variable in matcher.variables(end, {self.state.node}):
            if variable.name not in expected:
                raise _unexpected(variable, f"layer {self.i} depends on it")

    def activation(self, entry: Output) -> Node:
        """Match the activation; returns the first layer of the feed-forward network."""
        node = skip_passthrough(entry).node
        kind = node.attrs.get("act_type", "") if node.op in ("LeakyReLU", "Activation") else ""
        if kind in ("gelu", "relu"):
            self.matcher.activations.setdefault(kind, node)
            return skip_passthrough(node.inputs[0]).node
        found: dict[Node, None] = {}
        waiting = [node]
        while waiting:
            other = waiting.pop()
            if other not in found:
                found[other] = None
                waiting += [source.node for source in other.inputs] if _in_gelu(other) else []
        ends = [other for other in found if not _in_gelu(other)]
        kinds = [
            name for name, op in (("gelu", "erf"), ("gelu_tanh", "Activation")) for other in found if other.op == op
        ]
        if len(ends) != 1 or len(kinds) != 1 or node.op == "Activation":
            raise _unexpected(node, f"expected {' or '.join(ACTIVATIONS)} between the feed-forward layers")
        self.matcher.activations.setdefault(kinds[0], node)
        return ends[0]

    def attention(self, entry: Output) -> None:
        """Match the attention, from the input of its projection back to query, key and value."""
        product = self.follow_back(entry, _RESHAPES).node
        if product.op not in ("batch_dot", _INTERLEAVED_VALUES):
            raise _unexpected(product, "expected the product of attention weights and values here")
        interleaved = product.op == _INTERLEAVED_VALUES
        softmax = self.follow_back(
            product.inputs[1 if interleaved else 0], _RESHAPES | _MASKS, self.matcher.attention_dropout
        )
        if softmax.node is not self.layer.softmax:
            raise _unexpected(softmax.node, f"expected {self.layer.softmax.name}, the softmax of the attention, here")
        scores = self.follow_back(softmax.node.inputs[0], _RESHAPES | _MASKS | _SCALES).node
        if scores.op != (INTERLEAVED if interleaved else "batch_dot"):
            raise _unexpected(scores, "expected the product of queries and keys here")
        if interleaved:
            if scores.inputs[0] != product.inputs[0]:
                raise _unexpected(product, f"it does not read {scores.inputs[0]}")
            self.match_fused_qkv(scores.inputs[0].node)
            return
        for part, source in (("query", scores.inputs[0]), ("key", scores.inputs[1]), ("value", product.inputs[1])):
            node = self.follow_back(source, _RESHAPES | _SCALES).node
            self.matcher.check_dense(node, self.role(part))
            self.check_reads(node)
            weight, bias = node.inputs[1:]
            self.matcher.names[f"{self.role(part)}_weight"] = self.matcher.variable(weight, node)
            if bias.node.is_variable:
                self.matcher.names[f"{self.role(part)}_bias"] = bias.node.name
                self.note_biases(False, node)
            else:
                self.match_concatenation(node, "bias", _without(bias, _SHAPES | {"slice_axis"}).node)

    def match_fused_qkv(self, node: Node) -> None:
        """Match query, key and value as one FullyConnected with concatenated weights and biases."""
        self.matcher.check_dense(node, self.role("query"))
        self.check_reads(node)
        for kind, entry in zip(("weight", "bias"), node.inputs[1:]):
            self.match_concatenation(node, kind, _without(entry, _SHAPES).node)

    def match_concatenation(self, reader: Node, kind: str, concat: Node) -> None:
        """Match concatenated weights or biases of query, key and value; `reader` reads them or a slice."""
        if concat.op not in operators_with(Effect.CONCATENATE) or len(concat.inputs) != 3:
            raise _unexpected(reader, f"its {kind} is not a concatenation of query, key and value")
        for part, source in zip(("query", "key", "value"), concat.inputs):
            variable = self.matcher.variable(_without(source, _SHAPES), concat)
            self.matcher.names[f"{self.role(part)}_{kind}"] = variable
        if kind == "bias":
            self.note_biases(all(source.node.is_variable for source in concat.inputs), concat)

    def note_biases(self, concatenated: bool, node: Node) -> None:
        """Note whether biases are concatenated instead of interleaved; raises ModelError if layers differ."""
        if self.matcher.concatenated_biases not in (None, concatenated):
            raise _unexpected(node, "its biases are concatenated differently from those of previous layers")
        self.matcher.concatenated_biases = concatenated

    def role(self, part: str) -> str:
        return f"{self.prefix}dotproductselfattentioncell0_{part}"

    def check_reads(self, node: Node) -> None:
        if not self.is_state(skip_passthrough(node.inputs[0])):
            raise _unexpected(node, f"it does not read {self.state}, the input of its layer")

    def is_state(self, output: Output) -> bool:
        """Whether an output is the layer's input or position 0 of the input."""
        if self.layer.first_only and selects_first_token(output.node):
            output = skip_passthrough(output.node.inputs[0])
        return output == self.state

    def summand(self, entry: Output) -> Output:
        """Follow a summand of a residual upstream of its dropout, and note the probability."""
        return self.follow_back(entry, PASSING, self.matcher.dropout)

    def follow_back(self, output: Output, through: Set[str], dropout: list[float] | None = None) -> Output:
        """Follow an output upstream through the operators `through`; append the p of Dropout to `dropout`."""
        while output.node.op in through and output != self.state:
            node = output.node
            data = [entry for entry in node.inputs if entry.node in self.downstream]
            if len(data) != 1:
                raise _unexpected(node, "expected exactly one input that depends on the layer's input")
            if node.op == "Dropout" and dropout is not None:
                dropout.append(decimal_of(node, "p"))
            output = data[0]
        return output


def _summands(entry: Output) -> list[Output]:
    """List the summands of a sum of embeddings; raises ModelError if there are too many."""
    found: list[Output] = []
    waiting = [entry]
    while waiting:
        output = skip_passthrough(waiting.pop())
        if output.node.op in ADDITIONS:
            waiting += reversed(output.node.inputs)
        else:
            found.append(output)
        if len(found) + len(waiting) > _MOST_TERMS:
            raise _unexpected(output.node, _SUM)
    return found


def _without(entry: Output, operators: Set[str]) -> Output:
    while entry.node.op in operators:
        entry = entry.node.inputs[0]
    return entry


def _required(value: _T | None, what: str) -> _T:
    if value is None:
        raise ModelError(f"the graph does not determine {what}")
    return value


def _unexpected(node: Node, why: str) -> ModelError:
    return ModelError(f"node {node.name} ({node.op if not node.is_variable else 'variable'}): {why}")


def _in_gelu(node: Node) -> bool:
    """Whether a node may be part of the formula of gelu by erf, or by tanh."""
    return node.op in _GELU_FORMULAS or (node.op == "Activation" and node.attrs.get("act_type") == "tanh")
