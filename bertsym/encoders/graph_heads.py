"""Graft heads onto any symbol graph, without mxnet, for training and for inference."""

from __future__ import annotations

from dataclasses import dataclass

from bertsym.encoders.catalogue import FULLY_CONNECTED, HEAD_TRANSFORM, LABEL_NAME, SOFTMAX
from bertsym.symbol.attributes import decimal
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

DROPOUT = "dropout-finetune"
REGRESSION, REGRESSION_LABEL = "regression", "regression_label"
SIGMOID, SIGMOID_LABEL = "sigmoid", "sigmoid_label"
SPANS = ("start", "end")  #: ends of an answer: names of the losses, prefixes of their labels
IGNORED = -1  #: label of a token that the loss ignores


@dataclass(frozen=True)
class HeadKind:
    """Inputs and outputs of a kind of head."""

    reads_tokens: bool  #: whether it reads (N, T, U) rather than (N, U)
    num_outputs: int | None  #: None where the user chooses it
    label_inputs: tuple[tuple[str, tuple[str, ...]], ...]  #: names and shapes of the labels in the training graph


HEADS = {
    "classification": HeadKind(False, None, ((LABEL_NAME, ("batch",)),)),
    "multilabel": HeadKind(False, None, ((SIGMOID_LABEL, ("batch", "outputs")),)),
    "regression": HeadKind(False, None, ((REGRESSION_LABEL, ("batch", "outputs")),)),
    "tagging": HeadKind(True, None, ((LABEL_NAME, ("batch", "length")),)),
    "qa": HeadKind(True, 2, tuple((f"{name}_label", ("batch",)) for name in SPANS)),
}


def loss_names(head: str) -> tuple[str, ...]:
    """Return the losses in which the training graph of a head ends."""
    return tuple(name.removesuffix("_label") for name, _ in HEADS[head].label_inputs)


def label_shapes(head: str, num_outputs: int | str) -> dict[str, tuple[int | str, ...]]:
    """Return the shapes of the labels of a head by name; the sizes ``batch`` and ``length`` are free."""
    return {
        name: tuple(num_outputs if size == "outputs" else size for size in shape)
        for name, shape in HEADS[head].label_inputs
    }


def graft_onto_graph(
    graph: SymbolGraph,
    at: Output,
    head: str,
    num_outputs: int,
    dropout: float,
    units: int | None,
    *,
    cls_slice: bool = False,
    time_major: bool = False,
) -> tuple[SymbolGraph, SymbolGraph, Output]:
    """Graft a head of HEADS onto the tensor `at`.

    Returns the graph for inference, the graph for training, and the tensor `at` in the graph for inference. The head is
    Dropout ``dropout-finetune`` -> FullyConnected ``fc-finetune`` (num_outputs), followed by

    - ``classification``: softmax ``softmax`` (N, C); in training SoftmaxOutput ``softmax``, label
      ``softmax_label`` (N,)
    - ``multilabel``: sigmoid ``sigmoid`` (N, C); in training LogisticRegressionOutput ``sigmoid``, label
      ``sigmoid_label`` (N, C)
    - ``regression``: the values (N, C); in training LinearRegressionOutput ``regression``, label ``regression_label``
      (N, C)
    - ``tagging``: softmax ``softmax`` (N, T, C); in training SoftmaxOutput ``softmax`` that ignores the label -1,
      label ``softmax_label`` (N, T)
    - ``qa``: the logits (N, T, 2) of start and end; in training SoftmaxOutputs ``start`` and ``end`` over the
      tokens, labels ``start_label`` and ``end_label`` (N,), each with half of its gradient: the loss is their mean

    With `cls_slice`, `at` is (N, T, units) and the head reads position 0; with `time_major`, `at` is
    (T, N, units) and transposed first. Raises UsageError for a name that is taken.
    """
    base, copies = graph.copied()
    place = end = Output(copies[at.node], at.index)
    if time_major:
        end = Output(base.add("transpose", f"{FULLY_CONNECTED}-batch-major", [end], {"axes": "(1, 0, 2)"}))
    if cls_slice:
        attrs = {"axis": "1", "begin": "0", "end": "1"}
        sliced = base.add("slice_axis", f"{FULLY_CONNECTED}-cls-slice", [end], attrs)
        end = Output(base.add("Reshape", f"{FULLY_CONNECTED}-cls", [sliced], {"shape": f"(-1, {units})"}))
    base.set_outputs([end])
    base.cleanup()
    dropped = base.add("Dropout", DROPOUT, [end], {"p": str(dropout)}, num_outputs=2)
    dense = {"num_hidden": str(num_outputs)}
    if HEADS[head].reads_tokens:
        dense = {"flatten": "False", **dense}
    weight, bias = (base.add_variable(f"{FULLY_CONNECTED}_{part}", dense) for part in ("weight", "bias"))
    logits = base.add("FullyConnected", FULLY_CONNECTED, [dropped, weight, bias], dense)
    base.set_outputs([logits])
    inference, copies = base.copied()
    if head in ("classification", "tagging"):
        axis = {"axis": "-1"} if head == "tagging" else {}
        inference.set_outputs([inference.add("softmax", SOFTMAX, inference.outputs, axis)])
    elif head == "multilabel":
        inference.set_outputs([inference.add("Activation", SIGMOID, inference.outputs, {"act_type": "sigmoid"})])
    return inference, _training(base, head), Output(copies[place.node], place.index)


