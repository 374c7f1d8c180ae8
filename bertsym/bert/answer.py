"""What reaches the classifier: the question that users of MXNet's Clojure BERT example could not answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertsym.bert.recognise import Recognised
from bertsym.bert.tracing import BATCH, LENGTH, Axes, Trace, Traces
from bertsym.symbol.attributes import flag, integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

#: kind of answer -> what it means
KINDS = {
    "cls": "the encoding of [CLS], position 0 of the sequence",
    "position": "the encoding of another position",
    "pooled": "the pooler, tanh(Dense) of [CLS]",
    "mean": "the mean over the tokens",
    "max": "the maximum over the tokens",
    "sum": "the sum over the tokens",
    "last": "the encoding of the last valid token",
    "some": "the encodings of a part of the tokens",
    "whole_sequence": "the whole sequence, flattened: the length is locked",
    "tokens": "every token by itself",
    "sequence": "the encodings of all tokens, with no head on them",
    "unknown": "something that is computed of the encoder, in a way that is not followed",
    "not_the_encoder": "nothing of the encoder",
    "no_bert": "there is no BERT in the graph",
}
# Operators between a classifier and an output of the graph.
_TAIL = frozenset(
    {"BlockGrad", "Cast", "Flatten", "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"}
    | {"MakeLoss", "Reshape", "SVMOutput", "SequenceMask", "SliceChannel", "Softmax", "SoftmaxActivation"}
    | {"SoftmaxOutput", "SwapAxis", "_copy", "_div_scalar", "_mul_scalar", "amp_cast", "broadcast_add", "elemwise_add"}
    | {"expand_dims", "identity", "log_softmax", "make_loss", "reshape", "sigmoid", "slice", "slice_axis", "softmax"}
    | {"split", "squeeze", "swapaxes", "transpose"}
)


@dataclass(frozen=True)
class Answer:
    """What the classifier before one output of the graph reads, or what a headless graph ends in."""

    output: str  #: name of the node that the graph ends in
    classifier: str | None  #: name of its last FullyConnected; None where there is no head
    num_outputs: int | None  #: values that the classifier gives, for each text or token
    reads: str  #: name of the node that the classifier reads, dropout aside
    kind: str  #: a key of KINDS
    position: int | None  #: of the one token that is read
    steps: tuple[str, ...]  #: layers and functions between the encoder and what is read
    shape: Axes | None  #: of what is read, free axes as N and T
    locked_length: int | None  #: the only length that the classifier's weight allows
    sentence: str
    nodes: tuple[Node, ...] = dataclasses.field(repr=False, compare=False)  #: from the encoder to the output

    def to_json(self) -> dict[str, Any]:
        """All but the nodes, for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "nodes": [node.name for node in self.nodes]}


def answers(
    graph: SymbolGraph,
    bert: Recognised | None,
    traces: Traces,
    shapes: Mapping[str, tuple[int, ...]],
) -> list[Answer]:
    """One answer for each classifier of the graph, and for each output that has none.

    `traces` are those of `tracing.trace`, `shapes` those of the parameters, as far as they are known.
    """
    found: dict[Output | Node, Answer] = {}
    for output in graph.outputs:
        classifier = _classifier(graph, output, bert)
        key = classifier or output
        if key not in found:
            found[key] = _answer(graph, output, classifier, bert, traces, shapes)
    return list(found.values())


def _classifier(graph: SymbolGraph, output: Output, bert: Recognised | None) -> Node | None:
    """The last FullyConnected before an output, with nothing but shapes and losses behind it."""
    encoder = graph.ancestors(bert.encoded.node) if bert else set()
    node = output.node
    while node not in encoder:
        if node.op == "FullyConnected":
            return node
        if node.op not in _TAIL or not node.inputs:
            return None
        node = node.inputs[0].node
    return None


