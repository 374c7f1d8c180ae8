"""Bounds checks that MXNet omits: a graph that violates one would access memory out of bounds.

They compare shapes that MXNet inferred. `symbol.shape_inference` checks the graphs of a BERT's bundle when it is
opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from bertsym.errors import ModelError
from bertsym.execution.engines import Shape
from bertsym.symbol.attributes import integer
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output

# From an operator, the shapes of its inputs and, where known, that of its output to a description of the fault.
_Rule = Callable[[Node, Sequence[Shape], "Shape | None"], "str | None"]


def check_tensors(graph: SymbolGraph, known: Mapping[Output, Shape], where: str) -> None:
    """Raise ModelError, naming `where` and the node, for shapes that don't fit; unknown shapes are not checked."""
    for node in graph.nodes:
        rule = RULES.get(node.op)
        shapes = [known[entry] for entry in node.inputs if entry in known]
        fault = rule(node, shapes, known.get(Output(node))) if rule and len(shapes) == len(node.inputs) else None
        if fault:
            raise ModelError(f"{where}: {node.name} {fault}")


def _reshape(_: Node, inputs: Sequence[Shape], output: Shape | None) -> str | None:
    if output is None or math.prod(inputs[0]) != math.prod(output):
        return f"can't reshape {inputs[0]}" + (f" into {output}" if output else "")
    return None


def _where(_: Node, inputs: Sequence[Shape], _output: Shape | None) -> str | None:
    condition, chosen = inputs[:2]
    return None if condition in (chosen, chosen[:1]) else f"can't choose among {chosen} by {condition}"


def _unravel(_: Node, inputs: Sequence[Shape], _output: Shape | None) -> str | None:
    return None if len(inputs[0]) == 1 else f"can't read numbers of the shape {inputs[0]}: MXNet takes one axis only"


def _heads(parts: int) -> _Rule:
    """The rule of an attention operator whose first input interleaves `parts` projections of each head."""

    def rule(node: Node, inputs: Sequence[Shape], _output: Shape | None) -> str | None:
        heads = integer(node.attrs, "heads", 1)
        _, batch, width = inputs[0]
        rows = inputs[1][0] if node.op.endswith("valatt") else batch * heads
        fits = width % (parts * heads) == 0 and rows == batch * heads
        return None if fits else f"can't have {heads} heads with inputs of {', '.join(map(str, inputs))}"

    return rule


RULES: Mapping[str, _Rule] = {
    "Reshape": _reshape,
    "_contrib_interleaved_matmul_encdec_qk": _heads(1),
    "_contrib_interleaved_matmul_encdec_valatt": _heads(2),
    "_contrib_interleaved_matmul_selfatt_qk": _heads(3),
    "_contrib_interleaved_matmul_selfatt_valatt": _heads(3),
    "_unravel_index": _unravel,
    "reshape": _reshape,
    "unravel_index": _unravel,
    "where": _where,
}