def head_dropout(graph: SymbolGraph) -> float:
    """Return the dropout probability in the head of a bundle's graph; 0 without dropout."""
    dropouts = [node for node in graph.nodes if node.name == DROPOUT]
    return decimal(dropouts[0].attrs, "p", 0.5) if dropouts else 0.0


def before_transform(output: Output) -> Output:
    """What the layers of a head before its last one read, where `output` is their end; otherwise `output`."""
    while output.node.name.startswith(HEAD_TRANSFORM) and output.node.inputs:
        output = output.node.inputs[0]
    return output


def without_head(graph: SymbolGraph, *, keep_transform: bool = False) -> SymbolGraph:
    """A copy of a bundle's graph that ends in what its head reads; its last FullyConnected is that of the head.

    With `keep_transform`, the layers of the head before that one are kept.
    """
    copy = graph.copy()
    read = [node for node in copy.nodes if node.op == "FullyConnected"][-1].inputs[0]
    while read.node.op == "Dropout":
        read = read.node.inputs[0]
    copy.set_outputs([read if keep_transform else before_transform(read)])
    copy.cleanup()
    return copy


def add_cls_slice(graph: SymbolGraph, units: int) -> None:
    """Let a graph that ends in the sequence output, (N, T, units), end in the [CLS] token, (N, units)."""
    (sequence,) = graph.outputs
    attrs = {"axis": "1", "begin": "0", "end": "1"}
    sliced = graph.add("slice_axis", "cls_slice", [sequence], attrs)
    graph.set_outputs([graph.add("Reshape", "cls", [sliced], {"shape": f"(-1, {units})"})])
    graph.cleanup()


def _training(base: SymbolGraph, head: str) -> SymbolGraph:
    graph = base.copy()
    (logits,) = graph.outputs
    if head == "qa":
        # Split (N, T, 2) into two (N, T): each SoftmaxOutput then chooses among the tokens.
        attrs = {"axis": "2", "num_outputs": "2", "squeeze_axis": "True"}
        spans = graph.add("SliceChannel", "spans", [logits], attrs, num_outputs=2)
        half = {"grad_scale": str(1 / len(SPANS))}
        losses = [_loss(graph, "SoftmaxOutput", name, Output(spans, i), half) for i, name in enumerate(SPANS)]
        graph.set_outputs(losses)
    elif head == "multilabel":
        graph.set_outputs([_loss(graph, "LogisticRegressionOutput", SIGMOID, logits)])
    elif head == "regression":
        graph.set_outputs([_loss(graph, "LinearRegressionOutput", REGRESSION, logits)])
    else:
        attrs = {}
        if head == "tagging":
            attrs = {"ignore_label": str(IGNORED), "preserve_shape": "True", "use_ignore": "True"}
        graph.set_outputs([_loss(graph, "SoftmaxOutput", SOFTMAX, logits, attrs)])
    return graph


def _loss(graph: SymbolGraph, op: str, name: str, logits: Output, attrs: dict[str, str] | None = None) -> Node:
    label = graph.add_variable(f"{name}_label", attrs)
    return graph.add(op, name, [logits, label], attrs)
