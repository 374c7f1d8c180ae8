"""A BERT encoder that was detected in a graph, and its layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bertsym.encoders.inputs import input_meanings
from bertsym.families import ALBERT, BERT, DISTILBERT, ELECTRA, ERNIE, FAMILIES, MPNET, ROBERTA
from bertsym.symbol.attributes import integer
from bertsym.symbol.node import Node, Output

_ROBERTA_EPS = 1e-5


@dataclass(frozen=True)
class Layer:
    """An encoder layer: its nodes without parameters, and the normalised output that the next layer reads."""

    nodes: frozenset[Node]
    softmax: Node  #: of the attention
    num_heads: int | None
    hidden_size: int | None
    output: Output
    first_only: bool = False  #: computes position 0 only, (N, 1, U)


@dataclass(frozen=True)
class DetectedForm:
    """The form in which an encoder is written."""

    name: str  #: a key of `encoders.forms.FORMS`
    is_interleaved: bool = False  #: attention by MXNet's interleaved operators
    has_fused_qkv: bool = False  #: query, key and value are one matrix product


@dataclass(frozen=True)
class DetectedEncoder:
    """A BERT encoder in a graph. A number is None if neither attributes nor parameter shapes determine it."""

    layers: tuple[Layer, ...]
    embedding_nodes: frozenset[Node]  #: nodes before the last layer that are in no layer: embeddings, mask
    token_embedding: Node
    embedding_output: Output  #: the normalised sum of the embeddings, or its projection: what the first layer reads
    units: int | None
    vocab_size: int | None
    token_type_vocab_size: int | None  #: 0 if there are token types, but no segment table: they change nothing
    max_length: int | None  #: tokens of the longest text: rows of the position table, without those before the first
    length: int | None  #: the only length that the graph accepts, if it has a fixed one
    layer_norm_eps: float
    token_ids: str | None
    token_types: str | None
    valid_length: str | None
    form: DetectedForm
    guarded: bool = False  #: whether the graph clips these inputs to their ranges
    position_offset: int = 0  #: row of the position table that the first token reads
    embedding_size: int | None = None  #: width of the embeddings, if a layer projects them to the units
    shares_layers: bool = False  #: whether several layers have the same parameters, by those of their last LayerNorm
    relative_bias: Node | None = None  #: Embedding of the biases of scores by relative position

    def mapped(self, copies: Mapping[Node, Node]) -> DetectedEncoder:
        """Return the same encoder in a copy of the graph; `copies` are those of `SymbolGraph.copied`."""

        def output(entry: Output) -> Output:
            return dataclasses.replace(entry, node=copies[entry.node])

        def nodes(originals: frozenset[Node]) -> frozenset[Node]:
            return frozenset(copies[node] for node in originals)

        layers = tuple(
            dataclasses.replace(
                layer, nodes=nodes(layer.nodes), softmax=copies[layer.softmax], output=output(layer.output)
            )
            for layer in self.layers
        )
        return dataclasses.replace(
            self,
            layers=layers,
            embedding_nodes=nodes(self.embedding_nodes),
            token_embedding=copies[self.token_embedding],
            embedding_output=output(self.embedding_output),
            relative_bias=copies[self.relative_bias] if self.relative_bias is not None else None,
        )

    @property
    def output(self) -> Output:
        """The output of the last layer."""
        return self.layers[-1].output

    @property
    def inputs(self) -> dict[str, str]:
        """Name -> meaning of the inputs that exist."""
        names = (self.token_ids, self.token_types, self.valid_length)
        meanings = input_meanings(2 if self.token_type_vocab_size is None else self.token_type_vocab_size).values()
        return {name: meaning for name, meaning in zip(names, meanings) if name is not None}

    @property
    def family(self) -> str:
        """The family of ``families.FAMILIES`` that the graph is like.

        GluonNLP cuts the position table of a RoBERTa when it converts one; only its epsilon is then not a DistilBERT's.
        """
        if self.shares_layers:
            return ALBERT.name
        if self.embedding_size is not None:
            return ELECTRA.name
        if self.relative_bias is not None:
            return MPNET.name
        if self.position_offset or (not self.token_type_vocab_size and self.layer_norm_eps == _ROBERTA_EPS):
            return ROBERTA.name
        if not self.token_type_vocab_size:
            return DISTILBERT.name
        has_relu = any(node.attrs.get("act_type") == "relu" for node in self.layers[0].nodes if node.op == "Activation")
        return ERNIE.name if has_relu else BERT.name

    @property
    def relative_buckets(self) -> int:
        """Rows of the table of biases by relative position; 0 without one."""
        return 0 if self.relative_bias is None else integer(self.relative_bias.attrs, "input_dim", 0)

    @property
    def num_heads(self) -> int | None:
        """Attention heads of each layer; None if they differ or are unknown."""
        return _common(layer.num_heads for layer in self.layers)

    @property
    def hidden_size(self) -> int | None:
        """Width of the feed-forward networks; None if they differ or are unknown."""
        return _common(layer.hidden_size for layer in self.layers)

    def __str__(self) -> str:
        def number(value: int | None, what: str) -> str:
            return f"{'?' if value is None else value} {what}"

        layers = f"{len(self.layers)} layer{'s' if len(self.layers) > 1 else ''}"
        words = f"vocabulary {'?' if self.vocab_size is None else self.vocab_size}"
        longest = f"max length {'?' if self.max_length is None else self.max_length}"
        sizes = f"{number(self.units, 'units')}, {number(self.num_heads, 'heads')}, {words}, {longest}"
        return f"{FAMILIES[self.family].title} of {layers}, {sizes}"


def _common(values: Iterable[int | None]) -> int | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None
