"""Gelu as one operator, LeakyReLU, or as a formula with erf, which every MXNet computes right."""

from __future__ import annotations

import math

from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name
from bertsym.symbol.operator_traits import Effect, decimal_of, operators_with

_PRODUCTS = operators_with(Effect.MULTIPLY)


def decompose_gelu(graph: SymbolGraph) -> int:
    """Replace each gelu operator with x/2 * (1 + erf(x / sqrt 2)), in place; the last node keeps the name."""
    nodes = [node for node in graph.find(op="LeakyReLU") if node.attrs.get("act_type") == "gelu"]
    with graph.edit():
        for node in nodes:
            source = node.inputs[0]
            taken = {other.name for other in graph.nodes}
            names = {part: free_name(f"{node.name}_{part}", taken) for part in ("scaled", "erf", "plus", "half")}
            scaled = graph.add("_div_scalar", names["scaled"], [source], {"scalar": str(math.sqrt(2))})
            erf = graph.add("erf", names["erf"], [scaled])
            plus = graph.add("_plus_scalar", names["plus"], [erf], {"scalar": "1.0"})
            half = graph.add("_mul_scalar", names["half"], [source], {"scalar": "0.5"})
            graph.replace(node, "elemwise_mul")
            graph.set_inputs(node, [half, plus])
    return len(nodes)


def fuse_gelu(graph: SymbolGraph) -> int:
    """Replace each x/2 * (1 + erf(x / sqrt 2)) with the gelu operator, in place; the last node keeps the name."""
    fused = 0
    with graph.edit():
        for node in graph.nodes:
            source = _decomposed_input(node)
            if source is not None:
                graph.replace(node, "LeakyReLU", {"act_type": "gelu"})
                graph.set_inputs(node, [source])
                fused += 1
        graph.cleanup()
    return fused


def _decomposed_input(node: Node) -> Output | None:
    """The x of a decomposed gelu that ends in `node`; None when it is something else."""
    if node.op not in _PRODUCTS:
        return None
    half, plus = sorted((entry.node for entry in node.inputs), key=lambda factor: factor.op)
    source = _scalar_operand(half, "_mul_scalar", 0.5)
    erf = _scalar_operand(plus, "_plus_scalar", 1.0)
    if source is None or erf is None or erf.node.op != "erf":
        return None
    scaled = _scalar_operand(erf.node.inputs[0].node, "_div_scalar", math.sqrt(2))
    return source if scaled == source else None


def _scalar_operand(node: Node, op: str, scalar: float) -> Output | None:
    """The input of a node that applies operator `op` with this scalar; None when it is another node."""
    fits = node.op == op and math.isclose(decimal_of(node, "scalar"), scalar, rel_tol=1e-6)
    return node.inputs[0] if fits else None
