"""Weighted and smoothed cross entropy beside SoftmaxOutput, as torch.nn.CrossEntropyLoss computes it."""

from __future__ import annotations

from collections.abc import Sequence

from bertsym.encoders.catalogue import CLASS_LOSS
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output


def replace_softmax_loss(
    graph: SymbolGraph, num_classes: int, weights: Sequence[float], smoothing: float, *, divides: bool
) -> int:
    """Replace the loss at the end of a training graph, the SoftmaxOutput ``softmax``, with another one, in place.

    The loss of a row is ``-sum_c w_c q_c log p_c``, where q is 1 - `smoothing` at the label, plus `smoothing` / C
    everywhere. `weights` w are those of the classes; empty: all 1. The graph then has two outputs: the probabilities,
    ``softmax`` (N, C), without a gradient, and the loss of each row, ``loss`` (N,).

    MXNet's optimizers divide the gradient by the number of rows. With `divides`, the losses are divided by the mean
    weight of the labels, so that the optimizer sees the gradient of the weighted mean. Returns 1, the number of losses.

    SoftmaxOutput's own smooth_alpha spreads over the other classes only, and it has no weights.
    """
    (end,) = graph.outputs
    logits, label = end.node.inputs
    spread = smoothing / num_classes

    def one_hot(name: str, on: float, off: float) -> Node:
        """(N, C): `on` at the label, `off` elsewhere, times the weights."""
        attrs = {"depth": str(num_classes), "on_value": repr(on), "off_value": repr(off)}
        node = graph.add("one_hot", name, [label], attrs)
        if not weights:
            return node
        parts = []
        for i, weight in enumerate(weights):
            ends = {"axis": "1", "begin": str(i), "end": str(i + 1)}
            part = graph.add("slice_axis", f"{name}-class{i}", [node], ends)
            parts.append(graph.add("_mul_scalar", f"{name}-weighted{i}", [part], {"scalar": repr(weight)}))
        return graph.add("Concat", f"{name}-weighted", parts, {"dim": "1", "num_args": str(len(parts))})

    with graph.edit():
        logs = graph.add("log_softmax", "loss-log-probabilities", [logits], {"axis": "-1"})
        targets = one_hot("loss-targets", 1 - smoothing + spread, spread)
        products = graph.add("elemwise_mul", "loss-products", [targets, logs])
        loss = graph.add("sum", "loss-sums", [products], {"axis": "1"})
        loss = graph.add("_mul_scalar", "loss-rows", [loss], {"scalar": "-1.0"})
        if weights and divides:
            weight = graph.add("sum", "loss-weights", [one_hot("loss-labels", 1.0, 0.0)], {"axis": "1"})
            weight = graph.add("mean", "loss-mean-weight", [weight], {"axis": "0", "keepdims": "True"})
            loss = graph.add("broadcast_div", "loss-divided", [loss, weight])
        # It stays for the probabilities, and because MXNet infers the shape of the label from it alone: it comes first.
        graph.set_attribute(end.node, "grad_scale", "0.0")
        graph.set_outputs([end, Output(graph.add("MakeLoss", CLASS_LOSS, [loss]))])
    return 1
