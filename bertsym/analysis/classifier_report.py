"""What reaches the classifier: the question that users of MXNet's Clojure BERT example could not answer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from bertsym.analysis.encoder_detection import DetectedEncoder
from bertsym.analysis.symbolic_shapes import BATCH, LENGTH, Axes
from bertsym.analysis.token_flow import Traces, dependents
from bertsym.analysis.token_flow_rules import COMBINED, SCALED, Trace, read_by
from bertsym.symbol.attributes import integer
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
    | {"SoftmaxOutput", "SwapAxis", "_copy", "_div_scalar", "_minus_scalar", "_mul_scalar", "_plus_scalar"}
    | {"amp_cast", "broadcast_add", "cast", "elemwise_add", "expand_dims", "flatten", "identity", "log_softmax"}
    | {"make_loss", "reshape", "sigmoid", "slice", "slice_axis", "softmax", "split", "squeeze", "swapaxes"}
    | {"transpose"}
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
    locked_length: int | None  #: the only length that the weights and operators on the way allow
    sentence: str
    read: Output = dataclasses.field(repr=False, compare=False)  #: what `reads` names
    head: Node | None = dataclasses.field(repr=False, compare=False)  #: what `classifier` names
    nodes: tuple[Node, ...] = dataclasses.field(repr=False, compare=False)  #: from the encoder to the output

    def to_json(self) -> dict[str, Any]:
        """All of it for JSON, nodes by their names."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["read"], values["head"]
        return {**values, "nodes": [node.name for node in self.nodes]}


@dataclass(frozen=True)
class _Scene:
    """A graph and its encoder, and what is asked of them for each output."""

    graph: SymbolGraph
    encoder: DetectedEncoder | None

    @functools.cached_property
    def encoder_nodes(self) -> Set[Node]:
        """The nodes that the encoder's output depends on, and its own."""
        return self.graph.ancestors(self.encoder.output.node) if self.encoder else set()

    @functools.cached_property
    def behind_words(self) -> Set[Node]:
        """The nodes whose values depend on the embeddings of words."""
        return dependents(self.graph, self.encoder.token_embedding) if self.encoder else set()

    @functools.cached_property
    def behind_encoder(self) -> Set[Node]:
        """The nodes whose values depend on the encoder's output."""
        return dependents(self.graph, self.encoder.output.node) if self.encoder else set()


def answers(
    graph: SymbolGraph,
    encoder: DetectedEncoder | None,
    traces: Traces,
    shapes: Mapping[str, tuple[int, ...]],
) -> list[Answer]:
    """One answer for each classifier of the graph, and for each output that has none.

    `traces` are those of `token_flow.trace`, `shapes` those of the parameters, as far as they are known.
    """
    found: dict[Output | Node, Answer] = {}
    scene = _Scene(graph, encoder)
    for output in graph.outputs:
        classifier = _classifier(scene, output)
        key = classifier or output
        if key not in found:
            found[key] = _answer(scene, output, classifier, traces, shapes)
    return list(found.values())


def _classifier(scene: _Scene, output: Output) -> Node | None:
    """The last FullyConnected before an output, with nothing but shapes and losses behind it."""
    encoder, node = scene.encoder, output.node
    while node not in scene.encoder_nodes:
        if node.op == "FullyConnected":
            return node
        if not node.inputs or any(entry.node in scene.behind_words for entry in node.inputs[1:]):
            return None
        source = node.inputs[0].node
        if node.op == "Activation":
            # tanh of as many values as the encoder has is a pooler, and no end of a classifier.
            width = integer(source.attrs, "num_hidden", 0)
            if source.op != "FullyConnected" or encoder is None or width == encoder.units:
                return None
        elif node.op not in _TAIL:
            return None
        node = source
    return None


def _answer(
    scene: _Scene,
    output: Output,
    classifier: Node | None,
    traces: Traces,
    shapes: Mapping[str, tuple[int, ...]],
) -> Answer:
    encoder = scene.encoder
    read = classifier.inputs[0] if classifier else output
    while classifier and read.node.op in ("Dropout", "_copy", "identity"):
        read = read.node.inputs[0]
    trace = traces.get(read)
    if classifier and trace and encoder:
        # Flattened as the classifier does it, to tell what that means; the shape told is the one before.
        flat = read_by(classifier, trace, encoder, shapes.get(classifier.inputs[1].node.name))
        trace = dataclasses.replace(flat, axes=trace.axes) if flat is not None else None
    length = (trace.length if trace else None) or (encoder.length if encoder else None)
    answer = Answer(
        output=output.node.name,
        classifier=classifier.name if classifier else None,
        num_outputs=integer(classifier.attrs, "num_hidden", 0) if classifier else None,
        reads=str(read),
        kind=_kind(scene, read, classifier, trace),
        position=trace.position if trace else None,
        steps=_visible(trace.steps) if trace else (),
        shape=_with_length(trace.axes, length) if trace else None,
        locked_length=trace.length if trace else None,
        sentence="",
        read=read,
        head=classifier,
        nodes=_way(scene, read, output),
    )
    if encoder is None:
        start = "no BERT in it, and no classifier: ends in" if classifier is None else f"`{classifier.name}` reads"
        what = f" ({read.node.op})" if classifier is None else "; no BERT in the graph"
        return dataclasses.replace(answer, sentence=f"{start} `{read}`{what}")
    start = "no head: ends in" if classifier is None else f"`{classifier.name}` reads"
    what = _describe(scene, answer, trace, encoder) + _kept(answer, traces.get(output))
    return dataclasses.replace(answer, sentence=f"{start} `{read}`{what}")


