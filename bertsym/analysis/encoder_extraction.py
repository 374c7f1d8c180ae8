"""What a recognised encoder is made from, operator by operator, so that another form can take its place.

What computes anything else than an `EncoderSpec` can say is refused with the node at which it does. The numbers
(scales, masks, the order of positions) are not followed here: who replaces an encoder runs both.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TypeVar

from bertsym.analysis.encoder_detection import ADDITIONS, INTERLEAVED, PASSING, DetectedEncoder, Layer, is_first, strip
from bertsym.analysis.token_flow import value_ancestors, value_descendants
from bertsym.encoders.config import BertConfig
from bertsym.encoders.spec import ACTIVATIONS, TOKEN_TYPES, EncoderSpec
from bertsym.errors import ModelError
from bertsym.symbol.attributes import decimal, flag
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

_T = TypeVar("_T")
_SHAPES = frozenset({"Reshape", "reshape"})
_RESHAPES = _SHAPES | {"expand_dims"} | PASSING
_SCALES = frozenset({"_mul_scalar", "_div_scalar", "_contrib_div_sqrt_dim"})
_MASKS = ADDITIONS | {"elemwise_mul", "broadcast_mul", "where"}
_MOST_TERMS = 16  # of a sum of embeddings, which has three
_SUM = "embeddings are the sum of those of words, token types and positions"
_INTERLEAVED_VALUES = "_contrib_interleaved_matmul_selfatt_valatt"
_GELU_BY_ERF = frozenset({"_mul_scalar", "_div_scalar", "_plus_scalar", "elemwise_mul", "broadcast_mul", "erf"})


def extract_spec(graph: SymbolGraph, encoder: DetectedEncoder, shapes: Mapping[str, tuple[int, ...]]) -> EncoderSpec:
    """The specification of a graph's encoder. `shapes` are those of the parameters.

    Raises ModelError, naming the node, where the encoder computes what no specification says.
    """
    matcher = _Matcher(graph, encoder, shapes)
    inside = encoder.embedding_nodes.union(*(layer.nodes for layer in encoder.layers))
    for node in graph.nodes:
        if node in inside and node.op in ("BlockGrad", "stop_gradient"):
            raise _unexpected(node, "what is frozen would be trained")
    matcher.embeddings()
    state = encoder.embedding_output
    for i, layer in enumerate(encoder.layers):
        _LayerMatcher(matcher, layer, state, i).match()
        state = layer.output
    return matcher.spec()


@dataclass
class _Matcher:
    """What was found so far."""

    graph: SymbolGraph
    encoder: DetectedEncoder
    shapes: Mapping[str, tuple[int, ...]]
    names: dict[str, str] = field(default_factory=dict)  #: parameter, as `encoders.parameters` calls it -> variable
    dropout: list[float] = field(default_factory=list)
    attention_dropout: list[float] = field(default_factory=list)
    activations: dict[str, Node] = field(default_factory=dict)
    biases_in_turn: bool | None = None  #: None before the first layer

    def spec(self) -> EncoderSpec:
        encoder = self.encoder
        if len(self.activations) > 1:
            (one, node), (other, another) = list(self.activations.items())[:2]
            raise ModelError(f"{node.name} is {one} and {another.name} is {other}: all layers need the same")
        config = BertConfig(
            num_layers=len(encoder.layers),
            units=_told(encoder.units, "the number of units"),
            hidden_size=_told(encoder.hidden_size, "a width that all feed-forward layers have"),
            num_heads=_told(encoder.num_heads, "a number of heads that all layers have"),
            vocab_size=_told(encoder.vocab_size, "the size of the vocabulary"),
            token_type_vocab_size=encoder.token_type_vocab_size or 1,
            max_length=_told(encoder.max_length, "the position table"),
            dropout=next(iter(self.dropout), 0.0),
            attention_dropout=next(iter(self.attention_dropout), 0.0),
            layer_norm_eps=encoder.layer_norm_eps,
        )
        return EncoderSpec(
            config,
            _told(encoder.token_ids, "the input of token ids"),
            encoder.token_types,
            encoder.valid_length,
            {parameter: name for parameter, name in self.names.items() if parameter != name},
            next(iter(self.activations)),
            bool(self.biases_in_turn),
        )

    def embeddings(self) -> None:
        """Words, token types and positions, summed and normalised."""
        self.norm(self.encoder.embedding_output.node, "bertencoder0_layernorm0")
        for term in _terms(self.encoder.embedding_output.node.inputs[0]):
            node = term.node
            parameters = self.parameters(node)
            if node is self.encoder.token_embedding:
                role = "bertmodel0_word_embed_embedding0_weight"
            elif node.op == "Embedding" and strip(node.inputs[0]).node.name == self.encoder.token_types:
                role = TOKEN_TYPES
            elif parameters == self.variables(node) and [self.shapes.get(each.name) for each in parameters] == [
                (self.encoder.max_length, self.encoder.units)
            ]:
                role = "bertencoder0_position_weight"
            else:
                role = ""
            if not role or role in self.names or len(parameters) != 1:
                raise _unexpected(node, _SUM)
            self.names[role] = parameters[0].name
        if "bertencoder0_position_weight" not in self.names:
            raise _unexpected(self.encoder.embedding_output.node, "no embeddings of positions are added before it")

    def variables(self, node: Node, stop: Set[Node] = frozenset()) -> list[Node]:
        """Variables whose values a node depends on, without looking beyond `stop`."""
        reached = value_ancestors(node, stop)
        return [other for other in self.graph.nodes if other in reached and other.is_variable]

    def parameters(self, node: Node) -> list[Node]:
        """Those that are none of the inputs."""
        inputs = {self.encoder.token_ids, self.encoder.token_types, self.encoder.valid_length}
        return [other for other in self.variables(node) if other.name not in inputs]

    def norm(self, node: Node, role: str) -> None:
        """A LayerNorm over the last axis, with the epsilon that all have."""
        if decimal(node.attrs, "eps", 1e-5) != self.encoder.layer_norm_eps:
            raise _unexpected(node, f"its eps is not {self.encoder.layer_norm_eps:g} as that of the others")
        if node.attrs.get("axis", "-1") not in ("-1", "2"):
            raise _unexpected(node, "it is not over the last axis")
        for part, entry in zip(("gamma", "beta"), node.inputs[1:]):
            self.names[f"{role}_{part}"] = self.variable(entry, node)

    def dense(self, node: Node, role: str) -> Output:
        """A FullyConnected on each token, and what it reads."""
        self.check_dense(node, role)
        for part, entry in zip(("weight", "bias"), node.inputs[1:]):
            self.names[f"{role}_{part}"] = self.variable(entry, node)
        return node.inputs[0]

    def check_dense(self, node: Node, role: str) -> None:
        if node.op != "FullyConnected":
            raise _unexpected(node, f"the FullyConnected {role} is expected here")
        if flag(node.attrs, "flatten", True) or flag(node.attrs, "no_bias", False) or len(node.inputs) != 3:
            raise _unexpected(node, "it has no bias, or joins the tokens")

    @staticmethod
    def variable(entry: Output, reader: Node) -> str:
        if not entry.node.is_variable:
            raise _unexpected(reader, f"its parameter is computed, by {entry.node.name}")
        return entry.node.name


@dataclass
class _LayerMatcher:
    """One layer: LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x))."""

    matcher: _Matcher
    layer: Layer
    state: Output  #: what it reads
    i: int

    def __post_init__(self) -> None:
        self.prefix = f"bertencoder0_transformer{self.i}_"
        self.behind = value_descendants(self.matcher.graph, self.state.node)

    def match(self) -> None:
        matcher, ffn = self.matcher, f"{self.prefix}positionwiseffn0_"
        end = self.layer.output.node
        matcher.norm(end, f"{ffn}layernorm0")
        terms = [self.stripped(entry) for entry in strip(end.inputs[0]).node.inputs]
        attended = next((term for term in terms if term.node.op == "LayerNorm"), None)
        branch = next((term.node for term in terms if term != attended), None)
        if attended is None or branch is None or len(terms) != 2:
            raise _unexpected(end, "it does not normalise the sum of the attention's result and one branch")
        inner = self.activation(matcher.dense(branch, f"{ffn}ffn_2"))
        if strip(matcher.dense(inner, f"{ffn}ffn_1")) != attended:
            raise _unexpected(inner, f"it does not read {attended.node.name}")

        matcher.norm(attended.node, f"{self.prefix}layernorm0")
        terms = [self.stripped(entry) for entry in strip(attended.node.inputs[0]).node.inputs]
        branches = [term.node for term in terms if not self.is_state(term)]
        if len(branches) != 1 or len(terms) != 2:
            raise _unexpected(attended.node, "it does not normalise the sum of its layer's input and one branch")
        self.attention(matcher.dense(branches[0], f"{self.prefix}proj"))

        expected = {matcher.encoder.valid_length}
        expected.update(name for role, name in matcher.names.items() if role.startswith(self.prefix))
        for variable in matcher.variables(end, {self.state.node}):
            if variable.name not in expected:
                raise _unexpected(variable, f"layer {self.i} depends on it")

    def activation(self, entry: Output) -> Node:
        """The first layer of the feed-forward, before its activation."""
        node = strip(entry).node
        kind = node.attrs.get("act_type", "") if node.op in ("LeakyReLU", "Activation") else ""
        if kind in ACTIVATIONS:
            self.matcher.activations.setdefault(kind, node)
            return strip(node.inputs[0]).node
        found: dict[Node, None] = {}
        waiting = [node]
        while waiting:
            other = waiting.pop()
            if other not in found:
                found[other] = None
                waiting += [source.node for source in other.inputs] if other.op in _GELU_BY_ERF else []
        ends = [other for other in found if other.op not in _GELU_BY_ERF]
        if len(ends) != 1 or sum(other.op == "erf" for other in found) != 1:
            raise _unexpected(node, f"{' or '.join(ACTIVATIONS)} is expected between the feed-forward's layers")
        self.matcher.activations.setdefault("gelu", node)
        return ends[0]

    def attention(self, entry: Output) -> None:
        """From what the projection reads back to query, key and value."""
        product = self.back(entry, _RESHAPES).node
        if product.op not in ("batch_dot", _INTERLEAVED_VALUES):
            raise _unexpected(product, "the product of the attention's weights and the values is expected here")
        interleaved = product.op == _INTERLEAVED_VALUES
        softmax = self.back(product.inputs[1 if interleaved else 0], _RESHAPES | _MASKS, self.matcher.attention_dropout)
        if softmax.node is not self.layer.softmax:
            raise _unexpected(
                softmax.node, f"the attention's weights are expected to come from {self.layer.softmax.name}"
            )
        scores = self.back(softmax.node.inputs[0], _RESHAPES | _MASKS | _SCALES).node
        if scores.op != (INTERLEAVED if interleaved else "batch_dot"):
            raise _unexpected(scores, "the product of queries and keys is expected here")
        if interleaved:
            if scores.inputs[0] != product.inputs[0]:
                raise _unexpected(product, f"it does not read {scores.inputs[0]}")
            self.joined(scores.inputs[0].node)
            return
        for part, source in (("query", scores.inputs[0]), ("key", scores.inputs[1]), ("value", product.inputs[1])):
            node = self.back(source, _RESHAPES | _SCALES).node
            self.matcher.check_dense(node, self.role(part))
            self.check_reads(node)
            weight, bias = node.inputs[1:]
            self.matcher.names[f"{self.role(part)}_weight"] = self.matcher.variable(weight, node)
            if bias.node.is_variable:
                self.matcher.names[f"{self.role(part)}_bias"] = bias.node.name
                self.biases_are(False, node)
            else:
                self.join(node, "bias", _without(bias, _SHAPES | {"slice_axis"}).node)

    def joined(self, node: Node) -> None:
        """Query, key and value as one FullyConnected, whose weight and bias are joined of theirs."""
        self.matcher.check_dense(node, self.role("query"))
        self.check_reads(node)
        for kind, entry in zip(("weight", "bias"), node.inputs[1:]):
            self.join(node, kind, _without(entry, _SHAPES).node)

    def join(self, reader: Node, kind: str, join: Node) -> None:
        """Weights, or biases, of query, key and value as one tensor of which `reader` reads all or a part."""
        if join.op not in ("Concat", "concat", "stack") or len(join.inputs) != 3:
            raise _unexpected(reader, f"its {kind} is not joined of those of query, key and value")
        for part, source in zip(("query", "key", "value"), join.inputs):
            variable = self.matcher.variable(_without(source, _SHAPES), join)
            self.matcher.names[f"{self.role(part)}_{kind}"] = variable
        if kind == "bias":
            self.biases_are(all(source.node.is_variable for source in join.inputs), join)

    def biases_are(self, in_turn: bool, node: Node) -> None:
        """Note how the biases of query, key and value are joined, which must be the same in all layers."""
        if self.matcher.biases_in_turn not in (None, in_turn):
            raise _unexpected(node, "the biases are joined otherwise than before")
        self.matcher.biases_in_turn = in_turn

    def role(self, part: str) -> str:
        return f"{self.prefix}dotproductselfattentioncell0_{part}"

    def check_reads(self, node: Node) -> None:
        if not self.is_state(strip(node.inputs[0])):
            raise _unexpected(node, f"it does not read {self.state}, the input of its layer")

    def is_state(self, output: Output) -> bool:
        """Whether it is the layer's input, or position 0 of it."""
        if self.layer.first_only and is_first(output.node):
            output = strip(output.node.inputs[0])
        return output == self.state

    def stripped(self, entry: Output) -> Output:
        """What a residual adds, its dropout noted."""
        return self.back(entry, PASSING, self.matcher.dropout)

    def back(self, output: Output, through: Set[str], dropout: list[float] | None = None) -> Output:
        """Back through operators with one input that depends on the layer's; Dropout's p goes to `dropout`."""
        while output.node.op in through and output != self.state:
            node = output.node
            data = [entry for entry in node.inputs if entry.node in self.behind]
            if len(data) != 1:
                raise _unexpected(node, "one of its inputs, not more, is expected to depend on its layer's input")
            if node.op == "Dropout" and dropout is not None:
                dropout.append(decimal(node.attrs, "p", 0.5))
            output = data[0]
        return output


def _terms(entry: Output) -> list[Output]:
    """What a sum is of; raises ModelError for one of more than embeddings are."""
    found: list[Output] = []
    waiting = [entry]
    while waiting:
        output = strip(waiting.pop())
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


def _told(value: _T | None, what: str) -> _T:
    if value is None:
        raise ModelError(f"the graph does not tell {what}")
    return value


def _unexpected(node: Node, why: str) -> ModelError:
    return ModelError(f"node {node.name} ({node.op if not node.is_variable else 'variable'}): {why}")
