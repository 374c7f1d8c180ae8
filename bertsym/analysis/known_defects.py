"""Operators that a release of MXNet loads but computes wrong."""

from __future__ import annotations

from dataclasses import dataclass

from bertsym.symbol.graph import SymbolGraph

# LeakyReLU's gelu: 1.5.1 takes wrong gradients; 1.7.0 (oneDNN) approximates it with an error of 4.8e-3.
_GELU_DEFECTS = {"1.5.1": "gradients of LeakyReLU act_type=gelu", "1.7.0": "LeakyReLU act_type=gelu"}


@dataclass(frozen=True)
class Defect:
    """A node that a release of MXNet loads but computes wrong."""

    version: str
    node: str
    reason: str

    def loads_from(self, version: str) -> bool:
        """Whether the release is at least `version`, such as ``1.5.0``; an empty version is older than all others."""
        return [int(part) for part in self.version.split(".")] >= [int(part) for part in version.split(".") if part]


def known_defects(graph: SymbolGraph) -> list[Defect]:
    """Find the nodes that a release of MXNet is known to compute wrong."""
    return [
        Defect(version, node.name, reason)
        for node in graph.find(op="LeakyReLU")
        if node.attrs.get("act_type") == "gelu"
        for version, reason in _GELU_DEFECTS.items()
    ]