def _answer(
    graph: SymbolGraph,
    output: Output,
    classifier: Node | None,
    bert: Recognised | None,
    traces: Traces,
    shapes: Mapping[str, tuple[int, ...]],
) -> Answer:
    read = classifier.inputs[0] if classifier else output
    while classifier and read.node.op in ("Dropout", "_copy", "identity"):
        read = read.node.inputs[0]
    trace = traces.get(read)
    kind, locked = _kind(graph, read, classifier, bert, trace), None
    length = bert.length if bert else None
    if kind == "whole_sequence" and classifier and trace and bert:
        locked = _locked_length(classifier, bert, shapes)
        length = locked or length
    axes = tuple(length or axis if axis == LENGTH else axis for axis in trace.axes) if trace else None
    answer = Answer(
        output=output.node.name,
        classifier=classifier.name if classifier else None,
        num_outputs=integer(classifier.attrs, "num_hidden", 0) if classifier else None,
        reads=str(read),
        kind=kind,
        position=trace.position if trace else None,
        steps=tuple(step for step in trace.steps if step not in ("scaled", "combined")) if trace else (),
        shape=axes,
        locked_length=locked,
        sentence="",
        nodes=_way(graph, bert, read, output),
    )
    what = _describe(answer, trace, bert)
    if classifier:
        return dataclasses.replace(answer, sentence=f"`{classifier.name}` reads `{read}`{what}")
    start = "no BERT in it, and no classifier" if bert is None else "no head"
    ends = f"{start}: ends in `{output}`"
    return dataclasses.replace(answer, sentence=f"{ends} ({output.node.op})" if bert is None else f"{ends}{what}")


def _kind(
    graph: SymbolGraph, read: Output, classifier: Node | None, bert: Recognised | None, trace: Trace | None
) -> str:
    if bert is None:
        return "no_bert"
    if trace is None:
        return "unknown" if bert.encoded.node in graph.ancestors(read.node) else "not_the_encoder"
    if trace.tokens == "position":
        if trace.position == 0 and trace.steps == (f"Dense({bert.units})", "tanh"):
            return "pooled"
        return "cls" if trace.position == 0 else "position"
    if trace.tokens == "flattened":
        return "whole_sequence"
    if trace.tokens == "all":
        if classifier is None:
            return "sequence"
        flattens = flag(classifier.attrs, "flatten", True) and len(trace.axes) > 2
        return "whole_sequence" if flattens else "tokens"
    return trace.tokens


def _locked_length(classifier: Node, bert: Recognised, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    weight = shapes.get(classifier.inputs[1].node.name, ())
    if len(weight) != 2 or not bert.units or weight[1] % bert.units:
        return None
    return weight[1] // bert.units


def _describe(answer: Answer, trace: Trace | None, bert: Recognised | None) -> str:
    """`` = what it is`` and what follows of it."""
    if answer.kind == "no_bert":
        return "; no BERT in the graph"
    if answer.kind == "not_the_encoder":
        return ", which does not come from the encoder"
    if trace is None or bert is None:
        return ": computed of the encoder's output in a way that is not followed here; see --path"
    valid = "valid tokens" if trace.masked else "tokens"
    token = {
        "position": "[CLS], position 0 of the sequence"
        if trace.position == 0
        else f"position {trace.position} of the sequence",
        "mean": f"the mean over the {valid}",
        "max": "the maximum over the tokens",
        "sum": f"the sum over the {valid}",
        "last": "the last valid token",
        "some": "a part of the tokens",
    }.get(trace.tokens, "the whole sequence")
    if answer.kind == "pooled":
        return f" = the pooler, tanh(Dense) of {token}: {_shape(answer.shape)}"
    text = " of ".join([*reversed(answer.steps), token])
    if answer.kind == "tokens":
        each = f"{answer.num_outputs} value{'s' if answer.num_outputs != 1 else ''} for each"
        return f" = {text} {_shape(answer.shape)}, every token by itself: {each}"
    if answer.kind == "whole_sequence":
        length = answer.locked_length or bert.length
        width = length * bert.units if length and bert.units else f"T x {bert.units}"
        shape = (BATCH, length or LENGTH, bert.units or "U")
        locked = f"length locked to {length}" if length else "length locked to the one of its weight"
        return f" = {text} {_shape(shape)}, flattened to {width}: {locked}"
    return f" = {text}: {_shape(answer.shape)}"


def _shape(axes: Axes | None) -> str:
    return "(?)" if axes is None else f"({', '.join(str(axis) for axis in axes)}{',' if len(axes) == 1 else ''})"


def _way(graph: SymbolGraph, bert: Recognised | None, read: Output, output: Output) -> tuple[Node, ...]:
    """The nodes on the way from the encoder, or from what is read, to the output."""
    if bert is not None:
        way = graph.between(bert.encoded.node, output.node)
        if way:
            return tuple(way)
    return tuple(graph.between(read.node, output.node))
