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


# Release -> defects that bertsym's users meet, each with the way around it.
_RELEASE_DEFECTS = {
    "1.4": [("LeakyReLU has no act_type=gelu", "export or lower with --target-mxnet 1.4")],
    "1.5": [("gradients of LeakyReLU act_type=gelu are wrong", "export or lower with --target-mxnet 1.5")],
    "1.7": [("LeakyReLU act_type=gelu is off by 4.8e-3", "export or lower with --target-mxnet 1.7")],
    "1.9": [
        (
            "oneDNN fusion: a graph that outputs a FullyConnected and also its activation returns the "
            "FullyConnected's output for both",
            "set MXNET_SUBGRAPH_BACKEND=NONE in your own programs; bertsym sets it where needed",
        ),
        (
            "oneDNN fusion: FullyConnected keeps its first weights after set_params",
            "bind again in your own programs, as bertsym does",
        ),
    ],
}


def release_defects(version: str) -> list[tuple[str, str]]:
    """Return the known defects of an MXNet, such as ``1.9.1``: what it does wrong, and the way around it."""
    return _RELEASE_DEFECTS.get(".".join(version.split(".")[:2]), [])
