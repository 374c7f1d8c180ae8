"""Which tokens of the encoder reach each classifier of a graph."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping, Set
from dataclasses import dataclass

from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.symbolic_shapes import LENGTH, Axes
from bertsym.analysis.token_flow import Traces, value_descendants
from bertsym.analysis.token_flow_rules import trace_dense_input
from bertsym.analysis.trace import Step, StepKind, TokenSelection, Trace, dense_step, function_step
from bertsym.encoders.catalogue import HEAD_TRANSFORM
from bertsym.symbol.attributes import integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, operators_with, with_aliases


class InputKind(enum.Enum):
    """What a classifier reads, or what a graph without a head ends in; the values are those of the JSON."""

    CLS = "cls"  #: the encoding of [CLS], position 0 of the sequence
    POSITION = "position"  #: the encoding of another position
    POOLED = "pooled"  #: the pooler, tanh(Dense) of [CLS]
    MEAN = "mean"  #: the mean over the tokens
    MAX = "max"  #: the maximum over the tokens
    SUM = "sum"  #: the sum over the tokens
    LAST = "last"  #: the encoding of the last valid token
    SOME = "some"  #: the encodings of a range of the tokens
    WHOLE_SEQUENCE = "whole_sequence"  #: the flattened sequence, which locks the length
    TOKENS = "tokens"  #: each token separately
    SEQUENCE = "sequence"  #: the encodings of all tokens, without a head
    UNKNOWN = "unknown"  #: a tensor downstream of the encoder that the rules do not cover
    NOT_THE_ENCODER = "not_the_encoder"  #: a tensor that does not depend on the encoder
    NO_BERT = "no_bert"  #: the graph does not contain a BERT


_KIND_OF_SELECTION = {
    TokenSelection.FLATTENED: InputKind.WHOLE_SEQUENCE,
    TokenSelection.LAST: InputKind.LAST,
    TokenSelection.MAX: InputKind.MAX,
    TokenSelection.MEAN: InputKind.MEAN,
    TokenSelection.SOME: InputKind.SOME,
    TokenSelection.SUM: InputKind.SUM,
}
# Operators between a classifier and an output of the graph.
_TAIL = operators_with(
    *(Effect.IDENTITY, Effect.CAST, Effect.RESHAPE, Effect.TRANSPOSE, Effect.SCALAR, Effect.SOFTMAX, Effect.LOSS)
) | with_aliases(*("SequenceMask", "SliceChannel", "broadcast_add", "elemwise_add", "sigmoid", "slice", "slice_axis"))


@dataclass(frozen=True)
class ClassifierReport:
    """What the classifier before one output of the graph reads, or what a graph without a head ends in."""

    output: Output  #: of the graph
    classifier: Node | None  #: the last FullyConnected before the output; None without a head
    reads: Output  #: input of the classifier before dropout; without a classifier, the output
    kind: InputKind
    trace: Trace | None  #: of `reads`, flattened as the classifier does it, with the axes before; None if unknown
    output_trace: Trace | None
    encoder: DetectedEncoder | None
    reads_encoder_output: bool  #: whether `reads` depends on the output of the last layer
    nodes: tuple[Node, ...]  #: from the encoder to the output

    @property
    def num_outputs(self) -> int | None:
        """Outputs of the classifier, for each text or token."""
        return integer(self.classifier.attrs, "num_hidden", 0) if self.classifier else None

    @property
    def position(self) -> int | None:
        """Position of the token that is read, if it is one; counted from the end where it is negative."""
        return self.trace.position if self.trace else None

    @property
    def steps(self) -> tuple[Step, ...]:
        """Layers and functions between the encoder and `reads`, without factors and summands."""
        return significant_steps(self.trace.steps) if self.trace else ()

    @property
    def shape(self) -> Axes | None:
        """Shape of `reads`; the free axes are N and T."""
        if self.trace is None:
            return None
        length = self.trace.length or (self.encoder.length if self.encoder else None)
        return tuple(length or axis if axis == LENGTH else axis for axis in self.trace.axes)

    @property
    def locked_length(self) -> int | None:
        """The only sequence length that the weights and operators between encoder and classifier accept."""
        return self.trace.length if self.trace else None


def significant_steps(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Leave out the steps that only scale, shift or add."""
    return tuple(step for step in steps if step.kind not in (StepKind.SCALE, StepKind.COMBINE))


