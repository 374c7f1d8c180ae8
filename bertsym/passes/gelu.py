"""Gelu in its two spellings: LeakyReLU's, and the one with erf, which every MXNet computes right."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bertsym.symbol.attributes import decimal
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node, Output, free_name

_PRODUCTS = ("elemwise_mul", "broadcast_mul")


@dataclass(frozen=True)
class Defect:
    """A node that a release of MXNet loads and computes wrong."""

    version: str
    node: str
    reason: str

    def loads_from(self, version: str) -> bool:
        """Whether the release is no older than a version, such as ``1.5.0``; an empty one is older than all."""
        return [int(part) for part in self.version.split(".")] >= [int(part) for part in version.split(".") if part]


def known_defects(graph: SymbolGraph) -> list[Defect]:
    """Nodes that a release of MXNet is known to compute wrong.

    LeakyReLU's gelu: 1.5.1 gives wrong gradients, 1.7.0 an approximation that is off by 4.8e-3 (oneDNN).
    """
    wrong = {"1.5.1": "gradients of LeakyReLU act_type=gelu", "1.7.0": "LeakyReLU act_type=gelu"}
    return [Defect(version, node.name, reason) for node in _of_one_operator(graph) for version, reason in wrong.items()]


def decompose_gelu(graph: SymbolGraph) -> None:
    """Write gelu as x/2 * (1 + erf(x / sqrt 2)), in place; the last node keeps its name."""
    with graph.edit():
        for node in _of_one_operator(graph):
            source = node.inputs[0]
            taken = {other.name for other in graph.nodes}
            names = {part: free_name(f"{node.name}_{part}", taken) for part in ("scaled", "erf", "plus", "half")}
            scaled = graph.add("_div_scalar", names["scaled"], [source], {"scalar": str(math.sqrt(2))})
            erf = graph.add("erf", names["erf"], [scaled])
            plus = graph.add("_plus_scalar", names["plus"], [erf], {"scalar": "1.0"})
            half = graph.add("_mul_scalar", names["half"], [source], {"scalar": "0.5"})
            graph.replace(node, "elemwise_mul")
            graph.set_inputs(node, [half, plus])


def fuse_gelu(graph: SymbolGraph) -> None:
    """Write x/2 * (1 + erf(x / sqrt 2)) as one operator, in place; the last node keeps its name."""
    with graph.edit():
        for node in graph.nodes:
            source = _spelt_out(node)
            if source is not None:
                graph.replace(node, "LeakyReLU", {"act_type": "gelu"})
                graph.set_inputs(node, [source])
        graph.cleanup()


def _of_one_operator(graph: SymbolGraph) -> list[Node]:
    return [node for node in graph.find(op="LeakyReLU") if node.attrs.get("act_type") == "gelu"]


def _spelt_out(node: Node) -> Output | None:
    """What a node is the gelu of; None when it is none."""
    if node.op not in _PRODUCTS:
        return None
    half, plus = sorted((entry.node for entry in node.inputs), key=lambda factor: factor.op)
    source = _scalar(half, "_mul_scalar", 0.5)
    erf = _scalar(plus, "_plus_scalar", 1.0)
    if source is None or erf is None or erf.node.op != "erf":
        return None
    scaled = _scalar(erf.node.inputs[0].node, "_div_scalar", math.sqrt(2))
    return source if scaled == source else None


def _scalar(node: Node, op: str, scalar: float) -> Output | None:
    """What a node adds or multiplies with a number; None when it is another node."""
    fits = node.op == op and math.isclose(decimal(node.attrs, "scalar", 0.0), scalar, rel_tol=1e-6)
    return node.inputs[0] if fits else None
