"""Rewrite operators outside the encoder that an MXNet release does not load or computes wrong."""

from __future__ import annotations

from bertsym.encoders.forms import TARGETS, Form
from bertsym.errors import ModelError
from bertsym.passes.gelu import decompose_gelu
from bertsym.symbol.graph import SymbolGraph
from bertsym.symbol.node import Node
from bertsym.symbol.operator_versions import oldest_mxnet

_OLDEST = TARGETS["1.4"].release
# Attributes that newer MXNets write even at their defaults: operator -> attribute -> default.
_NEUTRAL = {
    "Dropout": {"cudnn_off": "False"},
    "Embedding": {"sparse_grad": "False"},
    "softmax": {"dtype": "None", "temperature": "None", "use_length": "False"},
    "log_softmax": {"dtype": "None", "temperature": "None", "use_length": "False"},
}


def adapt_to_release(graph: SymbolGraph, form: Form, release: str | None) -> int:
    """Rewrite operators, in place, so that the MXNet `release`, such as ``1.5.1``, loads them and computes them right.

    The file then names this release as its writer. Without a release, only default attributes that the oldest release
    does not know are removed. Raises ModelError for a node that the release does not load.
    """
    changed = 0
    with graph.edit():
        if form.erf:
            changed += decompose_gelu(graph)
        for node in graph.nodes:
            if _missing(node, release or _OLDEST):
                neutral = _NEUTRAL.get(node.op, {})
                kept = {key: value for key, value in node.attrs.items() if neutral.get(key) != value}
                changed += kept != node.attrs
                node.attrs = kept
                if release is not None and (missing := _missing(node, release)):
                    where = f"node {node.name}, outside the encoder"
                    raise ModelError(f"{where}: MXNet {release} does not load {missing[0]}")
    if release is not None:
        graph.set_mxnet_version(release)
    return changed


def _missing(node: Node, release: str) -> list[str]:
    """The operators and attributes of a node that the MXNet `release` does not load."""
    found = oldest_mxnet([node])
    missing = [fact.reason for fact in found.unknown]
    if _numbers(found.version) > _numbers(release):
        missing += [fact.reason for fact in found.requirements]
    return missing


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