def _visible(steps: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(step for step in steps if step not in (SCALED, COMBINED))


def _with_length(axes: Axes, length: int | None) -> Axes:
    return tuple(length or axis if axis == LENGTH else axis for axis in axes)


def _kind(scene: _Scene, read: Output, classifier: Node | None, trace: Trace | None) -> str:
    if scene.encoder is None:
        return "no_bert"
    if trace is None:
        return "unknown" if read.node in scene.behind_words else "not_the_encoder"
    if trace.tokens == "position":
        if trace.position == 0 and trace.steps == (f"Dense({scene.encoder.units})", "tanh"):
            return "pooled"
        return "cls" if trace.position == 0 else "position"
    if trace.tokens == "flattened":
        return "whole_sequence"
    if trace.tokens == "all":
        return "sequence" if classifier is None else "tokens"
    return trace.tokens


def _describe(scene: _Scene, answer: Answer, trace: Trace | None, encoder: DetectedEncoder) -> str:
    """`` = what it is`` and what follows of it."""
    if answer.kind == "not_the_encoder":
        return ", which does not come from the encoder"
    if trace is None:
        if answer.read.node in scene.behind_encoder:
            return ": computed of the encoder's output in a way that is not followed here; see --path"
        return ": computed of the embeddings or of an inner layer, not of the encoder's output"
    token = _tokens(trace)
    locked = f": length locked to {answer.locked_length}" if answer.locked_length else ""
    if answer.kind == "pooled":
        return f" = the pooler, tanh(Dense) of {token}: {_shape(answer.shape)}{locked}"
    before, after = _visible(trace.steps[: trace.of_each]), _visible(trace.steps[trace.of_each :])
    text = " of ".join([*reversed(after), token, *reversed(before)])
    if answer.kind == "tokens":
        each = f"{answer.num_outputs} value{'s' if answer.num_outputs != 1 else ''} for each"
        return f" = {text} {_shape(answer.shape)}, every token by itself: {each}"
    if answer.kind == "whole_sequence":
        length = answer.locked_length or encoder.length
        width = trace.width or encoder.units
        flat = length * width if length and width else f"T x {width or 'U'}"
        locked = f"length locked to {length}" if length else "length locked to the one of its weight"
        return f" = {text} {_shape((BATCH, length or LENGTH, width or 'U'))}, flattened to {flat}: {locked}"
    return f" = {text}: {_shape(answer.shape)}{locked}"


def _tokens(trace: Trace) -> str:
    """Of which tokens a tensor is."""
    if trace.tokens == "position":
        if trace.position == 0:
            return "[CLS], position 0 of the sequence"
        if trace.position is not None and trace.position < 0:
            return f"position {trace.position}, counted from the end of the sequence"
        return f"position {trace.position} of the sequence"
    scaled = "scaled " if SCALED in trace.steps else ""
    zeroed = "the tokens, zeroed at padding" if trace.masked else "the tokens"
    return {
        "last": "the last valid token",
        "max": f"the maximum over {zeroed}",
        "mean": "the mean over the valid tokens" if trace.counted else f"the mean over {zeroed}",
        "some": "a part of the tokens",
        "sum": f"the {scaled}sum over the {'valid tokens' if trace.masked else 'tokens'}",
    }.get(trace.tokens, "the whole sequence")


def _kept(answer: Answer, end: Trace | None) -> str:
    """Which of the tokens that a classifier reads by themselves get to the output, where not all of them do."""
    if answer.kind != "tokens" or end is None or end.tokens in ("all", "flattened"):
        return ""
    token = "[CLS], position 0," if end.tokens == "position" and end.position == 0 else _tokens(end)
    return f", of which those of {token} are kept"


def _shape(axes: Axes | None) -> str:
    return "(?)" if axes is None else f"({', '.join(str(axis) for axis in axes)}{',' if len(axes) == 1 else ''})"


def _way(scene: _Scene, read: Output, output: Output) -> tuple[Node, ...]:
    """The nodes on the way from the encoder, or from what is read, to the output."""
    way = scene.graph.between(scene.encoder.output.node, output.node) if scene.encoder is not None else []
    return tuple(way or scene.graph.between(read.node, output.node))