@dataclass(frozen=True)
class _Context:
    """A graph, its encoder and what is known about its tensors."""

    graph: SymbolGraph
    encoder: DetectedEncoder | None
    traces: Traces
    shapes: Mapping[str, tuple[int, ...]]  #: of parameters

    @functools.cached_property
    def encoder_nodes(self) -> Set[Node]:
        """The nodes of the encoder and their ancestors."""
        return self.graph.ancestors(self.encoder.output.node) if self.encoder else set()

    @functools.cached_property
    def from_tokens(self) -> Set[Node]:
        """The nodes whose elements depend on the token embedding."""
        return value_descendants(self.graph.nodes, self.encoder.token_embedding) if self.encoder else set()

    @functools.cached_property
    def downstream(self) -> Set[Node]:
        """The nodes whose elements depend on the encoder's output."""
        return value_descendants(self.graph.nodes, self.encoder.output.node) if self.encoder else set()


def report_classifiers(
    graph: SymbolGraph,
    encoder: DetectedEncoder | None,
    traces: Traces,
    shapes: Mapping[str, tuple[int, ...]],
) -> list[ClassifierReport]:
    """Report on each classifier of the graph, and on each output without one.

    `traces` are those of `token_flow.trace_tokens`, `shapes` those of the parameters, as far as they are known.
    """
    found: dict[Output | Node, ClassifierReport] = {}
    context = _Context(graph, encoder, traces, shapes)
    for output in graph.outputs:
        classifier = _find_classifier(context, output)
        key = classifier or output
        if key not in found:
            found[key] = _report(context, output, classifier)
    return list(found.values())


def _find_classifier(context: _Context, output: Output) -> Node | None:
    """Find the last FullyConnected before an output, followed only by reshapes, activations and losses."""
    encoder, node = context.encoder, output.node
    while node not in context.encoder_nodes:
        if node.op == "FullyConnected":
            return node
        if not node.inputs or any(entry.node in context.from_tokens for entry in node.inputs[1:]):
            return None
        source = node.inputs[0].node
        if node.op == "Activation":
            # tanh of as many units as the encoder has is a pooler, not the end of a classifier.
            width = integer(source.attrs, "num_hidden", 0)
            if source.op != "FullyConnected" or encoder is None or width == encoder.units:
                return None
        elif node.op not in _TAIL:
            return None
        node = source
    return None


def _report(context: _Context, output: Output, classifier: Node | None) -> ClassifierReport:
    encoder = context.encoder
    read = classifier.inputs[0] if classifier else output
    while classifier and read.node.op in with_aliases("Dropout", "_copy"):
        read = read.node.inputs[0]
    trace = context.traces.get(read)
    if classifier and trace and encoder:
        flat = trace_dense_input(classifier, trace, encoder, context.shapes.get(classifier.inputs[1].node.name))
        trace = dataclasses.replace(flat, axes=trace.axes) if flat is not None else None
    return ClassifierReport(
        output=output,
        classifier=classifier,
        reads=read,
        kind=_input_kind(context, read, classifier, trace),
        trace=trace,
        output_trace=context.traces.get(output),
        encoder=encoder,
        reads_encoder_output=read.node in context.downstream,
        nodes=_nodes_to_output(context, read, output),
    )


def _input_kind(context: _Context, read: Output, classifier: Node | None, trace: Trace | None) -> InputKind:
    if context.encoder is None:
        return InputKind.NO_BERT
    if trace is None:
        return InputKind.UNKNOWN if read.node in context.from_tokens else InputKind.NOT_THE_ENCODER
    if trace.is_cls:
        pooler = (dense_step(context.encoder.units or 0), function_step("tanh"))
        is_head = read.node.name.startswith(HEAD_TRANSFORM)  # a layer of the head, with the operators of a pooler
        return InputKind.POOLED if trace.steps == pooler and not is_head else InputKind.CLS
    if trace.selection is TokenSelection.POSITION:
        return InputKind.POSITION
    if trace.selection is TokenSelection.ALL:
        return InputKind.SEQUENCE if classifier is None else InputKind.TOKENS
    return _KIND_OF_SELECTION[trace.selection]


def _nodes_to_output(context: _Context, read: Output, output: Output) -> tuple[Node, ...]:
    """The nodes from the encoder, or from `read` if it does not depend on the encoder, to the output."""
    encoder, graph = context.encoder, context.graph
    nodes = graph.between(encoder.output.node, output.node) if encoder is not None else []
    return tuple(nodes or graph.between(read.node, output.node))
