"""Detect the trained head of a graph by its layers: what it reads, and which function its outputs end in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bertsym.analysis.classifier_report import ClassifierReport, InputKind
from bertsym.analysis.detected_encoder import DetectedEncoder
from bertsym.analysis.trace import Step, dense_step, function_step
from bertsym.encoders.config import ACTIVATIONS
from bertsym.errors import ModelError
from bertsym.families import FAMILIES, text_head
from bertsym.symbol.attributes import flag, integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output
from bertsym.symbol.operator_traits import Effect, decimal_of, operators_with, with_aliases

_PASSING = operators_with(Effect.IDENTITY, Effect.CAST, Effect.RESHAPE) | {"squeeze", "expand_dims"}
_SPLITS = with_aliases("SliceChannel") | {"slice_axis", "slice"}
_SIGMOID = "sigmoid"
#: operator at the end of a head -> what it applies; LinearRegressionOutput and MAERegressionOutput pass values on
_FUNCTIONS = {
    **dict.fromkeys(("softmax", "SoftmaxActivation", *with_aliases("SoftmaxOutput")), "softmax"),
    "log_softmax": "log_softmax",
    **dict.fromkeys((_SIGMOID, "LogisticRegressionOutput"), _SIGMOID),
    **dict.fromkeys(("LinearRegressionOutput", "MAERegressionOutput"), "value"),
}
_NORM = "LayerNorm"
_READABLE = "a head of a bundle reads the encoding of [CLS], the pooler, the mean over the valid tokens, or each token"


@dataclass(frozen=True)
class Layer:
    """A dense layer before the last one, with its activation and the dropout before it."""

    dense: Node
    activation: str  #: one of ``config.ACTIVATIONS``, or ``tanh``
    dropout: float


@dataclass(frozen=True)
class DetectedHead:
    """A head on the encoder of a graph."""

    last: Node  #: its last FullyConnected
    reads: str  #: a key of ``encoders.catalogue.OUTPUTS``
    length: int | None  #: the only length of a head that reads all tokens at once
    pooler: Node | None  #: the FullyConnected of the pooler
    transform: Layer | None  #: another layer before the last one
    dropout: float  #: before the last layer
    function: str | None  #: ``softmax``, ``log_softmax``, ``sigmoid``, ``value`` of a regression; None: logits
    splits: bool  #: whether there is an output each for the start and the end of an answer
    norm: Node | None = None  #: LayerNorm before the last layer, whose weight is then that of the token embedding

    @property
    def num_outputs(self) -> int:
        """Outputs for each text or token."""
        return integer(self.last.attrs, "num_hidden", 0)

    @property
    def reads_tokens(self) -> bool:
        """Whether it reads each token by itself."""
        return self.reads == "sequence" and self.length is None


def detect_head(graph: SymbolGraph, reports: Sequence[ClassifierReport]) -> DetectedHead | None:
    """Detect the head of a graph; None if the graph ends in a tensor of the encoder without a dense layer.

    `reports` are those of `report_classifiers`. Raises ModelError, naming the node, for several heads and for a head
    that no bundle can have.
    """
    if len(reports) > 1:
        names = ", ".join(str(output) for output in graph.outputs)
        raise ModelError(
            f"has the outputs {names}, but predict needs a single output: select it with bertsym extract --output"
        )
    (report,) = reports
    encoder, last = report.encoder, report.classifier
    if last is None or encoder is None:
        return None
    if last.inputs[1].node is encoder.token_embedding.inputs[1].node:
        return _masked_lm(graph, report, encoder)
    functions = {_function(output, last) for output in graph.outputs}
    splits = len(graph.outputs) == 2
    if len(graph.outputs) > 2 or len(functions) > 1 or (splits and integer(last.attrs, "num_hidden", 0) != 2):
        raise ModelError(f"the {len(graph.outputs)} outputs of {last.name} are not those of one head")
    layers = dense_layers(last.inputs[0], encoder)
    drops = _dropout_by_reader(last, encoder)
    pairs = _activated_layers(report, encoder)
    reads, length = _what_is_read(report, encoder)
    if len(pairs) != len(layers):
        raise ModelError(f"{last.name} reads {report.reads}, whose layers are not a sequence")
    pooler = transform = None
    if pairs and pairs[0] == "tanh" and reads == "cls" and (len(pairs) == 2 or not _is_transform(encoder)):
        reads, pooler = "pooled", layers[0]
        pairs, layers = pairs[1:], layers[1:]
    if len(pairs) > 1 or (pairs and length is not None):
        raise ModelError(f"{last.name} has {len(pairs)} layers before it; a head of a bundle has at most one")
    if pairs:
        transform = Layer(layers[0], pairs[0], drops.get(layers[0], 0.0))
    return DetectedHead(last, reads, length, pooler, transform, drops.get(last, 0.0), next(iter(functions)), splits)


def _masked_lm(graph: SymbolGraph, report: ClassifierReport, encoder: DetectedEncoder) -> DetectedHead:
    """The head for masked language modelling (Devlin et al. 2018): a layer, LayerNorm, products with the embedding."""
    last, norm, trace = report.classifier, report.reads.node, report.trace
    assert last is not None
    described = f"{last.name}, whose weight is the token embedding, is not the end of a masked language model: it"
    reads_norm = norm.op == _NORM and report.steps[-1:] == (function_step(_NORM),)
    if trace is None or report.kind is not InputKind.TOKENS or not reads_norm:
        raise ModelError(f"{described} reads {report.reads} ({norm.op}), not a LayerNorm of each token")
    if graph.outputs != [Output(last)] or len(last.inputs) < 3:
        raise ModelError(f"{described} has no bias, or is not the output of the graph")
    layers = dense_layers(report.reads, encoder)
    before = dataclasses.replace(report, trace=dataclasses.replace(trace, steps=report.steps[:-1]))
    activations = _activated_layers(before, encoder)
    if len(layers) != 1 or len(activations) != 1:
        raise ModelError(f"{described} has {len(layers)} layers before it, instead of one")
    transform = Layer(layers[0], activations[0], 0.0)
    return DetectedHead(last, "sequence", None, None, transform, 0.0, None, splits=False, norm=norm)


def _function(output: Output, last: Node) -> str | None:
    """What is applied between the last layer and an output."""
    found = None
    node = output.node
    while node is not last:
        is_sigmoid = node.op == "Activation" and node.attrs.get("act_type") == _SIGMOID
        name = _SIGMOID if is_sigmoid else _FUNCTIONS.get(node.op)
        if name is None and node.op not in _PASSING | _SPLITS:
            raise ModelError(
                f"node {node.name} ({node.op}) follows the last layer {last.name}, which a bundle does not support"
            )
        if name is not None and found is not None:
            raise ModelError(
                f"node {node.name} ({node.op}): {found} follows it, but a bundle can have only one of the two"
            )
        found = name or found
        node = node.inputs[0].node
    return found


def dense_layers(output: Output, encoder: DetectedEncoder) -> list[Node]:
    """List the FullyConnecteds between the encoder and an output, the first one first."""
    return [node for node in _upstream(output, encoder) if node.op == "FullyConnected"][::-1]


def _upstream(output: Output, encoder: DetectedEncoder) -> Iterator[Node]:
    """Yield the nodes between the encoder and an output, the nearest first, by what they compute from."""
    node = output.node
    while node is not encoder.output.node and node.inputs:
        yield node
        node = node.inputs[0].node


def _dropout_by_reader(last: Node, encoder: DetectedEncoder) -> dict[Node, float]:
    """Each dense layer -> the probability of the Dropout before it."""
    found: dict[Node, float] = {}
    reader = last
    for node in _upstream(last.inputs[0], encoder):
        if node.op == "Dropout":
            found[reader] = decimal_of(node, "p")
        elif node.op == "FullyConnected":
            reader = node
    return found


def _activated_layers(report: ClassifierReport, encoder: DetectedEncoder) -> list[str]:
    """The activations of the dense layers between the encoder and the last layer, in their order."""
    known = ("tanh", *ACTIVATIONS)
    steps = report.steps
    pairs = list(zip(steps[::2], steps[1::2]))
    for dense, function in pairs:
        if dense != dense_step(encoder.units or 0) or function not in map(function_step, known):
            raise _unlike(report, (dense, function))
    if len(steps) % 2:
        raise _unlike(report, steps[-1:])
    return [function.function for _, function in pairs]


def _unlike(report: ClassifierReport, steps: Sequence[Step]) -> ModelError:
    name = report.classifier.name if report.classifier else ""
    described = " and ".join(
        f"Dense({step.units})" if step.units else step.function or step.kind.name for step in steps
    )
    return ModelError(
        f"{name} reads {report.reads} after {described}; a head of a bundle has layers of the encoder's width with "
        f"{', '.join(('tanh', *ACTIVATIONS))}"
    )


def _what_is_read(report: ClassifierReport, encoder: DetectedEncoder) -> tuple[str, int | None]:
    """The encoder's output under all layers of the head, and the only length if all tokens are read at once."""
    trace, kind = report.trace, report.kind
    assert report.classifier is not None
    # Without valid_length there is no padding.
    ignores_padding = encoder.valid_length is None or (trace is not None and (trace.masked or trace.counted))
    if kind in (InputKind.CLS, InputKind.POOLED):
        return "cls", None
    if kind is InputKind.MEAN and ignores_padding and trace is not None and not trace.steps_per_token:
        return "mean", None
    if kind is InputKind.TOKENS and not flag(report.classifier.attrs, "flatten", True):
        return "sequence", None
    if kind is InputKind.WHOLE_SEQUENCE and ignores_padding and report.locked_length:
        return "sequence", report.locked_length
    what = kind.value.replace("_", " ")
    raise ModelError(f"{report.classifier.name} reads {report.reads} ({what}): {_READABLE}")


def _is_transform(encoder: DetectedEncoder) -> bool:
    """Whether a dense layer with tanh on [CLS] is a layer of the head in this family, which has no pooler."""
    head = text_head(FAMILIES[encoder.family])
    return head.has_transform and head.activation == "tanh"
